"""Tools of kind `agent`: the call is a Task for an agent of its own, and what that gives is the answer.

The agent is the caller's child: never wider than the caller, within its budget, and gone when it is gone. So a tool of
this kind gives nobody more than agent.spawn does; what its manifest says beyond the caller's own rights is refused.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agentk.api import admit, errors, kinds, objects, ownership, taskspecs, toolspecs
from agentk.broker import admitting, crash
from agentk.broker.calling import agents, children
from agentk.broker.guests import Guests
from agentk.broker.tooling import abandoned
from agentk.broker.tooling import kinds as words
from agentk.broker.tooling.kinds import Calling, Object
from agentk.broker.words import Guest
from agentk.store import store as stores
from agentk.tools import offers
from agentk.tools.offers import Offered, Outcome

MANAGER = "agentk-gate"
_NAME_LETTERS = 40  # of the Tool's, in those of its Tasks
_KEPT_SECONDS = 60  # a Task after its end, for who wants to look
_NO_BUDGET = {"onExceeded": "Pause"}  # what admission makes of an Agent that says nothing of it
_INPUT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


class Delegates:
    def __init__(
        self,
        store: stores.Store,
        guests: Guests,
        spawned: Callable[[str, Sequence[str]], Awaitable[None]],
    ) -> None:
        """`spawned` (uid, uids of its parents, nearest first): remember it."""
        self._store, self._guests, self._spawned = store, guests, spawned
        self._waited: set[tuple[str, str]] = set()  # namespaces and names of Tasks

    async def run(self) -> None:
        """What an earlier daemon left."""
        await abandoned.run(self._store, lambda task: _at(task) in self._waited)

    def names(self, tool: Object) -> Sequence[str]:
        return (words.name(tool),)

    async def fingerprint(self, tool: Object) -> str:
        """Which agent it is, as it is written by now."""
        ref = words.spec(tool)["agent"]["agentRef"]["name"]
        shape = await self._store.find(kinds.AGENT, words.namespace(tool), ref)
        metadata = shape["metadata"] if shape else {}
        return f"{metadata.get('uid', '')}-{metadata.get('generation', 0)}"

    async def discover(self, tool: Object, guest: Guest | None) -> Sequence[Offered]:
        spec = words.spec(tool)
        asked = spec["agent"].get("parameters")
        schema = _INPUT if asked is None else toolspecs.of_manifest(asked)
        return (offers.offered(words.name(tool), spec.get("description", ""), schema),)

    async def call(self, tool: Object, calling: Calling) -> Outcome:
        obj = await self._task(tool, calling)
        self._waited.add(_at(obj))
        try:
            return await self._called(tool, calling, obj)
        finally:
            self._waited.discard(_at(obj))

    async def _called(self, tool: Object, calling: Calling, obj: dict[str, Any]) -> Outcome:
        task = await self._sent(obj)
        try:
            async with asyncio.timeout(calling.seconds):
                ended = await self._ended(task, calling.guest)
        except TimeoutError:
            await self._store.amend(kinds.TASK, task, taskspecs.cancelled)
            told = f'the agent of Tool "{words.name(tool)}" did not end within {calling.seconds:g} s'
            hint = "spec.timeout of the Tool and timeoutSeconds of the call say how long it has"
            raise errors.Timeout(f"{told}, and was ended", hint=hint) from None
        except asyncio.CancelledError:
            await asyncio.shield(self._store.amend(kinds.TASK, task, taskspecs.cancelled))
            raise
        return _outcome(ended)

    # sending

    async def _sent(self, obj: dict[str, Any]) -> Object:
        """The Task of this call. Repeatable: the same call has the same."""
        crash.crashpoint("tool.making")
        try:
            made = await self._store.create(obj, in_live_namespace=True)
        except errors.AlreadyExists:
            metadata = obj["metadata"]
            made = await self._store.get(kinds.TASK, metadata["namespace"], metadata["name"])
            if objects.owner_uids(made) != objects.owner_uids(obj):
                raise errors.Unavailable(
                    f'task "{metadata["name"]}" is in the way',
                    hint=f"agentk get task {metadata['name']} -n {metadata['namespace']}",
                ) from None
        crash.crashpoint("tool.made")
        return made

    async def _task(self, tool: Object, calling: Calling) -> dict[str, Any]:
        ref = words.spec(tool)["agent"]["agentRef"]["name"]
        shape = await self._store.find(kinds.AGENT, words.namespace(tool), ref)
        if shape is None:
            raise errors.Unavailable(
                f'Agent "{ref}" of Tool "{words.name(tool)}" does not exist',
                hint=f"agentk get agents -n {words.namespace(tool)}  # one that is only a shape has spec.suspend: true",
            )
        given: Any = dict(calling.arguments)
        given = given if "parameters" in words.spec(tool)["agent"] else given.get("input")
        template: dict[str, Any] = {"spec": dict(shape["spec"])}
        owner, namespace, seconds = tool, words.namespace(tool), calling.seconds
        called: dict[str, str] = {}
        if calling.guest is not None:
            owner, namespace = await self._parent(calling.guest), calling.guest.namespace
            child = await self._child(owner, shape, calling.effect)
            template = {"metadata": {"annotations": child["metadata"]["annotations"]}, "spec": child["spec"]}
            called = {abandoned.ATTEMPT: str(calling.guest.attempt)}
            seconds = min(seconds, float(child["spec"].get("activeDeadlineSeconds", seconds)))
        template["spec"] = {k: v for k, v in template["spec"].items() if k not in taskspecs.OWN}
        short = words.name(tool)[:_NAME_LETTERS].rstrip("-.")
        digest = hashlib.sha256(f"{words.uid(tool)} {calling.effect}".encode()).hexdigest()[:12]
        obj = {
            "apiVersion": kinds.TASK.api_version,
            "kind": kinds.TASK.kind,
            "metadata": {
                "name": f"{short}-{digest}",
                "namespace": namespace,
                "annotations": called,
                "labels": {toolspecs.LABEL: toolspecs.label(words.name(tool))},
                "ownerReferences": [objects.owner_reference(dict(owner))],
            },
            "spec": {
                "template": template,
                "input": given,
                "timeout": f"{max(1, int(seconds))}s",
                "ttlSecondsAfterFinished": _KEPT_SECONDS,
            },
        }

        def admitted() -> dict[str, Any]:
            made = admit.admit(obj)
            admitting.check(kinds.TASK, made)
            return ownership.own_update(None, made, MANAGER, stores.now_text())

        return await asyncio.to_thread(admitted)

    async def _parent(self, guest: Guest) -> Object:
        parent = await self._store.find(kinds.AGENT, guest.namespace, guest.name)
        if parent is None or parent["metadata"]["uid"] != guest.uid or objects.is_deleting(parent):
            raise errors.Forbidden("this agent is being deleted")
        if children.depth(parent) >= agents.DEPTH_MAX:
            raise errors.Forbidden(f"agents make agents at most {agents.DEPTH_MAX} deep")
        eldest = guest.parents[-1] if guest.parents else guest.uid
        for uid, most in ((guest.uid, agents.CHILDREN_MAX), (eldest, agents.FAMILY_MAX)):
            if len(self._guests.family(uid)) > most:
                raise errors.TooManyRequests(
                    f"there are {most} agents below this one, and may be no more",
                    hint="agent.list shows them; wait for some to end",
                )
        return parent

    async def _child(self, parent: Object, shape: Object, effect: str) -> dict[str, Any]:
        """Raises Denied naming what of the tool's agent is wider than the caller."""
        spec = {key: value for key, value in shape["spec"].items() if key not in taskspecs.OWN}
        if spec.get("budget") == _NO_BUDGET:
            del spec["budget"]  # a default, and nobody's wish: the caller's holds
        name = (parent["spec"].get("runtimeRef") or {}).get("name") or "nsjail"
        runtime = await self._store.find(kinds.RUNTIME, None, name)
        defaults = ((runtime or {}).get("spec") or {}).get("defaults")
        wish = children.Wish({**spec, "restartPolicy": "Never"})
        try:
            return await asyncio.to_thread(children.child, wish, parent, effect, defaults)
        except errors.Invalid as error:
            told = "; ".join(f"{one.field} {one.message}" for one in error.causes) or error.message
            raise errors.Denied(
                f"the tool's agent would be wider than this one: {told}",
                hint="give the caller what its tool needs, or the tool's agent less",
            ) from None

    # its end

    async def _ended(self, task: Object, guest: Guest | None) -> Object:
        metadata, known = task["metadata"], ""
        fields = f"metadata.name={metadata['name']}"
        async for change in self._store.watch(kinds.TASK, metadata["namespace"], "0", fields=fields):
            status = change.obj.get("status") or {}
            if change.obj["metadata"]["uid"] != metadata["uid"]:
                break
            uid = str((status.get("run") or {}).get("agentUID", ""))
            if guest is not None and uid and uid != known:
                known = uid
                await self._spawned(uid, (guest.uid, *guest.parents))
            if status.get("phase") in kinds.ENDED_PHASES:
                return status
            if change.type == "DELETED":
                break
        raise errors.Unavailable(
            "its Task was deleted before it had ended",
            hint="somebody deleted it: look what it did before that",
        )


def _at(task: Object) -> tuple[str, str]:
    return words.namespace(task), words.name(task)


def _outcome(status: Mapping[str, Any]) -> Outcome:
    value = json.loads(status["result"]) if "result" in status else None
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "" if value is None else said
    failed = status["phase"] != "Succeeded"
    if failed:
        why = ": ".join(str(status[key]) for key in ("reason", "message") if status.get(key))
        text = f"the agent has {status['phase'].lower()}: {why}" + (f"\n{text}" if text else "")
    structured = value if isinstance(value, Mapping) else None
    return Outcome(({"type": "text", "text": text},), structured, failed)
