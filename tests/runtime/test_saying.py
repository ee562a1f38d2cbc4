"""Lines into a full pipe: whole, in order, waiting, and finished once begun. Real pipes."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from agentk.api import errors
from agentk.runtime.saying import Sayings

BIG = b"x" * 150_000  # more than a pipe holds


def run(story: Callable[[Sayings, int], Coroutine[Any, Any, None]]) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        asyncio.run(story(Sayings(lambda box_id: {"said": writer} if box_id == "b" else {}), reader))
    finally:
        os.close(reader)
        os.close(writer)


async def drained(reader: int, until: int) -> bytes:
    """At least so many bytes."""
    got = b""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(reader, readable.set)
    while len(got) < until:
        await readable.wait()
        readable.clear()
        got += os.read(reader, 10_000)
    loop.remove_reader(reader)
    return got


def test_lines_come_whole_and_in_order_however_long() -> None:
    async def story(sayings: Sayings, reader: int) -> None:
        lines = [BIG, b"small", BIG, b"last"]
        tasks = [asyncio.create_task(sayings.write("b", line)) for line in lines]
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        got = await drained(reader, sum(len(line) + 1 for line in lines))
        await asyncio.gather(*tasks)
        assert got.split(b"\n")[:-1] == lines
        assert sayings._pipes == {}

    run(story)


def test_one_that_is_taken_back_is_whole_or_not_there() -> None:
    async def story(sayings: Sayings, reader: int) -> None:
        tasks = [asyncio.create_task(sayings.write("b", line)) for line in (BIG, b"never", b"stays")]
        await asyncio.sleep(0)
        for task in tasks[:2]:
            task.cancel()
        await asyncio.wait(tasks[:2])
        got = await drained(reader, len(BIG) + 1 + len(b"stays\n"))
        await tasks[2]
        assert got.split(b"\n") == [BIG, b"stays", b""]

    run(story)


def test_a_box_that_ends_lets_everybody_go() -> None:
    async def story(sayings: Sayings, reader: int) -> None:
        tasks = [asyncio.create_task(sayings.write("b", BIG)) for _ in range(2)]
        await asyncio.sleep(0)
        sayings.forget("b")
        sayings.forget("b")
        for task in tasks:
            with pytest.raises(errors.Unavailable):
                await task
        with pytest.raises(errors.Unavailable, match="no log"):
            await sayings.write("other", b"line")

    run(story)
