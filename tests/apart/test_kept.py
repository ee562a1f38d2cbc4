"""Processes apart that behave, die, or speak no sense: none is left behind, and nobody waits for one in vain."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agentk.apart import child, kept
from agentk.apart.frames import Message
from agentk.api import errors

# Stands for Python; the module that it is to run says how it behaves.
SCRIPT = f"""#!{sys.executable}
import os, pathlib, signal, socket, sys
_, _, _, behaviour, number = sys.argv[:5]
ours = socket.socket(fileno=int(number))
folder = pathlib.Path(sys.argv[0]).parent
folder.joinpath(f"pid-{{os.getpid()}}").touch()
def say(text):
    ours.sendall(len(text).to_bytes(4, "big") + text)
if behaviour == "early":
    sys.exit(3)
if behaviour == "mute":
    ours.recv(1)
    sys.exit()
if behaviour == "babble":
    ours.sendall(bytes(range(255, 0, -1)))
    signal.pause()
say(b'{{"t": "ready"}}')
heard = ours.makefile("rb")
while size := int.from_bytes(heard.read(4), "big"):
    text = heard.read(size)
    if b"deaf" in text:
        heard.close()
        ours.close()
        signal.pause()
    say(b"[]" if b"nonsense" in text else text)
"""


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "python"
        self.python.write_text(SCRIPT)
        self.python.chmod(0o755)
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self.told: list[str] = []
        self.rested: list[float] = []

    def keep(self, behaviour: str, hand: bool = False) -> kept.Kept:
        role = child.Role("a stand-in", behaviour, hand=hand)
        return kept.Kept(role, self.heard.put_nowait, self.told.append, self.rest, str(self.python))

    async def rest(self, seconds: float) -> None:
        self.rested.append(seconds)

    def pids(self) -> set[int]:
        return {int(path.name[4:]) for path in self.folder.glob("pid-*")}


async def until(true: Callable[[], object]) -> None:
    while not true():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Bench], Awaitable[None]]], None]:
    def scene(story: Callable[[Bench], Awaitable[None]]) -> None:
        bench, open_files = Bench(tmp_path), set(os.listdir("/proc/self/fd"))
        asyncio.run(asyncio.wait_for(story(bench), 60))
        assert bench.pids()
        assert [pid for pid in bench.pids() if Path(f"/proc/{pid}").exists()] == []
        assert set(os.listdir("/proc/self/fd")) <= open_files

    return scene


Run = Callable[[Callable[[Bench], Awaitable[None]]], None]


def test_many_who_need_it_at_once_have_the_same_one_and_it_ends_with_us(run: Run) -> None:
    async def story(bench: Bench) -> None:
        keeper = bench.keep("echo", hand=True)
        impatient = asyncio.create_task(keeper.ready())
        others = [asyncio.create_task(keeper.ready()) for _ in range(5)]
        await asyncio.sleep(0)
        impatient.cancel()
        (one,) = set(await asyncio.gather(*others))
        one.tell({"t": "hello"})
        assert await bench.heard.get() == {"t": "hello"}
        await keeper.close()
        await keeper.close()
        assert bench.told == ["a stand-in was shut down"]
        with pytest.raises(errors.Unavailable, match="shut down"):
            await keeper.ready()
        one.tell({"t": "nobody"})
        with pytest.raises(OSError):
            one.give("1", 0)

    run(story)


def test_everybody_is_told_of_one_that_is_gone_before_there_is_another(run: Run) -> None:
    async def story(bench: Bench) -> None:
        keeper = bench.keep("echo")
        for number, word in enumerate(("deaf", "nonsense"), 1):
            (await keeper.ready()).tell({"t": word})
            await until(lambda: not keeper.now)
            await keeper.ready()
            assert len(bench.told) == number
        assert bench.told == [
            "a stand-in died (SIGKILL)",
            "a stand-in spoke no sense, and was ended",
        ]
        await keeper.close()

    run(story)


def test_one_that_dies_again_and_again_is_given_a_rest_until_one_has_served(run: Run) -> None:
    async def story(bench: Bench) -> None:
        keeper = bench.keep("echo")
        for _ in range(4):
            os.kill((await keeper.ready()).pid, signal.SIGKILL)
            await until(lambda: not keeper.now)
        await keeper.ready()
        assert keeper.deaths == 4
        assert [kept.BACKOFF_SECONDS * n >= rest > 0 for n, rest in zip((1, 2, 4), bench.rested, strict=True)]
        keeper.served()
        assert keeper.deaths == 0
        await keeper.close()

    run(story)


@pytest.mark.parametrize(("behaviour", "why"), [("early", "exit code 3"), ("babble", "no sense")])
def test_one_that_does_not_begin_says_why_and_counts(run: Run, behaviour: str, why: str) -> None:
    async def story(bench: Bench) -> None:
        keeper = bench.keep(behaviour, hand=True)
        with pytest.raises(child.NotStarted, match=f"a stand-in cannot be started: .*{why}"):
            await keeper.ready()
        assert keeper.deaths == 1 and not keeper.now and not bench.told
        await keeper.close()

    run(story)


def test_a_start_that_is_taken_back_leaves_nothing(run: Run) -> None:
    async def story(bench: Bench) -> None:
        keeper = bench.keep("mute", hand=True)
        waiting = asyncio.create_task(keeper.ready())
        await until(bench.pids)
        await keeper.close()
        with pytest.raises(errors.Unavailable, match="shut down"):
            await waiting

    run(story)
