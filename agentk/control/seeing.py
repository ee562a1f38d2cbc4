"""Look at one agent: its boxes, its counters, and whether what it refers to lets it start."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentk.api import errors, kinds
from agentk.broker import skilling
from agentk.broker.lives import Lives
from agentk.control import (
    box,
    deciding,
    digests,
    kept,
    listing,
    opened,
    plans,
    prepared,
    preparing,
    references,
    skills,
)
from agentk.control.clock import Clock, parse_stamp
from agentk.control.run import Run
from agentk.runtime import box as boxes
from agentk.store import store as stores

_KINDS = {
    "Runtime": kinds.RUNTIME,
    "Policy": kinds.POLICY,
    "Secret": kinds.SECRET,
    "ConfigMap": kinds.CONFIGMAP,
    "Memory": kinds.MEMORY,
}
UNAVAILABLE = "SandboxUnavailable"

Stage = Callable[[str], Awaitable[str]]
HostUid = Callable[[str, str], Awaitable[int]]


@dataclass(frozen=True)
class HostUids:
    """The ledger, for boxes that wait. `hand_over`: giver's uid, namespace, uid of the agent → the host uid that is the
    agent's now, or None when it has one already or the giver none. `held`: all, by uid."""

    hand_over: Callable[[str, str, str], Awaitable[int | None]]
    held: Callable[[], Awaitable[Mapping[str, int]]]


@dataclass
class Sight:
    """What was seen of one agent, and what a start would be made from."""

    observed: plans.Observed
    found: references.Found = field(default_factory=references.Found)
    source_path: str = ""
    given: prepared.Prepared = prepared.NOTHING
    looked_at: bool = True  # False: whether its Runtime works will be known in a moment


