"""Programs of tests put into boxes of a real launcher, each with three pipes."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from agentk.runtime import box, hands, jails
from tests.runtime import launching
from tests.runtime.launching import Place

SLEEP = "echo up; exec sleep 1000"


@dataclass(frozen=True)
class Said:
    exit: box.Exit
    out: bytes
    err: bytes


@contextlib.asynccontextmanager
async def running(there: Place, uid: str, **told: Any) -> AsyncIterator[tuple[jails.Jails, box.Seen]]:
    """A box that sleeps, removed at the end."""
    async with launching.connected(there) as runtime:
        if told.get("runtime") == "process":
            told["enforcement"] = "BestEffort"
        seen = await runtime.start(there.make("sh", "-c", SLEEP, uid=uid, **told))
        try:
            yield runtime, seen
        finally:
            await runtime.remove(seen.id)


async def enter(runtime: jails.Jails, box_id: str, *argv: str, fed: bytes = b"", **told: Any) -> Said:
    """One program with three pipes, read to their ends."""
    ends = [os.pipe() for _ in range(3)]
    (stdin, feed), (out, stdout), (err, stderr) = ends
    os.write(feed, fed)  # as much as a pipe holds
    os.close(feed)
    try:
        ended = await hands.Hands(runtime).enter(
            box_id, argv, stdin=stdin, stdout=stdout, stderr=stderr, **told
        )
    finally:
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        said = [b"", b""]
        for number, fd in enumerate((out, err)):
            said[number] = await asyncio.to_thread(whole, fd)
    return Said(ended, *said)


def whole(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def entered(there: Place, uid: str, *argv: str, box_told: Any = None, **told: Any) -> Said:
    """One program in a box of its own."""

    async def flow() -> Said:
        async with running(there, uid, **(box_told or {})) as (runtime, seen):
            return await enter(runtime, seen.id, *argv, **told)

    return asyncio.run(flow())
