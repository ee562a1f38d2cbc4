"""An answer on its way to the guest, with what must happen when it ends: cost, counters, cache. Exactly once.

An answer ends when its last piece was given or when it is closed, whichever comes first.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

from agentk.llm import asking, caching, choosing, prices


class Answer(asking.Reply):
    """Wraps the answer of one deployment. `entries` are what the call holds in windows of rpm and tpm."""

    def __init__(
        self,
        inner: asking.Reply,
        state: choosing.State,
        entry: choosing.Entry,
        rate: prices.Rate | None,
    ) -> None:
        self._inner = inner
        self._state = state
        self._rate = rate
        self._done = False
        self._cache: tuple[caching.Answers, str] | None = None
        self.entries = [entry]
        self.status = inner.status
        self.headers = inner.headers
        self.deployment = inner.deployment

    def keep_in(self, cache: caching.Answers, key: str) -> None:
        """Keep it for the same request, if it comes to its end."""
        self._cache = (cache, key)

    async def chunks(self) -> AsyncIterator[bytes]:
        stream = self._inner.chunks()
        kept: list[bytes] = []
        size = 0
        most = self._cache[0].most_bytes if self._cache else -1
        try:
            async for piece in stream:
                if size <= most:
                    kept.append(piece)
                    size += len(piece)
                yield piece
        finally:
            # A guest that hangs up stops here, at its yield: the upstream must learn of it now, not at a collection.
            await self.aclose()
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()
        if self._cache and size <= most and not self.usage.counted:
            cache, key = self._cache
            cache.put(key, tuple(kept), self.headers, self.usage, asyncio.get_running_loop().time())

    async def aclose(self) -> None:
        if self._done:
            return
        self._done = True
        self._state.in_flight -= 1
        try:
            await self._inner.aclose()
        finally:
            usage = self._inner.usage
            # The worker's own figure stands only where no price is known here.
            self.usage = replace(usage, cost_micro_usd=self._rate.cost(usage)) if self._rate else usage
            for entry in self.entries:
                entry.count(usage.input_tokens + usage.output_tokens)