class Eyes:
    def __init__(
        self,
        store: stores.Store,
        runtimes: Mapping[str, boxes.Runtime],
        clock: Clock,
        stage: Stage,
        host_uid: HostUid,
        lives: Lives,
        preparing: preparing.Preparing | None = None,
        host_uids: HostUids | None = None,
        ports: opened.Opened | None = None,
        checkpoints: kept.Kept | None = None,
    ) -> None:
        self._checkpoints = checkpoints
        self._lives, self._ledger, self._opened = lives, host_uids, ports or opened.Opened()
        self._store, self._runtimes, self._clock = store, runtimes, clock
        self._stage, self._host_uid, self._preparing = stage, host_uid, preparing
        self.boxes = listing.Boxes(list(runtimes.values()))
        self._host_uids: dict[str, int] = {}
        self._counted_at: dict[str, float] = {}  # box id → boottime

    async def see(self, agent: Mapping[str, Any], health: plans.Health, counters_seconds: float) -> Sight:
        """Everything but admission, which has to be asked without anything awaited after it."""
        sight = await self._see(agent, health, counters_seconds)
        uid, status = str(agent["metadata"]["uid"]), agent.get("status") or {}
        seen = sight.observed.boxes or ()
        newest = max([*(one.attempt for one in seen), int(status.get("attempt", 0))])
        said = self._lives.said(uid, newest)
        sight.observed = replace(
            sight.observed,
            said=said,
            answered=None if said and said.steps is not None else await self._answered(agent, newest, seen),
            overdrawn=self._lives.overdrawn(uid),
            awaited=self._lives.awaited(uid),
            usage=self._lives.usage(uid),
            ports=self._opened.of(uid),
            kept=self._checkpoints.newest(uid) if self._checkpoints else None,
        )
        return sight

    async def _see(self, agent: Mapping[str, Any], health: plans.Health, counters_seconds: float) -> Sight:
        uid = str(agent["metadata"]["uid"])
        try:
            seen = [one for one in await self.boxes.of(uid) if one.leaf == "box"]
        except errors.AgentkError as error:
            return Sight(plans.Observed(boxes=None, blind=f"the runtime does not answer: {error.message}"))
        live = [one for one in seen if one.phase in ("Starting", "Running")]
        if live or agent["metadata"].get("deletionTimestamp"):
            counters = await self._counters(live[-1], counters_seconds) if live else None
            host_uid = await self.host_uid(agent) if live else -1
            return Sight(plans.Observed(seen, counters=counters, health=health, host_uid=host_uid))
        return await self._at_rest(agent, seen)

    async def _answered(
        self, agent: Mapping[str, Any], attempt: int, seen: Sequence[boxes.Seen]
    ) -> int | None:
        ended = [one for one in seen if one.attempt == attempt and one.exit is not None]
        return (
            await self._lives.answered(agent["metadata"]["uid"], attempt)
            if ("program" in agent["spec"] and ended)
            else None
        )

    async def whole(self, agent: Mapping[str, Any]) -> Sight:
        """What a start of it would be made from, and what keeps it from that. Boxes are left aside."""
        return await self._at_rest(agent, [])

    async def host_uid(self, agent: Mapping[str, Any]) -> int:
        """Its own until it is released; asked for once."""
        metadata = agent["metadata"]
        if metadata["uid"] not in self._host_uids:
            self._host_uids[metadata["uid"]] = await self._host_uid(metadata["namespace"], metadata["uid"])
        return self._host_uids[metadata["uid"]]

    async def take_over(self, agent: Mapping[str, Any], giver: str) -> int | None:
        """The host uid of a box that waited, the agent's own from now on; None when that cannot be."""
        metadata = agent["metadata"]
        if self._ledger is None:
            return None
        got = await self._ledger.hand_over(giver, metadata["namespace"], metadata["uid"])
        if got is not None:
            self._host_uids[metadata["uid"]] = got
        return got

    async def held(self) -> Mapping[str, int]:
        """Every host uid that is given out, by uid."""
        return await self._ledger.held() if self._ledger else {}

    def tell(self, uid: str, boxes_there: Sequence[boxes.Seen]) -> None:
        """Whether it runs, to those who count the time."""
        now = self._clock.now()
        newest = max(boxes_there, key=lambda one: one.attempt, default=None)
        live = newest is not None and newest.phase in ("Starting", "Running")
        self._lives.still.tell(uid, newest is not None and live and newest.frozen)
        if newest is not None and live and not newest.frozen:
            began = newest.started_boottime
            self._lives.runs(uid, max(0.0, now.boottime - began) if began else 0.0)
        elif newest is not None and newest.exit is not None and newest.exit.finished_at:
            ended = parse_stamp(newest.exit.finished_at)
            self._lives.rests(uid, max(0.0, (parse_stamp(now.wall) - ended).total_seconds()))
        else:
            self._lives.rests(uid)

    def forget(self, uid: str) -> None:
        self._lives.gone(uid)
        self._host_uids.pop(uid, None)
        for box_id in [one for one in self._counted_at if one.startswith(uid)]:
            del self._counted_at[box_id]
        for box_id in [one for one in self.boxes.where if one.startswith(uid)]:
            self.boxes.forget(box_id)

    async def _counters(self, live: boxes.Seen, every_seconds: float) -> boxes.Counters | None:
        """None when they were read a short while ago, or cannot be."""
        now = self._clock.now().boottime
        if now - self._counted_at.get(live.id, -every_seconds) < every_seconds:
            return None
        runtime = self.boxes.where.get(live.id)
        try:
            counted = await runtime.counters(live.id) if runtime else None
        except errors.AgentkError:
            return None
        self._counted_at[live.id] = now
        return counted

    async def _at_rest(self, agent: Mapping[str, Any], seen: list[boxes.Seen]) -> Sight:
        run = Run.from_dict((agent.get("status") or {}).get("run"))
        mended = bool(run.stalled) and agent["metadata"].get("generation", 0) > run.generation
        if run.outcome and run.token == digests.token(agent) and not mended:
            return Sight(plans.Observed(seen))  # finished: nothing it refers to matters
        found = await self.find(agent)
        source_path, source = await self._source(agent["spec"])
        attempt = box.Attempt(1, "", "", source_path=source_path)
        problems: list[plans.Problem] = []
        try:
            box.build(agent, found, attempt)
        except box.Unfit as unfit:
            problems = unfit.problems
        ready, packages, image = prepared.NOTHING, None, None
        runtime = self._runtime_problem(found.runtime)
        wanted = not problems and source is None
        if wanted and self._preparing is not None:  # nothing is fetched for what may not start
            entries = box.pull_entries(agent["spec"], found, problems)
            of = (found.runtime or {}).get("spec") or {}
            life = _life(agent, run, seen) if self._may_start(agent, run, seen) else None
            ready, packages, image = await self._preparing.prepare(agent, of, entries, life)
        observed = plans.Observed(
            seen,
            references=problems,
            source=source,
            environment=packages,
            packages=ready.told if wanted and agent["spec"].get("environment") else None,
            image=image,
            pulled=ready.chosen.told if ready.chosen else "",
            runtime=runtime,
        )
        looked_at = "available" in ((found.runtime or {}).get("status") or {})
        return Sight(observed, found, source_path, ready, looked_at)

    def _may_start(self, agent: Mapping[str, Any], run: Run, seen: Sequence[boxes.Seen]) -> bool:
        """Whether it is its time. What an image's name means is asked no earlier: it may mean another by then."""
        waits = run.retry is not None and run.retry.elapsed(self._clock.now()) < 0
        return not (seen or waits or agent["spec"].get("suspend"))

    async def find(self, agent: Mapping[str, Any]) -> references.Found:
        """What it refers to, read now; Secrets are held no longer than this look."""
        runtime: Mapping[str, Any] | None = None
        policy: Mapping[str, Any] | None = None
        secrets: dict[str, Mapping[str, Any]] = {}
        config_maps: dict[str, Mapping[str, Any]] = {}
        memory: Mapping[str, Any] | None = None
        for ref in references.names(agent):
            if ref.kind == "Skill":
                continue
            obj = await self._store.find(_KINDS[ref.kind], ref.namespace or None, ref.name)
            if obj is None:
                continue
            if ref.kind == "Runtime":
                runtime = obj
            elif ref.kind == "Policy":
                policy = obj
            elif ref.kind == "Memory":
                memory = obj
            else:
                (secrets if ref.kind == "Secret" else config_maps)[ref.name] = obj
        found = references.Found(runtime, policy, secrets, config_maps, memory)
        return await self._with_skills(agent, found) if agent["spec"].get("skills") else found

    async def _with_skills(self, agent: Mapping[str, Any], found: references.Found) -> references.Found:
        """Of all there are the heads are looked at; the files are read of those it may use, when they fit."""
        spec, namespace = agent["spec"], str(agent["metadata"].get("namespace", ""))
        there: list[skilling.Entry] = []
        for one in sorted(skilling.namespaces(spec, namespace)):
            listed = await self._store.list(kinds.SKILL, one, heads=True)
            there += map(skilling.entry, listed.items)
        chosen, held = skilling.chosen(spec, namespace, there), []
        size = sum(one.size_bytes for one in chosen)
        if size <= skills.READ_BYTES:
            held = [await self._store.find(kinds.SKILL, *one.key) for one in chosen]
        missing = skilling.missing(spec, namespace, there)
        whole = [one for one in held if one is not None]
        return replace(found, skills=whole, skills_size=size, skills_missing=missing)

    async def _source(self, spec: Mapping[str, Any]) -> tuple[str, plans.Problem | None]:
        source = spec.get("source") or {}
        if "path" not in source:
            return "", None
        if not source.get("digest"):
            told = "spec.source.path was not packed: apply it with agentk, which sends its files"
            return "", plans.Problem("SourceUnavailable", told)
        try:
            return str(await self._stage(source["digest"])), None
        except errors.AgentkError as error:
            return "", plans.Problem("SourceUnavailable", error.message)

    def _runtime_problem(self, runtime: Mapping[str, Any] | None) -> plans.Problem | None:
        if runtime is None:
            return None  # told among the references
        name, kind = runtime["metadata"]["name"], runtime["spec"].get("type")
        if kind not in self._runtimes:
            return plans.Problem(UNAVAILABLE, f'Runtime "{name}": this daemon has none of type {kind}')
        status = runtime.get("status") or {}
        if "available" not in status:
            return plans.Problem(deciding.PROBING, f'Runtime "{name}" is being looked at')
        if not status["available"]:
            return plans.Problem(
                UNAVAILABLE, f'Runtime "{name}" is not available: {status.get("reason", "")}'
            )
        return None

    def runtime(self, kind: str) -> boxes.Runtime:
        """Who makes boxes of that type; only of one whose Runtime has no problem."""
        return self._runtimes[kind]

    def runtimes(self) -> Sequence[boxes.Runtime]:
        """All of them, each once."""
        return list({id(one): one for one in self._runtimes.values()}.values())

    def runtime_of(self, found: references.Found) -> boxes.Runtime:
        """Who makes boxes for a Runtime object that has no problem."""
        assert found.runtime is not None
        return self._runtimes[found.runtime["spec"]["type"]]


def _life(agent: Mapping[str, Any], run: Run, seen: Sequence[boxes.Seen]) -> tuple[int, int]:
    """The last attempt there was, and how often the next has been refused."""
    attempts = [run.recorded, int((agent.get("status") or {}).get("attempt", 0))]
    return max([*attempts, *(one.attempt for one in seen)]), run.refusals


def comes_by_itself(observed: plans.Observed) -> bool:
    """Whether something is on its way that may get lost on it: one looks again after a while."""
    return bool(observed.source or observed.environment or observed.image)


def is_blocked(observed: plans.Observed) -> bool:
    """Whether something the agent refers to keeps it from starting."""
    waits = (observed.references, observed.source, observed.environment, observed.image, observed.runtime)
    return any(waits)
