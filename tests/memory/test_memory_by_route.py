"""Memory whose vectors a model of a ModelRoute makes, at a real upstream: what it costs, and what it may answer."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from agentk.api import admit, errors, kinds
from agentk.broker.words import Call
from agentk.daemon import gatehouse
from agentk.memory import keeping, vectors
from agentk.runtime.jails import Jails
from agentk.store.store import Store
from tests.llm import upstreams

Object = dict[str, Any]
MEANING = {"car": [1.0, 0.1, 0.0], "automobile": [0.9, 0.2, 0.0], "banana": [0.0, 0.1, 1.0]}


class World:
    """A gate without a launcher, one agent with a memory, and the model that embeds for it."""

    def __init__(self, store: Store, house: gatehouse.Gatehouse) -> None:
        self.store, self.house = store, house
        self.batches: list[int] = []
        self.spoil: Callable[[list[list[float]]], Any] | None = None

    async def embeds(self, request: web.Request) -> web.StreamResponse:
        texts = (await request.json())["input"]
        self.batches.append(len(texts))
        made = [next((v for w, v in MEANING.items() if w in text), [0.1, 1.0, 0.1]) for text in texts]
        told = made if self.spoil is None else self.spoil(made)
        data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(told)]
        usage = {"prompt_tokens": 5 * len(texts), "total_tokens": 5 * len(texts)}
        body = json.dumps({"object": "list", "data": data, "model": "e", "usage": usage})
        return web.Response(text=body, content_type="application/json")

    async def call(self, method: str, **params: Any) -> Any:
        guest = self.house.guests.find(f"{self.agent['metadata']['uid']}-1")
        return await self.house.gate.call(Call(guest, f"memory.{method}", params), _nobody)

    async def make(self, url: str, memory: Object, **budget: Any) -> None:
        params = {"model": "openai/e", "api_base": f"{url}/v1"}
        params |= {"input_cost_per_token": 0.001, "output_cost_per_token": 0.0}
        route = {"modelList": [{"modelName": "e", "litellmParams": params}]}
        policy = {"level": "baseline", "rules": [{"name": "all", "effect": "Allow", "methods": ["*"]}]}
        spec = {"command": ["true"], "memory": memory} | ({"budget": budget} if budget else {})
        for obj in (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}},
            _ours("Policy", "baseline", policy),
            _ours("ModelRoute", "r", route, "default"),
            _ours("Agent", "a", spec, "default"),
        ):
            self.agent = await self.store.create(admit.admit(obj))

    async def embedded(self) -> tuple[int, int]:
        (room,) = await self.house.memory.db.read(keeping.every)
        name = "route/r/e"
        return await self.house.memory.db.read(lambda conn: vectors.progress(conn, [room.id], name))


def _ours(kind: str, name: str, spec: Object, namespace: str = "") -> Object:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": kinds.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


async def _nobody(data: Any) -> None:
    """No stream."""


@contextlib.asynccontextmanager
async def world(folder: Path, memory: Object, **budget: Any) -> AsyncIterator[World]:
    (folder / "store").mkdir(mode=0o700)
    store = Store.open(folder / "store")
    made = World(store, gatehouse.Gatehouse(store, Jails(folder / "no-launcher")))
    async with upstreams.serving(made.embeds) as url:
        await made.make(url, memory, **budget)
        running = asyncio.create_task(made.house.run())
        await made.house.lives.opened()
        try:
            yield made
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await made.house.close()
            store.close()


def played(folder: Path, play: Callable[[World], Awaitable[Any]], memory: Object, **budget: Any) -> Any:
    async def work() -> Any:
        async with asyncio.timeout(60), world(folder, memory, **budget) as there:
            return await play(there)

    return asyncio.run(work())


MINE: Object = {"embedder": {"modelRef": {"name": "r"}, "model": "e"}}


def test_what_shares_no_word_is_found_and_the_agent_pays_for_it(tmp_path: Path) -> None:
    async def play(there: World) -> Any:
        await there.call("remember", content="My car is red.")
        await there.call("remember", content="A banana is yellow.")
        told = await there.call("search", query="automobile?", limit=1)
        path = there.house.accounts.path_of(there.agent)
        left = there.house.budgets.left(path, gatehouse.now())
        with_nothing_left = await _refusal(there.call("remember", content="x " * 3000))
        return told, left, with_nothing_left

    told, left, refused = played(tmp_path, play, MINE, maxTokens=1000)
    assert told["items"][0]["snippet"] == "My car is red." and told["items"][0]["by"] == ["vector"]
    assert left.tokens == 1000 - 15
    assert isinstance(refused, errors.BudgetExceeded)


def test_answers_that_are_no_vectors_keep_nobody_from_remembering(tmp_path: Path) -> None:
    async def play(there: World) -> Any:
        kept = []
        spoils: list[Callable[[list[list[float]]], Any]] = [
            lambda made: [[float("nan")] * 3 for _ in made],
            lambda made: [],
            lambda made: [["x"] for _ in made],
            lambda made: [[1e400, 1.0, 1.0] for _ in made],
            lambda made: [None for _ in made],
            lambda made: [[1.0] * 9000 for _ in made],
        ]
        for number, spoil in enumerate(spoils):
            there.spoil = spoil
            kept.append((await there.call("remember", content=f"fact {number}"))["embedded"])
            found = await there.call("recall", query=f"fact {number}", limit=1)
            assert found["items"][0]["content"] == f"fact {number}"
        there.spoil = None
        for number in range(40):
            there.spoil = (lambda made: []) if number else None
            await there.call("remember", content=f"more {number}")
        there.spoil = None
        before = len(there.batches)
        there.house.memory._pauses.clear()
        there.house.memory.wake("agent")
        while (await there.embedded())[0] < 46:  # noqa: ASYNC110 nothing tells of it but the disk
            await asyncio.sleep(0.01)
        return kept, there.batches[before:], await there.embedded()

    kept, batches, progress = played(tmp_path, play, MINE)
    assert kept == [False] * 6
    assert progress == (46, 46) and max(batches) <= 32


async def _refusal(work: Awaitable[Any]) -> errors.AgentkError | None:
    try:
        await work
    except errors.AgentkError as error:
        return error
    return None
