"""The front for asyncio, against a real gate on a real socket."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sdk.gate import Gate

from agentk.sdk import aio, calls, errors


def story(told: Callable[[Gate], Awaitable[None]]) -> Callable[[Gate], None]:
    def test(gate: Gate) -> None:
        async def run() -> None:
            async with asyncio.timeout(60):
                await told(gate)

        asyncio.run(run())

    test.__name__ = told.__name__
    return test


@story
async def test_many_calls_go_there_and_back_at_once(gate: Gate) -> None:
    async with await aio.connect(gate.path) as agent:
        assert await asyncio.gather(*(agent.noop(n) for n in range(100))) == list(range(100))
        with pytest.raises(errors.Denied):
            await agent.think("denied")


@story
async def test_an_answer_comes_in_pieces(gate: Gate) -> None:
    async with await aio.connect(gate.path) as agent:
        answer = agent.stream(calls.think("one two"))
        assert [piece.text async for piece in answer] == ["one", "two"]
        assert (await answer.result()).text == "one two"
        async with agent.stream(calls.think("wait for me")) as left:
            assert (await left.__anext__()).text == "wait"
        assert not agent._core.busy


@story
async def test_a_cancelled_task_takes_its_call_back(gate: Gate) -> None:
    async with await aio.connect(gate.path) as agent:
        waiting = asyncio.ensure_future(agent.think("wait"))
        await asyncio.to_thread(gate.arrived)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(TimeoutError, match="within"):
            await agent.call(calls.think("wait"), timeout_seconds=0.01)
        assert not agent._core.busy and await agent.noop(1) == 1


@story
async def test_a_lock_is_given_back(gate: Gate) -> None:
    async with await aio.connect(gate.path) as agent:
        async with agent.lock("db"):
            with pytest.raises(TimeoutError):
                async with agent.lock("db", wait_seconds=0):
                    pass
        assert "lock" not in gate.state


@story
async def test_a_restart_is_survived_and_the_call_sent_again_with_its_key(gate: Gate) -> None:
    async with await aio.connect(gate.path) as agent:
        waiting = asyncio.ensure_future(agent.think("wait"))
        await asyncio.to_thread(gate.arrived)
        await asyncio.to_thread(gate.stop)
        later = asyncio.ensure_future(agent.noop(5))
        await asyncio.to_thread(gate.start)
        await asyncio.to_thread(gate.arrived)
        gate.go_on()
        assert (await waiting).text == "wait" and await later == 5
    assert gate.seen[0] == gate.seen[1] or gate.seen[0] in gate.seen[1:]


@story
async def test_events_go_on_after_a_restart_where_they_were(gate: Gate) -> None:
    async with await aio.connect(gate.path) as agent:
        events = agent.events()
        seen = [(await events.__anext__()).id for _ in range(2)]
        await asyncio.to_thread(gate.arrived)
        await asyncio.to_thread(gate.stop)
        await asyncio.to_thread(gate.start)
        assert seen + [(await events.__anext__()).id for _ in range(2)] == [1, 2, 3, 4]


@story
async def test_closing_ends_what_waits(gate: Gate) -> None:
    agent = await aio.connect(gate.path)
    waiting = asyncio.ensure_future(agent.think("wait"))
    await asyncio.to_thread(gate.arrived)
    await agent.close()
    await agent.close()
    for call in (waiting, agent.noop()):
        with pytest.raises(errors.Disconnected):
            await call


def test_no_gate_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(errors.Disconnected, match="nowhere"):
        asyncio.run(aio.connect(str(tmp_path / "nowhere")))


def test_patience_ends_and_a_new_call_tries_again(tmp_path: Path) -> None:
    async def run() -> None:
        server = await asyncio.start_unix_server(lambda _, writer: writer.close(), tmp_path / "s")
        agent = await aio.connect(str(tmp_path / "s"), patience_seconds=0.1)
        for _ in range(2):
            with pytest.raises(ConnectionError, match="cannot be reached"):
                await agent.noop()
        server.close()
        await agent.close()

    asyncio.run(run())
