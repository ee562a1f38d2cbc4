"""`run_task` of `agentk mcp serve`: work sent to an agent, what it writes told meanwhile, and what came of it.

Whoever asked may go away at any time: then the Task is given up. If this program dies instead, the Task's own time
bounds it.
"""

import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from agentk.api import errors, kinds
from agentk.cli import connect
from agentk.cli import mcp_serving_runs as runs
from agentk.cli import mcp_serving_words as words

SECONDS_MAX = 3600
_NAME_LETTERS = 40
_INPUT_BYTES = 1024 * 1024
_LINE_LETTERS = 500
_PROGRESS_SECONDS = 0.1  # between two words of it: an agent that writes much is not told whole
_KEPT = "1h"


async def run(namespace: str, agent: str, given: Any, seconds: int, context: Context[Any, Any]) -> str:
    seconds = min(max(1, seconds), SECONDS_MAX)
    said = json.dumps(given)
    if len(said) > _INPUT_BYTES:
        raise ToolError(f"the input has {len(said)} bytes; the most is {_INPUT_BYTES}")
    name = f"{words.word(agent)[:_NAME_LETTERS].rstrip('-.')}-{secrets.token_hex(4)}"
    where = ("-n", namespace)
    await runs.run("get", "agent", agent, "-o", "name", *where)  # a Task would wait until there is one
    async with _given_up(name, namespace):
        own = [f"--name={name}", f"--task-timeout={seconds}s", f"--ttl={_KEPT}"]
        inputs = ["--each=-", "--json"] if given is not None else []
        await runs.run("task", "run", f"agent/{agent}", *own, *inputs, *where, stdin=f"{said}\n")
        await context.report_progress(0, None, f"task/{name} is sent")
        async with anyio.create_task_group() as group:
            group.start_soon(_tell, name, where, context)
            told = await _result(name, where, seconds)
            group.cancel_scope.cancel()
    return told


async def _result(name: str, where: tuple[str, ...], seconds: int) -> str:
    late = seconds + runs.SECONDS  # it may have to wait for room before its own time begins
    words_ = ("task", "wait", name, f"--timeout={late:g}s", "-o", "json")
    return await runs.run(*words_, *where, seconds=late + runs.SECONDS)


async def _tell(name: str, where: tuple[str, ...], context: Context[Any, Any]) -> None:
    """Each line that its agent writes, as progress."""
    count, last = 0, 0.0
    async for line in runs.lines("task", "logs", "--follow", name, *where):
        count += 1
        if time.monotonic() - last >= _PROGRESS_SECONDS:
            last = time.monotonic()
            await context.report_progress(count, None, line[:_LINE_LETTERS])


@asynccontextmanager
async def _given_up(name: str, namespace: str) -> AsyncIterator[None]:
    """Cancelled when the block does not end by itself: also a Task of which nobody heard yet whether it was made."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, ToolError):
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_cancel, name, namespace)
        raise


def _cancel(name: str, namespace: str) -> None:
    """By a request of its own: a client that has hung up leaves no time for the command line to start."""
    with contextlib.suppress(errors.AgentkError):  # it had ended, or was never made
        connect.connect(starts=False).patch(kinds.TASK, namespace, name, {"spec": {"cancel": True}})
