"""Guests with all calls of state."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.broker import tenants

Story = Callable[[tenants.Tenants], Coroutine[Any, Any, None]]


def run(folder: Path, story: Story, **given: Any) -> None:
    async def whole() -> None:
        there = tenants.Tenants(folder, **given)
        for name, parent in (("top", ""), ("kid", "top"), ("sib", "top"), ("low", "kid"), ("far", "")):
            there.hear(tenants.agent(name, parent))
        try:
            await story(there)
        finally:
            await there.aclose()

    asyncio.run(whole())
