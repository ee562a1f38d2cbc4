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
from agentk.memory.driver import Conn
from agentk.runtime.jails import Jails
from agentk.store.store import Store
from tests.llm import upstreams
from tests.memory.rooms import WIDE

Object = dict[str, Any]
MEANING = {"car": [1.0, 0.1, 0.0], "automobile": [0.9, 0.2, 0.0], "banana": [0.0, 0.1, 1.0]}


class World:
    """A gate without a launcher, one agent with a memory, and the model that embeds for it."""

    def __init__(self, store: Store, house: gatehouse.Gatehouse) -> None:
        self.store, self.house = store, house
        self.batches: list[int] = []
        self.bodies: list[Object] = []
        self.open = asyncio.Event()  # the model answers
        self.open.set()
        self.asked = asyncio.Event()
        self.spoil: Callable[[list[list[float]]], Any] | None = None

    async def embeds(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        texts = body["input"]
        self.batches.append(len(texts))
        self.bodies.append(body)
        self.asked.set()
        await self.open.wait()
        made = [next((v for w, v in MEANING.items() if w in text), [0.1, 1.0, 0.1]) for text in texts]
        made = [vector + [0.0] * (body.get("output_dimension", 3) - 3) for vector in made]
        told = made if self.spoil is None else self.spoil(made)
        data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(told)]
        usage = {"prompt_tokens": 5 * len(texts), "total_tokens": 5 * len(texts)}
        body = json.dumps({"object": "list", "data": data, "model": "e", "usage": usage})
        return web.Response(text=body, content_type="application/json")

    async def call(self, method: str, **params: Any) -> Any:
        guest = self.house.guests.find(f"{self.agent['metadata']['uid']}-1")
        return await self.house.gate.call(Call(guest, f"memory.{method}", params), _nobody)

    async def make(
        self,
        url: str,
        memory: Object,
        quota: Object | None = None,
        provider: str = "openai",
        most: int = 8,
        **budget: Any,
    ) -> None:
        params = {"model": f"{provider}/e", "api_base": f"{url}/v1"}
        params |= {"input_cost_per_token": 0.001, "output_cost_per_token": 0.0}
        route = {"modelList": [{"modelName": "e", "litellmParams": params}], "maxConcurrent": most}
        policy = {"level": "baseline", "rules": [{"name": "all", "effect": "Allow", "methods": ["*"]}]}
        spec = {"command": ["true"], "memory": memory} | ({"budget": budget} if budget else {})
        for obj in (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}},
            _ours("Policy", "baseline", policy),
            _ours("ModelRoute", "r", route, "default"),
            *([] if quota is None else [_ours("Quota", "q", {"hard": quota}, "default")]),
            _ours("Agent", "a", spec, "default"),
        ):
            self.agent = await self.store.create(admit.admit(obj))

    async def put(self, *texts: str) -> None:
        """What people put has its vectors made in the background."""

        def work(conn: Conn) -> None:
            room = keeping.room(conn, f"agent/{self.agent['metadata']['uid']}", "a", "a")
            for text in texts:
                keeping.put(conn, room, keeping.fresh("note", text, 1), WIDE)

        await self.house.memory.db.write(work)
        self.house.memory.wake(f"agent/{self.agent['metadata']['uid']}")

    async def done(self, many: int) -> None:
        while (await self.embedded())[0] < many:  # noqa: ASYNC110 nothing tells of it but the disk
            await asyncio.sleep(0.01)

    def left(self) -> int | None:
        """Tokens of the namespace's Quota."""
        whole = self.house.accounts.path_of(self.agent)
        return self.house.budgets.left(whole[:-1], gatehouse.now()).tokens

    async def embedded(self) -> tuple[int, int]:
        (room,) = await self.house.memory.db.read(keeping.every)
        name = self.house.memory.known.of(str(self.agent["metadata"]["uid"])).settings.embedder.name
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
        await there.done(46)
        return kept, there.batches[before:], await there.embedded()

    kept, batches, progress = played(tmp_path, play, MINE)
    assert kept == [False] * 6
    assert progress == (46, 46) and max(batches) <= 32


