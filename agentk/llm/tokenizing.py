"""Tokens as a model's own tokenizer counts them: many texts at once, asked of one process apart, and remembered.

A tokenizer is one of those that LiteLLM ships as files; for a model without one, the answer is that there is none, and
nothing is fetched to have one. What was counted once is not asked again, so a conversation that grows by two messages
costs one question with two texts. The process is started by the first question, and ended when nobody asks.
"""

import asyncio
import hashlib
import itertools
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from agentk.apart import child, frames
from agentk.apart.kept import Kept
from agentk.api import errors

ROLE = child.Role("the token counter", "agentk.llm.tokenizing_main", said_bytes_max=8 * 1024 * 1024)
IDLE_SECONDS = 600.0
_REMEMBERED = 50_000  # texts
_NAMES = 1_000  # models
# How models begin whose tokenizer may be there: for others nothing is started to be told so.
_LIKELY = ("gpt-", "chatgpt-", "o1", "o3", "o4", "ft:gpt-", "davinci", "babbage")
_AT_ONCE_CHARS = 8 * 1024 * 1024  # of one question


class Tokenizers:
    """`count` for whoever needs numbers; nothing is started before the first one."""

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python
        self._kept: Kept | None = None
        self._asked: dict[int, asyncio.Future[Mapping[str, object]]] = {}
        self._ids = itertools.count(1)
        self._names: OrderedDict[tuple[str, ...], str] = OrderedDict()
        self._known: OrderedDict[tuple[str, bytes], int] = OrderedDict()
        self._idle: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    async def name(self, models: Sequence[str]) -> str:
        """Of the tokenizer that all of these models have, or the names of several; "" when one has none here, or when
        it cannot be asked now."""
        key = tuple(sorted(set(models)))
        if not key or not all(model.rpartition("/")[2].startswith(_LIKELY) for model in key):
            return ""
        if key not in self._names:
            try:
                told = await self._ask(key, [])
            except errors.AgentkError:
                return ""
            while len(self._names) >= _NAMES:
                self._names.popitem(last=False)
            self._names[key] = str(told["name"])
        return self._names[key]

    async def count(self, models: Sequence[str], texts: Sequence[str]) -> bool:
        """Have these counted, so that `known` tells of them. False when it cannot be asked now."""
        key, name = tuple(sorted(set(models))), await self.name(models)
        if not name:
            return False
        new = list(dict.fromkeys(text for text in texts if (name, _digest(text)) not in self._known))
        at = 0
        while at < len(new):
            end, chars = at, 0
            while end < len(new) and (end == at or chars + len(new[end]) <= _AT_ONCE_CHARS):
                chars += len(new[end])
                end += 1
            try:
                told = await self._ask(key, new[at:end])
            except errors.AgentkError:
                return False
            counts = told["counts"]
            assert isinstance(counts, list)
            for text, number in zip(new[at:end], counts, strict=True):
                self._known[name, _digest(text)] = int(number)
            at = end
        while len(self._known) > max(_REMEMBERED, 2 * len(texts)):
            self._known.popitem(last=False)
        return True

    def known(self, name: str, text: str) -> int | None:
        """What `count` found, while it is remembered."""
        return self._known.get((name, _digest(text)))

    async def close(self) -> None:
        """Repeatable."""
        if self._idle:
            self._idle.cancel()
        if self._ending:
            await asyncio.wait((self._ending,))
        kept, self._kept = self._kept, None
        if kept:
            await kept.close()

    async def _ask(self, models: Sequence[str], texts: Sequence[str]) -> Mapping[str, object]:
        """Raises Unavailable."""
        if self._idle:
            self._idle.cancel()
        kept = self._kept = self._kept or Kept(ROLE, self._hear, self._died, python=self._python)
        number = next(self._ids)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            process = await kept.ready()
            process.tell({"t": "count", "id": number, "models": list(models), "texts": list(texts)})
            if process.gone:
                raise errors.Unavailable("the token counter ended")
            told: Mapping[str, object] = await answer
            return told
        except frames.TooLarge as error:
            raise errors.Unavailable(f"too much to be counted at once: {error}") from None
        finally:
            self._asked.pop(number, None)
            if not self._asked and self._kept:
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(IDLE_SECONDS, self._rest)

    def _hear(self, message: frames.Message) -> None:
        answer = self._asked.get(int(message["id"]))
        if answer and not answer.done():
            answer.set_result(message)
            if self._kept:
                self._kept.served()

    def _died(self, how: str) -> None:
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(errors.Unavailable(how))

    def _rest(self) -> None:
        kept, self._kept = self._kept, None
        if kept and not self._asked:
            self._ending = asyncio.get_running_loop().create_task(kept.close(), name="token counter: idle")
        else:
            self._kept = kept


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
