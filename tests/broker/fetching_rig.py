"""A house whose agents fetch, and hosts outside to fetch from."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.broker.hosts import Household, Outside

Story = Callable[[Outside, Household], Awaitable[None]]


def told(folder: Path, story: Story, rules: Any = None, **inject: str) -> None:
    """One story, of an agent that reaches every host and has the secret put in where `inject` says."""

    async def run() -> None:
        async with asyncio.timeout(60), Outside().open() as outside:
            house = Household(folder, outside, outside.spec(**inject), rules)
            try:
                await story(outside, house)
            finally:
                house.close()

    asyncio.run(run())
