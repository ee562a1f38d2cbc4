"""A door that serves OpenAI's dialect, before a real upstream."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import openai

from tests.broker import thinking_rig as rigs
from tests.llm.upstreams import Upstream, chunk

HI: Any = [{"role": "user", "content": "hi"}]
BODY = {"model": "gpt", "messages": HI, "max_tokens": 20}
END = chunk({}, usage={"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9})


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def door(
    *handlers: Any, retries: int = 0, **settings: Any
) -> AsyncIterator[tuple[Upstream, rigs.World, openai.AsyncOpenAI]]:
    async with rigs.rig(*handlers, **settings) as (up, world), rigs.serving(world) as url:
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="agentk", max_retries=retries)
        async with client:
            yield up, world, client
