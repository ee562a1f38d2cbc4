"""Work that is sent to agents: Tasks, and the Schedules that make them."""

import asyncio

from agentk.broker.lives import Lives
from agentk.control import posting, schedules, tasks
from agentk.control.clock import Clock
from agentk.store import store as stores


class Work:
    """Built by the steward; `run` is its whole life."""

    def __init__(self, store: stores.Store, clock: Clock, post: posting.Post, lives: Lives) -> None:
        self._duties = (tasks.Duty(store, clock, post, lives), schedules.Duty(store, clock, post))

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for duty in self._duties:
                group.create_task(duty.run(), name=duty.__module__)

    async def idle(self) -> None:
        for duty in self._duties:
            await duty.idle()
