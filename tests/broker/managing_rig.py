"""A door whose agent's context is managed, over a real memory.db, before an upstream that says what it was sent."""

import contextlib
import itertools
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from agentk.broker.managing import counting, managed, saving
from agentk.broker.words import Call, Guest
from agentk.llm.tokenizing import Tokenizers
from agentk.memory import database, embedding, keeping, tokens
from agentk.memory.driver import Conn
from tests.broker import thinking_rig as rigs
from tests.llm import upstreams

T = TypeVar("T")
LIMITS = keeping.Limits(10_000, 10**8, 10_000, 10**8)


def guest(**memory: Any) -> Guest:
    spec = {"modelRef": {"name": "r"}, "memory": {"context": "managed", **memory}}
    return Guest("u", "default", "a", 1, "u-1", "u-1", spec)


class Tokenizing:
    """A model's own tokenizer, in its process, and which texts it was asked about."""

    def __init__(self, tokenizers: Tokenizers, model: str = "openai/gpt-4o") -> None:
        self._tokenizers, self._models, self.asked = tokenizers, [model], list[list[bytes]]()

    async def of(self, guest: Guest, model: str) -> tokens.Counter:
        name = await self._tokenizers.name(self._models)

        def count(text: bytes) -> int:
            known = self._tokenizers.known(name, text.decode())
            assert known is not None, "asked for one by one"
            return known

        return tokens.Counter(f"tokenizer {name}", count, "words")

    async def ready(self, guest: Guest, model: str, texts: Sequence[bytes]) -> bool:
        name = await self._tokenizers.name(self._models)
        self.asked.append([text for text in texts if self._tokenizers.known(name, text.decode()) is None])
        return await self._tokenizers.count(self._models, [text.decode() for text in texts])


class Keeper:
    """One room for whoever comes."""

    def __init__(self, folder: Path, limits: keeping.Limits = LIMITS) -> None:
        self.database, self._limits = database.Database(folder), limits
        self.likely: dict[str, float] = {}

    def place(self, guest: Guest) -> saving.Place:
        return saving.Place("m", guest.uid, guest.uid, self._limits)

    def kept(self, guest: Guest, place: saving.Place) -> None:
        """Nobody is told."""

    async def read(self, work: Callable[[Conn], T]) -> T:
        return await self.database.read(work)

    async def write(self, work: Callable[[Conn], T], whose: str = "") -> T:
        return await self.database.write(work, whose)

    async def vectors(self, guest: Guest, texts: Sequence[str]) -> Sequence[keeping.Vector | None]:
        return [keeping.Vector(embedding.name(), embedding.hashed(text)) for text in texts]

    async def near(self, guest: Guest, text: str, least: float, heard: saving.Heard) -> Mapping[str, float]:
        return self.likely


def managing(
    keeper: Keeper, clock: Iterator[int], counters: counting.Counters | None = None
) -> Callable[[rigs.World], managed.Managed]:
    def made(world: rigs.World) -> managed.Managed:
        async def summarise(guest: Guest, system: str, text: str, most: int, key: str) -> str:
            asked = {"system": system, "prompt": text, "maxTokens": most}
            call = Call(guest, "think", asked, form="fold", key=key)
            return str((await world.gate.call(call, world.emit))["text"])

        return managed.Managed(
            keeper, lambda guest: {}, summarise, lambda guest, model: True, lambda: next(clock), counters
        )

    return made


@contextlib.asynccontextmanager
async def rig(
    *handlers: upstreams.Handler,
    memory: Mapping[str, Any] | None = None,
    folder: str = "",
    clock: Iterator[int] | None = None,
    counters: counting.Counters | None = None,
    **more: Any,
) -> AsyncIterator[tuple[upstreams.Upstream, rigs.World, Keeper]]:
    with tempfile.TemporaryDirectory() as scratch:
        keeper = Keeper(Path(folder or scratch))
        try:
            who = guest(**(memory or {"contextTokens": 1_000}))
            async with rigs.rig(
                *handlers,
                managing=managing(keeper, clock or itertools.count(1_000_000), counters),
                guest=who,
                **more,
            ) as (up, world):
                yield up, world, keeper
                assert isinstance(world.managing, managed.Managed)
                await world.managing.close()
        finally:
            keeper.database.close()


def counting(document: Mapping[str, Any], told: str, **more: int) -> upstreams.Handler:
    """An upstream of another dialect that counts the same, and says always the same."""

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        plain = {key: value for key, value in body.items() if key != "model"}
        read = tokens.estimate(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode())
        return web.json_response(
            {**document, "usage": {told: read - sum(more.values()), "output_tokens": 2, **more}}
        )

    return handle


def counts(text: Callable[[Any], str] = lambda body: "yes") -> upstreams.Handler:
    """An upstream of OpenAI's chat that counts as the estimate does, and says what the body makes it say."""

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        read = tokens.estimate(json.dumps(body["messages"], ensure_ascii=False).encode())
        told = upstreams.chat(text(body))
        told["usage"] = {"prompt_tokens": read, "completion_tokens": 3, "total_tokens": read + 3}
        return web.json_response(told)

    return handle
