"""Takes the values of secrets out of what a host answers, also where a value is cut by the border of two pieces.

It must never let a value through that it was told of, in any form it knows (`journal_redaction.forms`, and as hex and
HTML), nor the beginning of one at the end of an answer that was cut. What a host encrypts or spells backwards it
cannot see: a secret belongs to hosts one trusts with it.
"""

import html
import re
from collections.abc import Iterable

from agentk.store import journal_redaction as redaction

SHORTEST_BYTES = redaction.SHORTEST_BYTES
_MARK = redaction.MARK


class Needles:
    """Every form of some secrets, ready to be looked for. Shared by answers; keeps nothing of them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        found: set[bytes] = set()
        for secret in secrets:
            value = secret.encode("utf-8", "surrogateescape")
            written = {value.hex().encode(), value.hex().upper().encode()}
            escaped = {html.escape(secret, quote=quote).encode("utf-8", "replace") for quote in (True, False)}
            found |= redaction.forms(value) | written | escaped
        # Longest first: a form that contains another goes as a whole.
        self._forms = tuple(sorted(found, key=lambda form: (-len(form), form)))
        self._pattern = re.compile(b"|".join(map(re.escape, self._forms))) if self._forms else None
        self._longest = max(map(len, self._forms), default=0)
        self._begins = frozenset(form[0] for form in self._forms)

    def __bool__(self) -> bool:
        return self._pattern is not None

    def whole(self, data: bytes) -> bytes:
        return self._pattern.sub(_MARK, data) if self._pattern else data

    def text(self, text: str) -> str:
        if self._pattern is None:
            return text
        return self.whole(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def unfinished(self, data: bytes) -> int:
        """How many bytes at the end may be the beginning of a form."""
        for at in range(max(0, len(data) - self._longest + 1), len(data)):
            if data[at] in self._begins:
                rest = data[at:]
                if any(form.startswith(rest) for form in self._forms):
                    return len(rest)
        return 0


class Stream:
    """One answer's body, piece by piece."""

    def __init__(self, needles: Needles) -> None:
        self._needles = needles
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        """What may go on now."""
        if not self._needles:
            return data
        data = self._needles.whole(self._kept + data)
        kept = self._needles.unfinished(data)
        self._kept = data[len(data) - kept :]
        return data[: len(data) - kept]

    def end(self) -> bytes:
        """What was held back, when the answer ended by itself. Of one that was cut nothing more goes on."""
        rest, self._kept = self._kept, b""
        return rest
