"""The command line, run for `agentk mcp serve`: its words as the answer, its end whenever whoever asked goes away."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator

import anyio
from mcp.server.mcpserver.exceptions import ToolError

OUTPUT_BYTES = 256 * 1024  # of one answer
SECONDS = 120.0  # of a verb that only asks or writes
_LEAVING_SECONDS = 15.0  # for one that is ended and puts in order what it began
_LINE_BYTES = 64 * 1024


async def run(*words: str, stdin: str = "", seconds: float = SECONDS, most: int = 0) -> str:
    """What it prints. Raises ToolError with its words when it fails: ends with a code above `most`."""
    async with _begun(*words) as process:
        try:
            async with asyncio.timeout(seconds):
                out, err = await process.communicate(stdin.encode())
        except TimeoutError:
            raise ToolError(f"agentk {words[0]} did not end within {seconds:g} s") from None
    said = _cut(out) + ("\n" + _cut(err) if err.strip() else "")
    if not 0 <= (process.returncode or 0) <= most:
        raise ToolError(said.strip() or f"agentk {words[0]} ended with {process.returncode}")
    return said


async def lines(*words: str) -> AsyncIterator[str]:
    """Each line that it prints, until it ends or is left. What it says beside them is nobody's here."""
    async with _begun(*words) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.close()
        unheard = asyncio.create_task(_drained(process.stderr), name="what agentk logs says beside")
        try:
            while line := await _line(process.stdout):
                yield line.decode("utf-8", "replace").rstrip("\n")
        finally:
            unheard.cancel()


@contextlib.asynccontextmanager
async def _begun(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Ended with the block. A request that is taken back cancels every await but shielded ones."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agentk.cli.main", *words,
        stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, "NO_COLOR": "1"}, limit=_LINE_BYTES,
    )  # fmt: skip
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            await _ended(process)


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_LEAVING_SECONDS):
            await process.communicate()  # reads on: one that writes to a full pipe would never end
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next one; the beginning of one that is too long."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError as long:
        return await reader.readexactly(long.consumed)


async def _drained(reader: asyncio.StreamReader) -> None:
    while await reader.read(_LINE_BYTES):
        pass


def _cut(data: bytes) -> str:
    text = data[:OUTPUT_BYTES].decode("utf-8", "replace")
    return text + (f"\n… {len(data) - OUTPUT_BYTES} bytes more" if len(data) > OUTPUT_BYTES else "")
