"""Boxes of a tool's own: Agents that the gate makes when they are first needed and deletes when nobody needs them.

An instance is an Agent like any other, of the Tool's `spec.jail`: its limits, Policy, Secrets, packages and logs are
the steward's business, and its Policy says what it may ask of the gate. It is named after what it is made of, so that a
crash between making and using it is found again, and a changed Tool gets a new one.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any

from agentk.api import admit, errors, kinds, mcptools, objects, ownership, toolspecs
from agentk.broker import admitting, crash
from agentk.broker.guests import Guests
from agentk.broker.tooling import kinds as words
from agentk.broker.tooling.kinds import Object
from agentk.broker.words import Guest
from agentk.store import store as stores

TOOL, FOR = toolspecs.LABEL, "agentk.dev/tool-for"  # of an instance: its Tool, and its agent if it has one
MANAGER = "agentk-gate"
POLICY = "tool"  # of an instance whose Tool names none
MOST = 100  # of one Tool …
FAMILY_MOST = 50  # and of these, where each agent has its own, of one agent with all that it spawned
_COMMAND = ["sleep", "infinity"]  # what is called is put beside it
_NAME_MAX = 40  # letters of the Tool's name in an instance's; 63 together
_SWEEP_SECONDS = 5.0

_log = logging.getLogger(__name__)

Tell = Callable[[Object, dict[str, Any]], Awaitable[None]]


class Instances:
    def __init__(
        self,
        store: stores.Store,
        guests: Guests,
        tools: Callable[[], Iterable[Object]],
        tell: Tell,
        now: Callable[[], float],
        sweep_seconds: float = _SWEEP_SECONDS,
    ) -> None:
        """`tools`: every one there is. `tell`: write a part of a Tool's status."""
        self._store, self._guests, self._tools, self._tell = store, guests, tools, tell
        self._now, self._sweep_seconds = now, sweep_seconds
        self._users: dict[tuple[str, str], int] = {}  # calls in it, by namespace and name
        self._used: dict[tuple[str, str], float] = {}  # when it was last used

    @contextlib.asynccontextmanager
    async def box(self, tool: Object, guest: Guest | None, seconds: float) -> AsyncIterator[Object]:
        """The Agent, which runs and is not taken away while the block does. Raises Unavailable, with why it does not
        run, and what admission says of a jail that cannot be."""
        at = words.namespace(tool), name(tool, guest)
        self._users[at] = self._users.get(at, 0) + 1
        try:
            yield await self._running(tool, guest, seconds)
        finally:
            self._used[at] = self._now()
            self._users[at] -= 1
            if not self._users[at]:
                del self._users[at]

    def of(self, tool: Object) -> list[Object]:
        """Those there are, of any generation."""
        return [
            one for one in self._guests.of_namespace(words.namespace(tool)) if _owner(one) == words.uid(tool)
        ]

    async def run(self) -> None:
        """Until cancelled: take away what nobody needs."""
        while True:
            await asyncio.sleep(self._sweep_seconds)
            try:
                await self.sweep()
            except errors.AgentkError as error:
                _log.warning("boxes of tools could not be looked after: %s", error)

    async def sweep(self) -> None:
        """Repeatable."""
        tools = {words.uid(tool): tool for tool in self._tools()}
        names: dict[str, list[str]] = {uid: [] for uid in tools}
        there = set()
        for agent in self._guests.all():
            owner = _owner(agent) if TOOL in (agent["metadata"].get("labels") or {}) else ""
            if not owner:
                continue
            at = str(agent["metadata"]["namespace"]), str(agent["metadata"]["name"])
            there.add(at)
            names.setdefault(owner, []).append(at[1])
            used = self._used.setdefault(at, self._now())
            if at not in self._users and self._now() - used >= self._patience(agent, tools.get(owner)):
                await self._delete(agent)
        for gone in set(self._used) - there - set(self._users):
            del self._used[gone]
        for uid, tool in tools.items():
            told = sorted(names[uid])
            if told != ((tool.get("status") or {}).get("instances") or []):
                await self._tell(tool, {"instances": told})

    def _patience(self, agent: Object, tool: Object | None) -> float:
        """Seconds without use after which it goes; none when its Tool is another by now, or its agent is gone."""
        whose = str(agent["metadata"]["labels"].get(FOR) or "")
        if tool is None or (whose and self._guests.of(whose) is None):
            return 0.0
        if agent["metadata"]["name"] != _name(tool, whose):
            return 0.0
        return float(tool["spec"].get("idleSeconds", 600))

    # making

    async def _running(self, tool: Object, guest: Guest | None, seconds: float) -> Object:
        made = await self._made(tool, guest)
        uid = str(made["metadata"]["uid"])
        with self._guests.listening(uid) as bell:
            try:
                async with asyncio.timeout(seconds):
                    while True:
                        bell.clear()
                        agent = self._guests.of(uid) or made
                        if why := _never(agent):
                            raise errors.Unavailable(
                                f'the box of Tool "{words.name(tool)}" {why}', hint=_hint(agent)
                            )
                        if (agent.get("status") or {}).get("phase") == "Running" and _is_whole(agent):
                            return agent
                        await bell.wait()
            except TimeoutError:
                agent = self._guests.of(uid) or made
                status = agent.get("status") or {}
                why = status.get("message") or status.get("reason") or "starting"
                told = f"{status.get('phase', 'Pending')}: {why}"
                raise words.NotYet(
                    f'the box of Tool "{words.name(tool)}" does not run after {seconds:g} s ({told})',
                    hint=_hint(agent),
                ) from None

    async def _made(self, tool: Object, guest: Guest | None) -> Object:
        """The object, whether it runs or not. Repeatable."""
        namespace, called = words.namespace(tool), name(tool, guest)
        there = await self._store.find(kinds.AGENT, namespace, called)
        if there is not None and _owner(there) == words.uid(tool) and not objects.is_deleting(there):
            return there
        if there is not None:
            raise errors.Unavailable(
                f'agent "{called}" is in the way of Tool "{words.name(tool)}"',
                hint=f"agentk get agent {called} -n {namespace}",
                retry_after_seconds=1,
            )
        self._room(tool, guest)
        made = await self._admitted(tool, guest)
        crash.crashpoint("tool.making")
        try:
            made = await self._store.create(made, in_live_namespace=True)
        except errors.AlreadyExists:  # two asked at once
            return await self._made(tool, guest)
        crash.crashpoint("tool.made")
        return made

    def _room(self, tool: Object, guest: Guest | None) -> None:
        """Raises TooManyRequests. Whoever spawns many takes no others' boxes by it."""
        there, most, whose = self.of(tool), MOST, ""
        if guest is not None and _whose(tool, guest) and len(there) < MOST:
            eldest = (guest.uid, *guest.parents)[-1]
            there = [one for one in there if self._eldest(one) == eldest]
            most, whose = FAMILY_MOST, " for this agent and those it is spawned with"
        if len(there) >= most:
            raise errors.TooManyRequests(
                f'Tool "{words.name(tool)}" has {most} boxes{whose}, and may have no more',
                hint="spec.sharing: Shared gives all callers one; spec.idleSeconds says how long they stay",
            )

    def _eldest(self, instance: Object) -> str:
        """Of whose it is."""
        whose = str((instance["metadata"].get("labels") or {}).get(FOR) or "")
        return (whose, *self._guests.parents(whose))[-1]

    async def _admitted(self, tool: Object, guest: Guest | None) -> dict[str, Any]:
        spec = agent_spec(tool)
        runtime = (spec.get("runtimeRef") or {}).get("name") or "nsjail"
        found = await self._store.find(kinds.RUNTIME, None, runtime)
        labels = {TOOL: toolspecs.label(words.name(tool))}
        whose = _whose(tool, guest)
        if whose:
            labels[FOR] = whose
        obj = {
            "apiVersion": kinds.AGENT.api_version,
            "kind": kinds.AGENT.kind,
            "metadata": {
                "name": _name(tool, whose),
                "namespace": words.namespace(tool),
                "labels": labels,
                "ownerReferences": [objects.owner_reference(dict(tool))],
            },
            "spec": spec,
        }
        made = admit.admit(obj, defaults=((found or {}).get("spec") or {}).get("defaults"))
        admitting.check(kinds.AGENT, made)
        return ownership.own_update(None, made, MANAGER, stores.now_text())

    async def _delete(self, agent: Object) -> None:
        metadata = agent["metadata"]
        with contextlib.suppress(errors.NotFound, errors.Conflict):
            await self._store.delete(
                kinds.AGENT, metadata["namespace"], metadata["name"], uid=metadata["uid"], grace_seconds=1
            )


