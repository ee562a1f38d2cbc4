"""An answer that arrives from the LiteLLM worker, piece by piece, no faster than its reader takes it.

What it used is read out of the answer itself by the same meter as for answers that are passed through, so it is known
also when the reader leaves early or the worker dies in the middle.
"""

import asyncio
import collections
import dataclasses
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from agentk.api import errors
from agentk.llm import asking, metering, sse, worker_wire

# Translated streams of the Anthropic dialect begin before the provider has told what it read: that is no count.
_COST_MAX_MICRO_USD = 10**15  # what a provider says it used makes the cost: no ledger overflows by it
_NOT_YET = re.compile(rb'"input_tokens":\s*0,(?!.*"cache_\w+_input_tokens":\s*[1-9])', re.DOTALL)

Tell = Callable[..., None]  # ("stop") or ("more", n=…) to the worker


class WorkerReply(asking.Reply):
    """`feed` and `fail` are the worker's side, everything else the reader's."""

    def __init__(self, ask: asking.Ask, model: Mapping[str, Any], tell: Tell) -> None:
        self.headers = {"content-type": "text/event-stream" if ask.stream else "application/json"}
        self.deployment = str((model.get("model_info") or {}).get("id", ""))
        self._stream = ask.stream
        self._tell = tell
        self._meter = metering.Meter(ask, str((model.get("litellm_params") or {}).get("model", "")))
        self._pieces: collections.deque[str] = collections.deque()
        self._more = asyncio.Event()
        self._taken = 0  # characters since the worker was last given leave to go on
        self._cost = 0
        self._error: errors.AgentkError | None = None
        self._over = False

    def feed(self, message: Mapping[str, Any]) -> None:
        """What the worker says of this call."""
        self._cost = min(max(0, int(message.get("cost", self._cost))), _COST_MAX_MICRO_USD)
        if message["t"] == "data":
            if (
                "usage" in message
            ):  # of a whole answer, with its first piece: known even when nobody reads the rest
                self._meter.document({"usage": message["usage"]})
            self._pieces.append(message["text"])
        elif message["t"] == "end":
            self._over = True
        else:
            self.fail(refusal(message))
        self._more.set()

    def fail(self, error: errors.AgentkError) -> None:
        """There is no more of it, and why."""
        if not self._over:
            self._error, self._over = error, True
        self._more.set()

    async def begun(self) -> None:
        """Return when the upstream has begun to answer, or raise why it did not."""
        while not self._pieces and not self._over:
            await self._more.wait()
            self._more.clear()
        if self._error and not self._pieces:
            raise self._error

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            while True:
                while self._pieces:
                    piece = self._pieces.popleft()
                    self._credit(len(piece))
                    if data := self._metered(piece):
                        yield data
                if self._over:
                    break
                self._more.clear()
                await self._more.wait()
            if self._error:
                raise self._error
        finally:
            self.stop()

    async def aclose(self) -> None:
        self.stop()

    def stop(self) -> None:
        """Have the upstream closed at once, without waiting for it. Safe to call twice, and after the end."""
        if not self._over:
            self._over = True
            self._tell("stop")
        while self._pieces:  # written and not read is used all the same
            self._metered(self._pieces.popleft())
        self.usage = dataclasses.replace(self._meter.usage(), cost_micro_usd=self._cost)

    def _credit(self, size: int) -> None:
        self._taken += size
        if self._taken >= worker_wire.WINDOW_CHARS // 4 and not self._over:
            self._tell("more", n=self._taken)
            self._taken = 0

    def _metered(self, piece: str) -> bytes:
        raw = piece.encode("utf-8", "replace")
        if not self._stream or (raw.startswith(b"event: message_start") and _NOT_YET.search(raw)):
            return raw
        return self._meter.event(sse.read(raw))


def refusal(message: Mapping[str, Any]) -> errors.AgentkError:
    """The error that a `refused` of the worker stands for."""
    text = str(message.get("message", ""))
    if message.get("ours"):
        return errors.BadRequest(text)
    status, after = message.get("status"), message.get("retry_after")
    retryable = message.get("retryable")
    return asking.Refused(
        text,
        upstream_status=status if isinstance(status, int) else 0,
        type=str(message.get("type", "")),
        code=str(message.get("code", "")),
        param=str(message.get("param", "")),
        retryable=retryable if isinstance(retryable, bool) else None,
        retry_after_seconds=after if isinstance(after, int) else None,
    )
