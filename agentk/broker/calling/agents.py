"""agent.spawn, agent.kill, agent.list, agent.wait and exit: the life of agents, as agents may steer it.

Only of the guest's own family: what is not a descendant is not there, whether it exists or not. Everything is done by
writing objects; the steward notices.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from agentk.api import errors, inputs, kinds, objects, ownership, pools, selectors
from agentk.broker import exits, guests, policy
from agentk.broker.calling import children, relatives
from agentk.broker.guests import Guests
from agentk.broker.methods import ONE_CALL, Context, Done, FactsOf, Handle, Method, Params, parser, recording
from agentk.broker.words import Guest
from agentk.store import journal_words as entries
from agentk.store import store as stores
from agentk.store.journal import Journal

CHILDREN_MAX = 100  # of one agent, those that have finished and were not deleted included
FAMILY_MAX = 500  # below the one that a person made
DEPTH_MAX = 8
_THREAD_BYTES = 8 * 1024  # checking an object takes about a millisecond for each of these
_HEARD_SECONDS = 1.0  # what was just made is heard of within moments; then the store is asked

Object = Mapping[str, Any]
Stop = Callable[[Guest], None]
Spawned = Callable[[str, Sequence[str]], Awaitable[None]]  # uid; uids of its parents, nearest first


def methods(
    *, store: stores.Store, guests: Guests, said: exits.Exits, stop: Stop, spawned: Spawned
) -> dict[str, Method]:
    """`stop`: end the box of a guest that has said how it ends; it must not wait. `spawned`: remember it."""
    calls = _Calls(store, guests, said, stop, spawned)
    handlers: dict[str, tuple[Handle, FactsOf]] = {
        "agent.spawn": (calls.spawn, _spawning),
        "agent.kill": (calls.kill, calls.about),
        "agent.list": (calls.list, lambda guest, params: policy.NOTHING),
        "agent.wait": (calls.wait, calls.about),
        "exit": (calls.exit, lambda guest, params: policy.NOTHING),
    }
    return {
        name: Method(name, recording(name), parser(name), handle, facts)
        for name, (handle, facts) in handlers.items()
    }


async def reconcile(journal: Journal, store: stores.Store) -> None:
    """After a crash, before the first call: spawns of unknown outcome are told by what they made, or did not."""
    pending = [one for one in journal.unknown() if one.method == "agent.spawn" and not one.in_flight]
    if not pending:
        return
    made = {
        (agent["metadata"].get("annotations") or {}).get(children.CALL): agent
        for agent in (await store.list(kinds.AGENT)).items
    }
    for one in pending:
        child = made.get(one.effect)
        if child is not None:
            answer: Any = _told(child)
            status: entries.Status = "ok"
        else:
            error = errors.Unavailable("agentk ended before the agent was made", hint="make the call again")
            answer, status = error.to_status(), "error"
        body = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
        await journal.settle(one.effect, entries.Outcome(status, body, ONE_CALL._asdict()))


def _spawning(guest: Guest, params: Params) -> policy.Facts:
    return policy.Facts(features=frozenset({"childrenDetached"})) if params["detached"] else policy.NOTHING


class _Calls:
    def __init__(
        self, store: stores.Store, guests: Guests, said: exits.Exits, stop: Stop, spawned: Spawned
    ) -> None:
        self._store, self._guests, self._said, self._stop = store, guests, said, stop
        self._spawned = spawned
        self._spawning: dict[str, set[str]] = {}  # effect ids of spawns under way, by whose room they take

    def about(self, guest: Guest, params: Params) -> policy.Facts:
        return relatives.facts(self._guests, guest, params["name"])

    async def spawn(self, context: Context, params: Params) -> Done:
        guest = context.call.guest
        parent = await self._store.find(kinds.AGENT, guest.namespace, guest.name)
        if parent is None or parent["metadata"]["uid"] != guest.uid or objects.is_deleting(parent):
            raise errors.Forbidden("this agent is being deleted")
        runtime = context.call.runtime
        if runtime and guests.HELD not in (parent["metadata"].get("annotations") or {}):
            raise errors.Forbidden("only what stands for a host program has children on another Runtime")
        wish = children.Wish(params["spec"], params.get("name", ""), params["labels"], params["detached"])
        with self._room(guest, parent, context.effect):
            made = await self._admitted(wish, parent, context.effect, runtime)
            try:
                made = await self._store.create(made, in_live_namespace=True)
            except errors.AlreadyExists:
                # Of the guest's own making or not: the name is taken, and more is not for it to know.
                raise errors.AlreadyExists(
                    f'the name "{made["metadata"]["name"]}" is taken', hint="leave the name out"
                ) from None
            await self._spawned(made["metadata"]["uid"], (guest.uid, *guest.parents))
            await self._heard(made)
        return Done(_told(made))

    async def _admitted(
        self, wish: children.Wish, parent: Object, effect: str, runtime_name: str
    ) -> dict[str, Any]:
        name = runtime_name or (parent["spec"].get("runtimeRef") or {}).get("name") or guests.DEFAULT_RUNTIME
        runtime = await self._store.find(kinds.RUNTIME, None, name)
        defaults = (runtime.get("spec") or {}).get("defaults") if runtime else None

        pool = await self._pool(wish, parent)

        def make() -> dict[str, Any]:
            child = children.child(wish, parent, effect, defaults, runtime_name, pool)
            return ownership.own_update(None, child, relatives.MANAGER, stores.now_text())

        return await asyncio.to_thread(make) if len(json.dumps(wish.spec)) > _THREAD_BYTES else make()

    async def _pool(self, wish: children.Wish, parent: Object) -> Object | None:
        """The spec of the Pool it names, if that is its parent's: of others a guest learns nothing."""
        name = pools.name(wish.spec)
        if not name or name != pools.name(parent["spec"]):
            return None
        pool = await self._store.find(kinds.POOL, parent["metadata"]["namespace"], name)
        return pool["spec"] if pool else None

    @contextlib.contextmanager
    def _room(self, guest: Guest, parent: Object, effect: str) -> Iterator[None]:
        """Held until the child is heard of, so that calls in parallel never make more than there is room for."""
        if children.depth(parent) >= DEPTH_MAX:
            raise errors.Forbidden(f"agents are spawned at most {DEPTH_MAX} deep, and this one is that deep")
        eldest = guest.parents[-1] if guest.parents else guest.uid
        mine = [one for one in self._guests.family(guest.uid) if self._guests.parent(one) == guest.uid]
        below = [one for one in self._guests.family(eldest) if one["metadata"]["uid"] != eldest]
        rooms = (
            ("this agent", f"children of {guest.uid}", mine, CHILDREN_MAX),
            ("the family of this agent", f"family of {eldest}", below, FAMILY_MAX),
        )
        for whose, key, there, most in rooms:
            heard = {(one["metadata"].get("annotations") or {}).get(children.CALL) for one in there}
            if len(there) + len(self._spawning.get(key, set()) - heard) >= most:
                raise errors.TooManyRequests(
                    f"{whose} has {most} spawned agents, and may have no more",
                    hint="agent.kill those that have finished: they count until they are gone",
                )
        for _, key, _, _ in rooms:
            self._spawning.setdefault(key, set()).add(effect)
        try:
            yield
        finally:
            for _, key, _, _ in rooms:
                self._spawning[key].discard(effect)
                if not self._spawning[key]:
                    del self._spawning[key]

    async def _heard(self, made: Object) -> None:
        """Returns when the next call of the guest finds its child (or nobody will any more)."""
        metadata = made["metadata"]
        with self._guests.listening(metadata["uid"]) as bell:
            while self._guests.of(metadata["uid"]) is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_HEARD_SECONDS):
                        await bell.wait()
                        return
                there = await self._store.find(kinds.AGENT, metadata["namespace"], metadata["name"])
                if there is None or there["metadata"]["uid"] != metadata["uid"]:
                    return

    async def kill(self, context: Context, params: Params) -> Done:
        guest = context.call.guest
        agent = relatives.named(self._guests, guest, params["name"])
        if agent is None:
            return Done({"killed": False})
        metadata = agent["metadata"]
        if metadata["uid"] == guest.uid:
            raise errors.BadRequest("an agent does not kill itself", hint="call exit", field="params.name")
        lived = not _is_final(agent) and not metadata.get("deletionTimestamp")
        try:
            await self._store.delete(
                kinds.AGENT,
                metadata["namespace"],
                metadata["name"],
                uid=metadata["uid"],
                grace_seconds=params.get("gracePeriodSeconds"),
            )
        except (errors.NotFound, errors.Conflict):  # gone, and maybe another has its name
            lived = False
        return Done({"killed": lived})

    async def list(self, context: Context, params: Params) -> Done:
        guest = context.call.guest
        chosen, after = selectors.labels(params["labelSelector"]), params["continue"]
        family = sorted(self._guests.family(guest.uid), key=lambda one: str(one["metadata"]["name"]))
        found = [one for one in family if one["metadata"]["name"] > after and chosen(one)]
        page = found[: params["limit"]]
        answer: dict[str, Any] = {"items": [self._shown(guest, one) for one in page]}
        if len(found) > len(page):
            answer["continue"] = page[-1]["metadata"]["name"]
        return Done(answer)

    def _shown(self, guest: Guest, agent: Object) -> dict[str, Any]:
        metadata, status = agent["metadata"], agent.get("status") or {}
        above = None if metadata["uid"] == guest.uid else self._guests.of(self._guests.parent(agent))
        shown = {
            "name": metadata["name"],
            "uid": metadata["uid"],
            "parent": above["metadata"]["name"] if above else "",
            "phase": _phase(agent),
            "labels": metadata.get("labels") or {},
            "creationTimestamp": metadata["creationTimestamp"],
        }
        return shown | {key: status[key] for key in ("reason", "exitCode") if key in status}

    async def wait(self, context: Context, params: Params) -> Done:
        guest, name = context.call.guest, params["name"]
        agent = relatives.named(self._guests, guest, name)
        past = None if agent else self._guests.past(guest.namespace, name, guest.uid)
        if past is not None:
            return Done(self._ended(past, gone=True))
        if agent is None:
            raise errors.NotFound(f"no agent {json.dumps(name)} among those that this one spawned")
        uid = agent["metadata"]["uid"]
        if uid == guest.uid:
            raise errors.BadRequest("an agent does not wait for its own end", field="params.name")
        with self._guests.listening(uid) as bell, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(params["waitSeconds"]):
                while True:
                    bell.clear()
                    there = self._guests.of(uid)
                    agent = there or agent
                    if there is None or _is_final(there):
                        return Done(self._ended(agent, gone=there is None))
                    await bell.wait()
        return Done({"name": name, "finished": False, "phase": _phase(agent)})

    def _ended(self, agent: Object, gone: bool) -> dict[str, Any]:
        metadata, status = agent["metadata"], agent.get("status") or {}
        phase = "Terminating" if gone and not _is_final(agent) else _phase(agent)
        told = {"name": metadata["name"], "finished": True, "phase": phase}
        told |= {key: status[key] for key in ("reason", "exitCode", "message") if key in status}
        said = self._said.of(metadata["uid"], int(status.get("attempt", 0)))
        if said is None:
            return told
        if gone:  # its status may not tell yet
            told |= {"reason": said.reason, "exitCode": said.code, "message": said.message}
        if said.result is not None:
            told["result"] = json.loads(said.result)
        return told

    async def exit(self, context: Context, params: Params) -> Done:
        guest = context.call.guest
        result = None
        if "result" in params:
            result = json.dumps(params["result"], ensure_ascii=False, separators=(",", ":")).encode()
        why, steps = params.get("reason", ""), params.get("steps")
        if params["code"] == 0:
            if why:
                raise errors.BadRequest("is only for a code that is not 0", field="params.reason")
            await self._fits(guest, params)
        said = exits.Exit(guest.attempt, params["code"], params["message"], result, why, steps)

        def work(tx: Any) -> dict[str, Any]:
            exits.write(tx, guest.uid, said)
            return {}

        done = await context.transact(work)
        self._said.note(guest.uid, guest.attempt)
        self._stop(guest)
        return Done(done)

    async def _fits(self, guest: Guest, params: Params) -> None:
        """Raises BadRequest for a result that is not what spec.output asks for."""
        agent = self._guests.of(guest.uid)
        schema = (agent["spec"] if agent else {}).get("output")
        if schema is None:
            return
        if "result" not in params:
            raise errors.BadRequest("spec.output asks for a result", field="params.result")
        await asyncio.to_thread(inputs.check_result, schema, params["result"])


def _told(child: Object) -> dict[str, Any]:
    return {"name": child["metadata"]["name"], "uid": child["metadata"]["uid"]}


def _is_final(agent: Object) -> bool:
    return (agent.get("status") or {}).get("phase") in kinds.FINAL_PHASES


def _phase(agent: Object) -> str:
    return str((agent.get("status") or {}).get("phase") or "Pending")
