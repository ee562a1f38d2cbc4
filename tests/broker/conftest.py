"""What several files of this folder play with."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.broker.agentos_client import Client
from tests.broker.agentos_world import World

Scene = Callable[[World, Client], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., None]:
    """Runs a scene with a world and a client of agent `a`."""

    def run(scene: Scene, **policies: Any) -> None:
        async def whole() -> None:
            world = World(tmp_path, policies)
            try:
                world.agent("a", policy_name=next(iter(policies), "baseline"))
                await asyncio.wait_for(scene(world, await world.client("uid-default-a")), 60)
            finally:
                await world.close()

        asyncio.run(whole())

    return run
