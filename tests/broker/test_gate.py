"""The order of the gate, and what is on record of every way through it. Real journal, real budgets."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.broker import gate, methods, policy, running
from agentk.broker.budgets import Budgets
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.methods import Context, Done
from agentk.broker.words import Amount, Call, Guest
from agentk.store.journal import Journal
from agentk.store.journal_anchor import StateAnchor

GUEST = Guest("u", "default", "a", 1, "u-1", "u-1")
Handle = Callable[[Context, methods.Params], Awaitable[Done]]


class Turns:
    """Counts what is taken; there is always one."""

    def __init__(self) -> None:
        self.charged: list[int] = []

    @contextlib.asynccontextmanager
    async def take(self, route: str, guest: Guest, tokens: int) -> Any:
        yield self

    def charge(self, tokens: int) -> None:
        self.charged.append(tokens)


class World:
    def __init__(self, folder: Path, handlers: dict[str, Handle], rules: list[dict[str, Any]]) -> None:
        self.anchor: list[str] = []
        self.journal = Journal.open(
            folder, StateAnchor(lambda: self.anchor[-1] if self.anchor else None, self.anchor.append)
        )
        self.budgets, self.turns = Budgets(), Turns()
        self.budgets.put("namespace/default", Owner("quota", "q"), Limits(), 0.0)
        self.budgets.put("u", Owner("agent", "a"), Limits(tokens=100), 0.0)
        compiled = policy.read("test", {"level": "baseline", "rules": rules})
        rooms = gate.Rooms(
            {name: method(name, handle) for name, handle in handlers.items()},
            lambda guest: compiled,
            self.journal,
            self.budgets,
            lambda guest: (f"namespace/{guest.namespace}", *reversed(guest.parents), guest.uid),
            self.turns.take,
        )
        self.gate = gate.Gate(rooms)
        self.emitted: list[Any] = []

    async def call(self, name: str, params: dict[str, Any] | None = None, key: str = "") -> Any:
        return await self.gate.call(Call(GUEST, name, params or {}, key=key), self.emit)

    async def emit(self, data: Any) -> None:
        self.emitted.append(data)

    def records(self) -> list[tuple[str, str, str]]:
        def read(conn: Any) -> list[tuple[str, str, str]]:
            rows = conn.execute("SELECT kind, method, status FROM records WHERE method <> '' ORDER BY id")
            return [tuple(row) for row in rows]

        return self.journal.read(read)

    def tokens(self) -> tuple[int, int]:
        standing = self.budgets.standing("u", 0.0)
        return standing.used.tokens, standing.held.tokens


async def thirty(guest: Guest, params: methods.Params) -> Amount:
    return Amount(30, 1, 0)


def method(name: str, handle: Handle) -> methods.Method:
    about = {"think": policy.Facts(models=("m",)), "message.send": policy.Facts(target="default/b")}
    return methods.Method(
        name,
        methods.recording(name),
        methods.parser(name),
        handle,
        facts=lambda guest, params: about.get(name, policy.NOTHING),
        bound=thirty if name == "think" else methods.one_call,
        turn=(lambda guest, params: "route") if name == "think" else None,
    )


ALL = [{"name": "all", "effect": "Allow", "methods": ["*"]}]
Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path) -> Any:
    made: list[World] = []

    def world(handlers: dict[str, Handle], rules: list[dict[str, Any]] | None = None) -> World:
        made.append(World(tmp_path, handlers, ALL if rules is None else rules))
        return made[-1]

    yield world
    for one in made:
        one.journal.close()


async def answer(context: Context, params: methods.Params) -> Done:
    await context.emit("part")
    return Done({"content": "hi"}, Amount(20, 1, 0))


async def refuse(context: Context, params: methods.Params) -> Done:
    context.used = Amount(7, 1, 0)
    raise errors.UpstreamError("the model is not there")


def test_an_effect_is_intended_done_settled_and_counted(make: Make) -> None:
    async def story() -> None:
        world = make({"think": answer})
        assert await world.call("think", {"prompt": "x"}) == {"content": "hi"}
        assert world.records() == [("intent", "think", ""), ("result", "think", "ok")]
        assert (world.tokens(), world.turns.charged, world.emitted) == ((20, 0), [20], ["part"])

    asyncio.run(story())


def test_a_failed_effect_is_on_record_and_counts_what_it_used(make: Make) -> None:
    async def story() -> None:
        world = make({"think": refuse})
        with pytest.raises(errors.UpstreamError):
            await world.call("think", {"prompt": "x"})
        assert world.records() == [("intent", "think", ""), ("result", "think", "error")]
        assert world.tokens() == (7, 0)

    asyncio.run(story())


def test_what_no_rule_allows_is_denied_and_never_runs(make: Make) -> None:
    async def story() -> None:
        world = make({"think": answer}, [{"name": "no", "effect": "Deny", "methods": ["think"]}, *ALL])
        with pytest.raises(errors.Denied, match='"no"'):
            await world.call("think", {"prompt": "x"})
        assert [status for _, _, status in world.records()] == ["denied"]
        assert (world.tokens(), world.emitted) == ((0, 0), [])

    asyncio.run(story())


def test_who_has_to_be_asked_is_told_so(make: Make) -> None:
    async def story() -> None:
        world = make({"think": answer}, [{"name": "ask", "effect": "Ask", "methods": ["think"]}, *ALL])
        with pytest.raises(errors.ApprovalRequired):
            await world.call("think", {"prompt": "x"})
        assert world.tokens() == (0, 0)

    asyncio.run(story())


def test_bad_parameters_and_unknown_methods_reach_nothing(make: Make) -> None:
    async def story() -> None:
        world = make({"think": answer})
        with pytest.raises(errors.BadRequest, match="think"):
            await world.call("think", {"prompts": "x"})
        with pytest.raises(errors.MethodNotAllowed, match="thnik"):
            await world.call("thnik")
        assert (world.records(), world.tokens()) == ([], (0, 0))

    asyncio.run(story())


def test_a_budget_is_never_overshot_by_calls_at_once(make: Make) -> None:
    async def story() -> None:
        world, going = make({"think": answer}), 0

        async def one() -> None:
            nonlocal going
            with contextlib.suppress(errors.BudgetExceeded):
                await world.call("think", {"prompt": "x"})
                going += 1

        await asyncio.gather(*(one() for _ in range(100)))
        used, held = world.tokens()
        assert (going >= 3, used <= 100, held, used) == (True, True, 0, going * 20)

    asyncio.run(story())


def test_a_cancelled_call_is_settled_at_what_it_used(make: Make) -> None:
    async def story() -> None:
        begun = asyncio.Event()

        async def forever(context: Context, params: methods.Params) -> Done:
            context.used = Amount(5, 1, 0)
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError("nobody wakes it")

        world = make({"think": forever})
        task = asyncio.create_task(world.call("think", {"prompt": "x"}, key="k"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (world.tokens(), world.records()[-1]) == ((5, 0), ("result", "think", "cancelled"))
        with pytest.raises(errors.Cancelled):
            await world.call("think", {"prompt": "x"}, key="k")

    asyncio.run(story())


def test_a_repeated_key_attaches_or_gets_its_answer_and_does_nothing_twice(make: Make) -> None:
    async def story() -> None:
        done = 0
        gate_open = asyncio.Event()

        async def slow(context: Context, params: methods.Params) -> Done:
            nonlocal done
            await gate_open.wait()
            done += 1
            return Done({"n": done}, Amount(1, 1, 0))

        world = make({"think": slow})
        both = [asyncio.create_task(world.call("think", {"prompt": "x"}, key="k")) for _ in range(2)]
        await asyncio.sleep(0)
        gate_open.set()
        assert await asyncio.gather(*both) == [{"n": 1}, {"n": 1}]
        assert await world.call("think", {"prompt": "x"}, key="k") == {"n": 1}
        with pytest.raises(errors.Conflict, match="idempotency key"):
            await world.call("think", {"prompt": "y"}, key="k")
        assert (await world.call("think", {"prompt": "x"}, key="other"), done) == ({"n": 2}, 2)

    asyncio.run(story())


def test_a_repeated_failure_is_the_same_failure(make: Make) -> None:
    async def story() -> None:
        world = make({"think": refuse})
        for _ in range(2):
            with pytest.raises(errors.UpstreamError, match="not there"):
                await world.call("think", {"prompt": "x"}, key="k")
        assert len(world.records()) == 2

    asyncio.run(story())


def test_a_local_call_and_its_record_are_one_transaction(make: Make) -> None:
    async def story() -> None:
        async def put(context: Context, params: methods.Params) -> Done:
            return Done(await context.transact(lambda tx: {"version": 1}))

        async def full(context: Context, params: methods.Params) -> Done:
            raise errors.TooManyRequests("full")

        world = make({"state.put": put, "message.send": full})
        assert await world.call("state.put", {"key": "k", "value": 1}, key="k") == {"version": 1}
        assert await world.call("state.put", {"key": "k", "value": 1}, key="k") == {"version": 1}
        with pytest.raises(errors.TooManyRequests):
            await world.call("message.send", {"to": "b", "body": 1})
        assert world.records() == [("local", "state.put", "ok"), ("note", "message.send", "error")]

    asyncio.run(story())


def test_what_was_under_way_when_the_daemon_died_is_unknown_and_not_done_again(
    make: Make, tmp_path: Path
) -> None:
    async def story() -> None:
        world = make({"think": answer})
        # What a process that was killed leaves behind: an intent, and no result.
        intent = running.intent_of(
            Call(GUEST, "think", {"prompt": "x"}, key="k"),
            methods.parser("think")({"prompt": "x"}),
            policy.Verdict("Allow", "all", ""),
        )
        await world.journal.intend(intent)
        with pytest.raises(errors.OutcomeUnknown):
            await world.call("think", {"prompt": "x"}, key="k")
        assert (world.emitted, world.tokens()) == ([], (0, 0))

    asyncio.run(story())


def test_a_key_under_way_answers_no_other_call(tmp_path: Path) -> None:
    """Also before the first of the two is on record, while it waits for its turn."""
    done: list[str] = []

    async def scene() -> None:
        going = asyncio.Event()

        async def think(context: Context, params: methods.Params) -> Done:
            await going.wait()
            done.append(params["prompt"])
            return Done({"n": len(done)})

        world = World(tmp_path, {"think": think}, [{"effect": "Allow", "methods": ["*"]}])
        try:
            first = asyncio.create_task(world.call("think", {"prompt": "x"}, key="k"))
            await asyncio.sleep(0)
            with pytest.raises(errors.Conflict):
                await world.call("think", {"prompt": "y"}, key="k")
            again = asyncio.create_task(world.call("think", {"prompt": "x"}, key="k"))
            going.set()
            assert await first == await again == {"n": 1}
        finally:
            world.journal.close()

    asyncio.run(scene())
    assert done == ["x"]


def test_of_what_is_refused_little_is_kept(tmp_path: Path) -> None:
    """No budget bounds refusals, and what everybody did is kept in as many bytes as one guest could fill with them."""

    async def scene() -> None:
        async def never(context: Context, params: methods.Params) -> Done:
            raise AssertionError

        world = World(tmp_path, {"state.put": never}, [])
        try:
            for value in ("small", os.urandom(200_000).hex()):
                with pytest.raises(errors.Denied):
                    await world.call("state.put", {"key": "k", "value": value})
            bodies = world.journal.read(
                lambda conn: conn.execute("SELECT sum(length(data)) FROM bodies").fetchone()[0]
            )
            assert bodies < 4096
        finally:
            world.journal.close()

    asyncio.run(scene())
