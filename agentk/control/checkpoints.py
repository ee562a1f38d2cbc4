"""Takes every Checkpoint once, tells of it, and lets go of what a deleted one held.

How it is done is handed in. Whatever dies in between is done again: taking the same Checkpoint twice is taking it once.
Each becomes its agent's own before it is taken, whoever made it: pages go with the memory that they are of.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, kinds
from agentk.broker.lives import Lives
from agentk.control import acting, kept, plans, posting, queueing, saving
from agentk.control.clock import Clock
from agentk.store import store as stores

_AGAIN_SECONDS = 5.0
_FOR_NOW = (errors.Unavailable, errors.OutcomeUnknown, errors.TooManyRequests)

_log = logging.getLogger(__name__)

Object = Mapping[str, Any]


@dataclass
class Source:
    """What takes them, lets go of them, and brings one back before an agent's next start."""

    take: Callable[[Object], Awaitable[Mapping[str, Any]]] | None = None
    drop: Callable[[str], Awaitable[None]] | None = None  # by uid
    begin: acting.Restore | None = None
    sweep: Callable[[], Awaitable[None]] | None = None  # lets go of what was deleted while nobody listened
    used: Callable[[str], Awaitable[tuple[int, int]]] | None = (
        None  # by a namespace: how many, and their bytes
    )


class Duty:
    def __init__(
        self,
        store: stores.Store,
        clock: Clock,
        source: Source | None,
        post: posting.Post,
        lives: Lives,
        wake: Callable[[str], None],
    ) -> None:
        """`wake(uid)`: an agent whose newest Checkpoint may be another."""
        self._store, self._source, self._post = store, source or Source(), post
        self.kept, self._saving = kept.Kept(wake), saving.Duty(store, clock, post, lives.steps)
        self.hear_agent = self._saving.hear_agent
        self._gone: dict[tuple[str, str], set[str]] = {}  # uids of deleted ones
        self._queue = queueing.Queue(self._look, clock, workers=4, name="checkpoints")

    def hear(self, checkpoint: Object, gone: bool) -> None:
        metadata = checkpoint["metadata"]
        key = str(metadata["namespace"]), str(metadata["name"])
        if gone:
            self._gone.setdefault(key, set()).add(str(metadata["uid"]))
        self.kept.hear(checkpoint, gone)
        self._saving.hear(checkpoint)
        self._queue.add(key)

    async def run(self) -> None:
        if self._source.sweep is not None:
            try:
                await self._source.sweep()
            except (errors.AgentkError, OSError) as error:
                _log.warning("deleted checkpoints are let go of later: %s", error)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run(), name="checkpoints")
            group.create_task(self._saving.run(), name="automatic checkpoints")

    async def _look(self, key: tuple[str, str]) -> float | None:
        if self._source.take is None or self._source.drop is None:
            return None
        for uid in tuple(self._gone.get(key, ())):
            await self._source.drop(uid)
            self._gone[key].discard(uid)
        self._gone.pop(key, None)
        checkpoint = await self._store.find(kinds.CHECKPOINT, *key)
        if checkpoint is None or (checkpoint.get("status") or {}).get("phase") in ("Ready", "Failed"):
            return None
        again: float | None = None
        agent: Object = {}
        try:
            agent = await self._owner(checkpoint)
            told = {**await self._source.take(checkpoint), "phase": "Ready"}
        except _FOR_NOW as error:
            again, told = _AGAIN_SECONDS, {"phase": "Pending", "message": error.message}
        except errors.AgentkError as error:
            told = {"phase": "Failed", "message": error.message, "takenAt": stores.now_text()}
        told["observedGeneration"] = checkpoint["metadata"].get("generation", 0)
        if told != checkpoint.get("status"):
            uid = str(checkpoint["metadata"]["uid"])
            await self._store.set_status(kinds.CHECKPOINT, *key, uid, told)
            self._tell(checkpoint, agent, told)
        return again

    async def _owner(self, checkpoint: Object) -> Object:
        """The agent, whose own it is from now on. Raises NotFound, and Conflict when it was to be of another."""
        metadata = checkpoint["metadata"]
        agent = await self._store.get(
            kinds.AGENT, metadata["namespace"], str(checkpoint["spec"]["agentRef"]["name"])
        )
        owners = [one for one in metadata.get("ownerReferences") or () if one.get("kind") == kinds.AGENT.kind]
        if any(one.get("uid") == agent["metadata"]["uid"] for one in owners):
            return agent
        if owners:
            raise errors.Conflict("the agent that it was to be of is gone, and another has its name")

        def owned(found: dict[str, Any]) -> dict[str, Any]:
            others = found["metadata"].get("ownerReferences") or []
            return {
                **found,
                "metadata": {**found["metadata"], "ownerReferences": [*others, saving.owner(agent)]},
            }

        if await self._store.amend(kinds.CHECKPOINT, checkpoint, owned) is None:
            raise errors.NotFound("it is gone")
        return agent

    def _tell(self, checkpoint: Object, agent: Object, told: Mapping[str, Any]) -> None:
        """Events, of the Checkpoint and of its agent."""
        name, phase = checkpoint["metadata"]["name"], told["phase"]
        if phase == "Ready":
            amounts = (
                f"{told['pages']} pages, {told['files']} files, {told['bytes']} bytes, {told['consistency']}"
            )
            event = plans.Event("Normal", "Checkpointed", f"Checkpoint {name} is taken: {amounts}")
        else:
            reason = "CheckpointFailed" if phase == "Failed" else "CheckpointWaits"
            event = plans.Event("Warning", reason, f"Checkpoint {name}: {told['message']}")
        for involved in (checkpoint, agent):
            if involved:
                self._post.send(involved, event)