def test_what_nobody_asked_for_counts_for_the_quota_and_is_on_record_without_its_words(
    tmp_path: Path,
) -> None:
    async def play(there: World) -> Any:
        await there.put("My car is red.", "A banana is yellow.")
        await there.done(2)
        left = there.left()
        await there.put(*(f"a longer fact of number {n} " * 40 for n in range(3)))
        await _until(lambda: bool(there.house.memory._errors))
        (why,) = there.house.memory._errors.values()
        found = await there.call("search", query="longer", limit=1)
        records = await there.house.journal.read_apart(
            lambda conn: conn.execute("SELECT agent, status FROM records WHERE method = 'embed'").fetchall()
        )
        there.house.journal.close()
        return left, why, found, [tuple(row) for row in records]

    left, why, found, records = played(tmp_path, play, MINE, quota={"tokens": 600})
    assert left == 600 - 10
    assert "quota" in why.lower() and found["items"][0]["by"] == ["words"]
    assert [agent for agent, _ in records] == ["@memory", "@memory"]
    journal = b"".join(path.read_bytes() for path in (tmp_path / "store").glob("journal.db*"))
    assert b"banana" not in journal


def test_an_agent_does_not_wait_for_all_that_is_embedded_anew(tmp_path: Path) -> None:
    """One turn at a time on the route: a batch in the background, the agent, the rest."""

    async def play(there: World) -> Any:
        there.open.clear()
        await there.put(*(f"fact {n}" for n in range(80)))
        await there.asked.wait()
        asking = asyncio.ensure_future(there.call("search", query="a question of the agent's"))
        waiting = there.house.turns._turns["default", "r"].waiting
        await _until(lambda: there.agent["metadata"]["uid"] in waiting())
        there.open.set()
        await asking
        await there.done(80)
        return there.batches

    assert played(tmp_path, play, MINE, most=1) == [32, 1, 32, 16]


def test_an_embedder_that_speaks_other_words_is_translated(tmp_path: Path) -> None:
    memory = {**MINE, "dimensions": 8}

    async def play(there: World) -> Any:
        await there.put("A banana is yellow.")
        await there.done(1)
        await there.call("remember", content="My car is red.")
        told = await there.call("search", query="automobile?", limit=1)
        return told, there.bodies

    told, bodies = played(tmp_path, play, memory, provider="voyage")
    assert told["items"][0]["snippet"] == "My car is red." and told["items"][0]["by"] == ["vector"]
    assert all(body["output_dimension"] == 8 and "dimensions" not in body for body in bodies)


def test_who_searches_much_keeps_nobody_else_from_the_readers(tmp_path: Path) -> None:
    """One search at a time for an agent and all that it spawned, whatever it asks for at once."""

    async def play(there: World) -> Any:
        other = await there.store.create(
            admit.admit(_ours("Agent", "b", {"command": ["true"], "memory": {}}, "default"))
        )
        await there.put(*(f"fact {n} of many" for n in range(300)))
        await _until(lambda: there.house.guests.of(str(other["metadata"]["uid"])) is not None)
        guest = there.house.guests.find(f"{other['metadata']['uid']}-1")
        order = list[str]()

        async def asks(who: str, work: Awaitable[Any]) -> None:
            await work
            order.append(who)

        much = [asks("a", there.call("search", query=f"fact {n} of many")) for n in range(40)]
        little = there.house.gate.call(Call(guest, "memory.search", {"query": "fact"}), _nobody)
        await asyncio.gather(*much, asks("b", little))
        return order

    order = played(tmp_path, play, {})
    assert order.index("b") < 20


async def _until(there: Callable[[], bool]) -> None:
    while not there():  # noqa: ASYNC110 nothing tells of it
        await asyncio.sleep(0.01)


async def _refusal(work: Awaitable[Any]) -> errors.AgentkError | None:
    try:
        await work
    except errors.AgentkError as error:
        return error
    return None