def agent_spec(tool: Object) -> dict[str, Any]:
    """Of an instance: what the Tool's jail says, and a program that only waits."""
    jail = json.loads(json.dumps(mcptools.jail(tool["spec"])))
    jail.setdefault("policyRef", {"name": POLICY})
    return {
        **jail,
        "command": _COMMAND,
        "restartPolicy": "Always",
        "restartBackoff": {"initialSeconds": 1, "maxSeconds": 60, "resetAfterSeconds": 300},
        "terminationGracePeriodSeconds": 1,
    }


def name(tool: Object, guest: Guest | None) -> str:
    """The same for the same: what it is made of, and whose it is."""
    return _name(tool, _whose(tool, guest))


def _whose(tool: Object, guest: Guest | None) -> str:
    return guest.uid if guest is not None and tool["spec"].get("sharing") == "PerAgent" else ""


def _name(tool: Object, whose: str) -> str:
    about = json.dumps([words.uid(tool), agent_spec(tool), whose], sort_keys=True)
    short = words.name(tool)[:_NAME_MAX].rstrip("-.")
    return f"tool-{short.replace('.', '-')}-{hashlib.sha256(about.encode()).hexdigest()[:10]}"


def _owner(agent: Mapping[str, Any]) -> str:
    """Uid of the Tool that it is of."""
    for reference in agent["metadata"].get("ownerReferences") or ():
        if reference.get("kind") == kinds.TOOL.kind and reference.get("controller"):
            return str(reference.get("uid"))
    return ""


def _is_whole(agent: Object) -> bool:
    status = agent.get("status") or {}
    return bool(status.get("boxID")) and not agent["metadata"].get("deletionTimestamp")


def _never(agent: Object) -> str:
    """Why it will not run, whoever waits; "" when it may."""
    if agent["metadata"].get("deletionTimestamp"):
        return "is being deleted"
    status = agent.get("status") or {}
    if status.get("phase") in kinds.FINAL_PHASES:
        return f"has ended: {status.get('message') or status.get('reason')}"
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Stalled" and condition.get("status") == "True":
            return f"cannot run: {condition.get('message') or condition.get('reason')}"
    return ""


def _hint(agent: Object) -> str:
    metadata = agent["metadata"]
    return f"agentk describe agent {metadata['name']} -n {metadata['namespace']}"
