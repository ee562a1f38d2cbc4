"""The first and the last of a text that may be longer than what is kept of it. Its memory is bounded, whatever comes.

What a program says first tells what it was about to do, and what it says last, why it failed.
"""


class Ends:
    """Keeps `limit` bytes: all of a text that is no longer, else its first and its last half."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._first, self._last = bytearray(), bytearray()
        self._seen = 0

    @property
    def truncated(self) -> bool:
        """Whether there was more than is kept."""
        return self._seen > self._limit

    def add(self, data: bytes) -> None:
        """What comes next."""
        self._seen += len(data)
        half = self._limit - self._limit // 2
        room = half - len(self._first)
        self._first += data[:room]
        rest = data[room:] if room else data
        keeps = self._limit - half
        if keeps and rest:
            if len(rest) < keeps:
                del self._last[: max(0, len(self._last) + len(rest) - keeps)]
                self._last += rest
            else:
                self._last[:] = rest[-keeps:]

    def kept(self) -> bytes:
        return bytes(self._first + self._last)
