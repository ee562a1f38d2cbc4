"""The MCP worker with real servers over real pipes: one that behaves, and many that do not."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.tools import offers
from agentk.tools.mcp_worker import Session, Worker

WAIT_SECONDS = 60
SERVERS = Path(__file__).with_name("servers.py")


class Bench:
    """A worker, and servers as its children would be in jails."""

    def __init__(self) -> None:
        self.worker = Worker()
        self.processes: list[subprocess.Popen[bytes]] = []

    async def open(self, name: str, seconds: float = WAIT_SECONDS) -> Session:
        says, out = os.pipe()
        into, hears = os.pipe()
        command = [sys.executable, str(SERVERS), name]
        self.processes.append(
            subprocess.Popen(command, stdin=into, stdout=out, stderr=subprocess.DEVNULL)  # noqa: ASYNC220
        )
        os.close(out)
        os.close(into)
        try:
            return await self.worker.over_pipes(says, hears, seconds)
        finally:
            os.close(says)
            os.close(hears)


@contextlib.asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            yield made
    finally:
        await made.worker.close()
        for process in made.processes:
            process.kill()
            process.wait()


def texts(outcome: offers.Outcome) -> list[str]:
    return [str(block["text"]) for block in outcome.content]


def run(story: Any) -> None:
    async def whole() -> None:
        async with bench() as made:
            await story(made)

    asyncio.run(whole())


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_server_is_listed_and_called() -> None:
    async def story(bench: Bench) -> None:
        server = await bench.open("honest")
        assert [one.name for one in server.listing.tools] == ["add", "slow", "fail", "big"]
        add = server.listing.tools[0]
        assert add.description == "Adds two numbers."
        assert set(add.input_schema["properties"]) == {"a", "b"}
        sums = await asyncio.gather(*(server.call("add", {"a": n, "b": 1}, 30) for n in range(20)))
        assert [texts(one) for one in sums] == [[str(n + 1)] for n in range(20)]
        failed = await server.call("fail", {}, 30)
        assert failed.is_error
        assert texts(failed) == ["Error executing tool fail"]
        assert len(texts(await server.call("big", {"size": 1_000_000}, 30))[0]) == 1_000_000
        with pytest.raises(errors.OutcomeUnknown, match="a line is longer"):
            await server.call("big", {"size": 9_000_000}, 30)

    run(story)


def test_progress_is_told_and_a_call_taken_back_leaves_the_server_usable() -> None:
    async def story(bench: Bench) -> None:
        server = await bench.open("honest")
        told: list[tuple[float, float | None, str]] = []
        await server.call("slow", {"steps": 4}, 30, lambda *word: told.append(word))
        assert told
        assert told[0] == (1.0, 4.0, "step 1")
        call = asyncio.create_task(server.call("slow", {"steps": 10_000}, 1_000))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(errors.Timeout, match=r"0\.2 s"):
            await server.call("slow", {"steps": 10_000}, 0.2)
        assert texts(await server.call("add", {"a": 2, "b": 2}, 30)) == ["4"]

    run(story)


def test_a_worker_that_is_killed_leaves_its_calls_unknown_and_is_started_again() -> None:
    async def story(bench: Bench) -> None:
        server = await bench.open("honest")
        began = asyncio.Event()
        call = asyncio.create_task(server.call("slow", {"steps": 1000}, 300, lambda *word: began.set()))
        await began.wait()
        assert bench.worker.pid
        os.kill(bench.worker.pid, signal.SIGKILL)
        with pytest.raises(errors.OutcomeUnknown, match="SIGKILL"):
            await call
        assert "SIGKILL" in await server.ended
        with pytest.raises(errors.Unavailable):
            await server.call("add", {"a": 1, "b": 1}, 30)
        again = await bench.open("honest")
        assert texts(await again.call("add", {"a": 1, "b": 1}, 30)) == ["2"]

    run(story)


def test_a_server_that_dies_in_a_call_leaves_it_unknown() -> None:
    async def story(bench: Bench) -> None:
        server = await bench.open("dying")
        with pytest.raises(errors.OutcomeUnknown):
            await server.call("echo", {}, 30)
        assert await server.ended

    run(story)


@pytest.mark.parametrize(
    ("name", "why"),
    [("hang", "2 s"), ("endless_line", "longer than"), ("nobody", "ended"), ("wordy", "bytes of its tools")],
)
def test_a_server_that_does_not_begin_is_told_of(name: str, why: str) -> None:
    async def story(bench: Bench) -> None:
        with pytest.raises(errors.Unavailable, match=why):
            await bench.open(name, seconds=2 if name == "hang" else WAIT_SECONDS)
        assert bench.worker.pid
        assert resident_bytes(bench.worker.pid) < 200_000_000

    run(story)


def test_lies_about_schemas_are_left_out_and_no_pattern_is_run() -> None:
    async def story(bench: Bench) -> None:
        server = await bench.open("liar")
        kept = {one.name: one for one in server.listing.tools}
        assert set(kept) == {"echo", "evil", "unseen"}
        assert kept["unseen"].description == "Reads a file"
        assert len(server.listing.refused) == 4
        assert texts(await server.call("evil", {}, 30)) == ["fine"]

    run(story)


def test_a_server_that_knows_only_the_newest_protocol_is_spoken_with() -> None:
    async def story(bench: Bench) -> None:
        server = await bench.open("newest")
        assert server.listing.version == "2026-07-28"
        assert texts(await server.call("echo", {}, 30)) == ["2026-07-28"]

    run(story)


def test_one_that_hangs_in_a_call_is_let_go() -> None:
    async def story(bench: Bench) -> None:
        server = await bench.open("deaf", seconds=3)
        with pytest.raises(errors.Timeout):
            await server.call("echo", {}, 0.2)
        assert "hung" in await server.ended

    run(story)


def test_a_changed_tool_is_told_of_with_another_digest() -> None:
    async def story(bench: Bench) -> None:
        server = await bench.open("changing")
        heard = asyncio.Event()
        server.changed = lambda listing: heard.set()
        pins = {one.name: one.digest for one in server.listing.tools}
        await server.call("echo", {}, 30)
        await heard.wait()
        assert offers.drift(pins, server.listing.tools).changed == ("echo",)

    run(story)


def test_what_a_server_asks_of_us_is_refused_and_other_ids_answer_nothing() -> None:
    async def story(bench: Bench) -> None:
        server = await bench.open("asking")
        assert texts(await server.call("echo", {}, 30)) == ["[-32601, -32601, -32601]"]

    run(story)


def test_hostile_servers_neither_slow_an_honest_one_for_long_nor_fill_the_worker() -> None:
    async def story(bench: Bench) -> None:
        honest = await bench.open("honest")
        hostile = [await bench.open(name) for name in ("flood", "flood", "questions", "deaf", "many_values")]
        loop = asyncio.get_running_loop()
        calls = [asyncio.create_task(one.call("echo", {"a": "x" * 7_000_000}, 2)) for one in hostile]
        slowest = 0.0
        for n in range(50):
            began = loop.time()
            assert texts(await honest.call("add", {"a": n, "b": 0}, 30)) == [str(n)]
            slowest = max(slowest, loop.time() - began)
        print(f"slowest of 50 calls beside five hostile servers: {slowest * 1000:.0f} ms")
        assert all(
            isinstance(one, errors.AgentkError)
            for one in await asyncio.gather(*calls, return_exceptions=True)
        )
        assert bench.worker.pid
        assert resident_bytes(bench.worker.pid) < 500_000_000

    run(story)
