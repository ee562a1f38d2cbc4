"""One call on a route, as the tests of turns make it: as long as its tokens, in virtual time."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from agentk.broker.turns import Turns

TOKENS_PER_SECOND = 1000.0

# No limit but the number of slots.
OPEN: dict[str, Any] = {"in_flight_each": 10_000, "max_waiting": 100_000, "max_waiting_each": 100_000}


def now() -> float:
    return asyncio.get_running_loop().time()


async def call(
    turns: Turns,
    key: str,
    tokens: int = 1000,
    *,
    weight: float = 1.0,
    priority: int = 0,
    expected: int | None = None,
    log: list[tuple[str, float]] | None = None,
) -> None:
    """One call whose length is its tokens; notes when it began."""
    async with turns.turn(key, weight, priority, tokens if expected is None else expected) as turn:
        if log is not None:
            log.append((key, now()))
        await asyncio.sleep(tokens / TOKENS_PER_SECOND)
        turn.charge(tokens)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def together(*calls: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as group:
        for one in calls:
            group.create_task(one)
