"""Unpacks what a host sent packed, so that it can be looked through.

A little of what it unpacks is made at a time, so that a small answer that unpacks to a huge one costs no memory.
"""

import zlib
from collections.abc import Iterator, Sequence

from agentk.api.errors import UpstreamError

_GZIP = frozenset({"gzip", "x-gzip"})
_STEP_BYTES = 256 * 1024
_EMPTY_MAX = 100  # members in a row that hold nothing: each costs as much as one that holds something


class Decoding:
    """One answer's. Without a coding everything goes through as it is."""

    def __init__(self, coding: str = "") -> None:
        self.packed = coding in _GZIP
        self.unknown = bool(coding) and not self.packed
        self._stream = _gzip() if self.packed else None
        self._begun = False
        self._empty = 0

    @classmethod
    def of(cls, headers: Sequence[str]) -> "Decoding":
        """From the Content-Encoding headers of an answer."""
        words = [word.strip().lower() for header in headers for word in header.split(",")]
        return cls(",".join(word for word in words if word and word != "identity"))

    @property
    def whole(self) -> bool:
        """Whether the end of what was packed has come."""
        return self._stream is None or self._stream.eof or not self._begun

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises UpstreamError for what is not packed as it was said to be."""
        if self._stream is None:
            yield data
            return
        while data:
            self._begun = True
            if self._stream.eof:  # another member follows
                self._stream = _gzip()
                self._empty += 1
                if self._empty > _EMPTY_MAX:
                    raise UpstreamError("the answer is packed in pieces that hold nothing")
            try:
                part = self._stream.decompress(data, _STEP_BYTES)
            except zlib.error:
                raise UpstreamError("the answer is not packed as it says") from None
            data = self._stream.unconsumed_tail or self._stream.unused_data
            if part:
                self._empty = 0
                yield part


def _gzip() -> "zlib._Decompress":
    return zlib.decompressobj(16 + zlib.MAX_WBITS)
