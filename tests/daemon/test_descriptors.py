"""Pipes between a command and its caller, at whose other end may be anybody."""

import asyncio
import os

from agentk.daemon import descriptors


async def rest(reader: descriptors.Reader) -> int:
    count = 0
    while data := await reader.read():
        count += len(data)
        await asyncio.sleep(0)
    return count


def test_what_a_command_left_in_its_pipe_is_read_whole() -> None:
    async def flow() -> int:
        ours, theirs = os.pipe()
        reader = descriptors.Reader(ours)
        os.write(theirs, bytes(65536))
        reader.hurry(0)
        count = await rest(reader)
        reader.close()
        os.close(theirs)
        return count

    assert asyncio.run(flow()) == 65536


def test_somebody_who_got_hold_of_a_commands_output_and_writes_on_does_not_keep_its_caller() -> None:
    async def flow() -> None:
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        reader = descriptors.Reader(ours)
        flooding = asyncio.create_task(flood(theirs))
        reader.hurry(0)
        async with asyncio.timeout(30):
            await rest(reader)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        reader.close()
        os.close(theirs)

    asyncio.run(flow())


async def flood(fd: int) -> None:
    while True:
        try:
            os.write(fd, bytes(65536))
        except BlockingIOError:
            pass
        await asyncio.sleep(0)
