"""Tasks of tools of kind `agent` that an earlier daemon sent: each ends with whoever called, if it goes on until then.

A call that comes again after a crash finds its Task, so one whose caller lives is left to it. One that nobody can wait
for any more would use the caller's budget for nothing.
"""

import asyncio
import logging
from collections.abc import Callable

from agentk.api import errors, kinds, objects, taskspecs, toolspecs
from agentk.broker.tooling.kinds import Object
from agentk.store import store as stores

ATTEMPT = "agentk.dev/called-in-attempt"  # annotation of one that an agent made: in which attempt of its own

_log = logging.getLogger(__name__)


async def run(store: stores.Store, is_waited_for: Callable[[Object], bool]) -> None:
    """Until all that an earlier daemon left have ended, or cancelled. `is_waited_for`: by a call of this daemon."""
    left = [
        one for one in (await store.list(kinds.TASK, None, labels=toolspecs.LABEL)).items if not _is_over(one)
    ]
    async with asyncio.TaskGroup() as group:
        for task in left:
            group.create_task(
                _ends_with_caller(store, task, is_waited_for), name="tools: a task that was left"
            )


async def _ends_with_caller(
    store: stores.Store, task: Object, is_waited_for: Callable[[Object], bool]
) -> None:
    owner = next(iter(task["metadata"].get("ownerReferences") or ()), {"kind": ""})
    try:
        if owner["kind"] != kinds.AGENT.kind:
            if owner["kind"] == kinds.TOOL.kind and not is_waited_for(
                task
            ):  # a person's, cut off with that daemon
                await store.amend(kinds.TASK, task, taskspecs.cancelled)
            return
        await _over(store, task, owner)
        await store.amend(kinds.TASK, task, taskspecs.cancelled)
    except errors.AgentkError as error:
        _log.warning("task %s could not be given up: %s", task["metadata"]["name"], error)


async def _over(store: stores.Store, task: Object, owner: Object) -> None:
    """Returns once the attempt that called is over."""
    namespace, name = task["metadata"]["namespace"], owner["name"]
    attempt = (task["metadata"].get("annotations") or {}).get(ATTEMPT)

    def is_over(agent: Object | None) -> bool:
        if agent is None or agent["metadata"]["uid"] != owner["uid"] or objects.is_deleting(dict(agent)):
            return True
        status = agent.get("status") or {}
        return status.get("phase") in kinds.FINAL_PHASES or str(status.get("attempt")) != attempt

    if is_over(await store.find(kinds.AGENT, namespace, name)):
        return
    async for change in store.watch(kinds.AGENT, namespace, "0", fields=f"metadata.name={name}"):
        if change.type == "DELETED" or is_over(change.obj):
            return


def _is_over(task: Object) -> bool:
    return (task.get("status") or {}).get("phase") in kinds.ENDED_PHASES
