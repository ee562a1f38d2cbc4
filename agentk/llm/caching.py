"""Answers kept for the very same request to the very same route, in memory, for as long as the route says.

Only whole answers that ended well are kept. A guest that gets one learns that somebody of its namespace asked the same:
that is what the owner of the route chose by writing `cache`.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

from agentk.api import errors
from agentk.llm import asking, routes


@dataclass(frozen=True)
class Kept:
    body: tuple[bytes, ...]
    headers: Mapping[str, str]
    usage: asking.Usage
    until: float

    @property
    def size(self) -> int:
        return sum(len(piece) for piece in self.body)


class Answers:
    """The cache of one route: bounded in bytes, the longest unused goes first."""

    def __init__(self, settings: routes.Cache) -> None:
        self._settings = settings
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._size = 0

    @property
    def most_bytes(self) -> int:
        return self._settings.max_bytes

    def get(self, key: str, now: float) -> Kept | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until <= now:
            self._forget(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def put(
        self,
        key: str,
        body: tuple[bytes, ...],
        headers: Mapping[str, str],
        usage: asking.Usage,
        now: float,
    ) -> None:
        kept = Kept(body, headers, usage, now + self._settings.seconds)
        if kept.size > self._settings.max_bytes:
            return
        self._forget(key)
        self._kept[key] = kept
        self._size += kept.size
        while self._size > self._settings.max_bytes:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: str) -> None:
        if kept := self._kept.pop(key, None):
            self._size -= kept.size


def key_of(ask: asking.Ask) -> str:
    """The same for requests that differ in nothing but the order of their fields."""
    try:
        text = json.dumps([ask.dialect, ask.stream, ask.body], sort_keys=True, default=str)
    except RecursionError:
        raise errors.BadRequest("the request is nested too deeply") from None
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class FromCache(asking.Reply):
    """An answer told again: it used no tokens and cost nothing."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.headers = kept.headers
        self.deployment = "cache"
        self.usage = replace(
            kept.usage,
            input_tokens=0,
            output_tokens=0,
            cached_tokens=0,
            cache_write_tokens=0,
            cost_micro_usd=0,
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self._kept.body:
            yield piece

    async def aclose(self) -> None:
        """Nothing is open."""
