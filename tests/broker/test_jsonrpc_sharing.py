"""A guest with many connections that all send at once: each gets on as the others do, and the loop is nobody's."""

import asyncio
import socket
from typing import Any

import pytest

from agentk.broker.dialects import jsonrpc
from agentk.broker.dialects.jsonrpc import Asked
from agentk.broker.dialects.jsonrpc_serving import Emit, JsonRpcService
from agentk.sdk import wire

pytestmark = pytest.mark.anyio
CONNECTIONS, LINES = 8, 300


async def test_connections_take_turns_and_the_loop_is_free_between_them() -> None:
    begun: list[int] = []
    most = since = 0

    async def answer(asked: Asked, emit: Emit) -> Any:
        nonlocal since, most
        begun.append(int(asked.params["of"]))
        since += 1
        most = max(most, since)
        return {}

    async def others() -> None:
        """Somebody else on the loop."""
        nonlocal since
        await asyncio.sleep(0)
        while len(begun) < CONNECTIONS * LINES:
            since = 0
            await asyncio.sleep(0)

    service = JsonRpcService(answer, at_once=frozenset({"noop"}))
    loop = asyncio.get_running_loop()
    ends = []
    other = asyncio.create_task(others())
    for _ in range(CONNECTIONS):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        await loop.connect_accepted_socket(lambda: service.connection(by_unix=True), ours)
        theirs.setblocking(False)
        ends.append(theirs)
    for number, end in enumerate(ends):
        lines = b"".join(wire.request(at, "noop", {"of": number}) for at in range(LINES))
        assert end.send(lines) == len(lines), "all at once, before any is read"
    await other
    for end in ends:
        end.close()
    await service.close()
    assert most <= 2 * jsonrpc.LINES_A_TURN, "in one turn of the loop"
    first_done = next(at for at in range(len(begun)) if begun[: at + 1].count(begun[at]) == LINES)
    behind = [begun[: first_done + 1].count(number) for number in range(CONNECTIONS)]
    assert min(behind) >= LINES - 2 * jsonrpc.LINES_A_TURN, behind
