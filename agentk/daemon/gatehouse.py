"""The gate, built once: journal, budgets, turns, models, and a door for every box that listens.

Everything a guest asks comes in through a door opened here, and all of it goes to one `Gate`. What a call does is in
`broker/calling`; here is only who gets which room.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentk.api import errors, kinds
from agentk.broker import (
    accounts,
    approving,
    approving_keeping,
    door,
    egress,
    egress_authority,
    egress_fetching,
    egress_secrets,
    exits,
    gate,
    guests,
    happenings,
    jobs,
    leftovers,
    lives,
    policy,
    policy_rules,
    secrecy,
    sessions,
    turns_routes,
)
from agentk.broker.approving_words import Clock
from agentk.broker.budgets import Budgets, Left
from agentk.broker.calling import agents, skills, waiting
from agentk.broker.dialects.frames_serving import FramesService
from agentk.broker.dialects.http import HttpService
from agentk.broker.dialects.jsonrpc import Asked
from agentk.broker.dialects.jsonrpc_serving import Emit, JsonRpcService
from agentk.broker.guarding import guards
from agentk.broker.methods import Method
from agentk.broker.words import Call, Guest
from agentk.daemon import contexthouse, gatecalls, hosting, memoryhouse, sentencing, toolhouse, unasked
from agentk.llm.models import Models
from agentk.llm.tokenizing import Tokenizers
from agentk.llm.worker import Worker
from agentk.memory import database
from agentk.runtime import hands, jails, saying
from agentk.store import feeding, journal, journal_anchor, journal_retention
from agentk.store import store as stores

WATCHED = (
    kinds.AGENT,
    kinds.POLICY,
    kinds.RUNTIME,
    kinds.QUOTA,
    kinds.SECRET,
    kinds.MODELROUTE,
    kinds.TOOL,
    kinds.SKILL,
    kinds.MEMORY,
    kinds.APPROVAL,
)
_SWEEP_SECONDS = 10.0  # seals what a quiet journal left unsealed; lets go of what is old
_ANCHOR = "journal"
_SEED = "authorities.seed"  # beside the databases, and like them the daemon's alone
_AT_ONCE = frozenset({"noop", "hello"})

_log = logging.getLogger(__name__)

Object = Mapping[str, Any]


@dataclass(frozen=True)
class _Open:
    """One box's door and those who speak behind it."""

    door: door.Door
    services: tuple[JsonRpcService | HttpService | FramesService, ...]

    async def close(self) -> None:
        for service in self.services:
            await service.close()
        await self.door.close()


def _journal(
    store: stores.Store, secret: secrecy.Secrecy, kept: journal_retention.Retention | None
) -> journal.Journal:
    anchor = journal_anchor.StateAnchor(
        lambda: store.note(_ANCHOR), lambda text: store.keep_note(_ANCHOR, text)
    )
    settings = journal.Settings(secret.redact, kept or journal_retention.Retention())
    return journal.Journal.open(store.folder, anchor, settings)


class Gatehouse:
    """Opened before the steward starts anything; closed before the store."""

    def __init__(
        self,
        store: stores.Store,
        boxes: jails.Jails,
        version: str = "",
        ca_pem: str = "",
        kept: journal_retention.Retention | None = None,
        sentences: str = "",
    ) -> None:
        """`ca_pem`: authorities to believe besides the machine's, when hosts are reached for agents. `sentences`: the
        folder of a sentence model, if there is one."""
        self.store, self.boxes, self.version = store, boxes, version
        self.secrecy = secrecy.Secrecy()
        self.journal = _journal(store, self.secrecy, kept)
        self.guests = guests.Guests()
        self._worker, self.tokenizers = Worker(), Tokenizers()
        self.models = Models(self.secrecy.value, self._worker)
        self.jobs = jobs.Jobs(self.journal, boxes.exec_cancel, self.secrecy.redact, now)
        self.sessions = sessions.Sessions(hands.Hands(boxes))
        self.dialer = egress.Dialer()
        self.fetcher = egress_fetching.Fetcher(
            self.dialer, egress_secrets.Secrets(self.secrecy.value), egress_authority.believing(ca_pem)
        )
        self.authorities = egress_authority.Authorities(egress_authority.seed(store.folder / _SEED), ca_pem)
        self.lives = lives.Lives()
        self.lives.still.listen(self._stands)
        self.turns = turns_routes.RouteTurns(self.models.route, self.lives.still)
        self.exits = exits.Exits(self.journal)
        self.budgets = Budgets(self.lives.changed, self.lives.moved)
        self.accounts = accounts.Accounts(self.budgets, self.guests, self.journal, now)
        self.waiting = waiting.Waiting(now)
        self.sayings = saying.Sayings(boxes.descriptors)
        self._leftovers = leftovers.Leftovers(self.journal, self.guests, now)
        self.happenings = happenings.Happenings(self.journal, self.guests, self.waiting, now)
        self.tools = toolhouse.Toolhouse(self, now)
        self.skills = skills.Shelf()
        self.memory = self._memory(sentences, (kept or journal_retention.Retention()).bodies_seconds)
        self.contexts = contexthouse.built(self, now)
        clock = Clock(now, _BEGAN, _BOOT.read_text().strip())
        self.approvals = approving.Approvals(
            store,
            self.journal,
            self.guests,
            clock,
            self.secrecy.redact,
            self.lives.tell_awaited,
            self.lives.still,
        )
        self._keeping = approving_keeping.Keeping(self.approvals, store, self.guests, clock)
        self.guards = guards.Guards(
            self.journal, self.secrecy.redact, now, self._skill, self.sessions, self.tools.command
        )
        self.methods: dict[str, Method] = gatecalls.methods(self)
        self.gate = gate.Gate(self._rooms())
        self._rules: dict[str, tuple[Object, policy_rules.Rules]] = {}
        self._feed = feeding.Feed(store, asyncio.sleep, WATCHED, self._hear)
        self.agentos = gatecalls.kernel(self, version)
        self.hosting = hosting.Hosting(store, self.guests)
        self._doors: dict[str, _Open] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def _memory(self, sentences: str, kept_seconds: float) -> memoryhouse.Memoryhouse:
        model = sentencing.Sentences(sentences)
        embedders = memoryhouse.Embedders(self.models, model, self.turns.take, self.left)
        db = database.Database(self.store.folder)
        alone = unasked.Unasked(embedders, self.journal, self.budgets, self.accounts.path, now)
        return memoryhouse.Memoryhouse(db, self.guests, self.journal, embedders, alone, kept_seconds)

    def _rooms(self) -> gate.Rooms:
        return gate.Rooms(
            self.methods,
            self.rules,
            self.journal,
            self.budgets,
            self.accounts.path,
            self.turns.take,
            gatecalls.forms(self),
            now,
            self.lives.patience,
            self.lives.still,
            self.approvals.ask,
            lambda guest: self.guests.find(guest.box_id),
            self.guards.of,
            self.lives.steps.heard,
        )

    async def run(self) -> None:
        """Until cancelled. Doors open when all there is was heard; until then callers wait in the backlog."""
        since = await self._feed.prime()
        await self.accounts.load()
        await agents.reconcile(self.journal, self.store)
        await self.lives.open(
            lives.Rooms(self.budgets, self.guests, self.exits, self.journal, self.accounts.path_of, now)
        )
        await self.models.start()
        forget = self.boxes.on_listeners(self._listens)
        try:
            async with asyncio.TaskGroup() as group:
                for kind in WATCHED:
                    group.create_task(self._feed.run(kind, since[kind.plural]), name=f"gate: {kind.plural}")
                group.create_task(self._sweep(), name="gate: journal")
                group.create_task(self._leftovers.run(), name="gate: leftovers")
                group.create_task(self.happenings.run(), name="gate: happenings")
                group.create_task(self.lives.run(), name="gate: budgets")
                group.create_task(self.tools.run(), name="gate: tools")
                group.create_task(self.memory.run(), name="gate: memory")
                group.create_task(self._keeping.run(), name="gate: approvals")
        finally:
            forget()

    async def close(self) -> None:
        """Hang up on every guest, end what runs for them, and write the end of the journal. Repeatable."""
        await self.hosting.close()
        for box_id in list(self._doors):
            self._listens(box_id, "", {})
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self.tools.close()
        await self.waiting.close()
        await self.jobs.close()
        await self.sessions.close()
        await self.guards.close()
        await self.models.close()
        await self._worker.close()
        await self.tokenizers.close()
        self.dialer.close()
        with contextlib.suppress(errors.AgentkError):  # a full disk, say: then as after a kill -9
            await self.lives.save()
        await self.contexts.close()
        await self.memory.close()
        self.journal.close()

    def left(self, guest: Guest) -> Left:
        """What one more call of this guest may use."""
        return self.budgets.left(self.accounts.path(guest), now())

    def rules(self, guest: Guest) -> policy_rules.Rules:
        """Those of the guest's Policy, read once until it changes."""
        kept = self._rules.get(guest.policy_name)
        if kept is None or (kept[0] is not guest.policy and kept[0] != guest.policy):
            read = policy.read(guest.policy_name, guest.policy)
            kept = self._rules[guest.policy_name] = (guest.policy, read)
        return kept[1]

    async def _skill(self, guest: Guest, name: str) -> Mapping[str, bytes]:
        return await skills.files(self.store, self.skills, guest, name)

    # hearing

    def _hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        self.guests.hear(kind, obj, gone)
        self.accounts.hear(kind, obj, gone)
        self.secrecy.hear(kind, obj, gone)
        self.hosting.hear(kind, obj, gone)
        self.happenings.hear(kind, obj, gone)
        self._leftovers.hear(kind, obj, gone)
        self.tools.hear(kind, obj, gone)
        self.skills.hear(kind, obj, gone)
        self.memory.hear(kind, obj, gone)
        self.approvals.hear(kind, obj, gone)
        if kind is kinds.MODELROUTE:
            self._hear_route(obj, gone)

    def _hear_route(self, obj: Object, gone: bool) -> None:
        namespace, name = str(obj["metadata"]["namespace"]), str(obj["metadata"]["name"])
        if gone:
            self.models.drop_route(namespace, name)
            return
        problems = self.models.set_route(obj)
        if problems:
            _log.warning("ModelRoute %s/%s is not used: %s", namespace, name, problems[0])
        else:
            self.turns.changed(namespace, name)

    # doors

    def _listens(self, box_id: str, uid: str, fds: Mapping[str, int]) -> None:
        """Fits `Jails.on_listeners`: a door for what listens, in place of the one before."""
        before = self._doors.pop(box_id, None)
        if before is not None:
            task = asyncio.get_running_loop().create_task(before.close(), name=f"close door {box_id}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        if not fds:
            self.sayings.forget(box_id)
        else:
            opened = self._doors[box_id] = self._open(box_id, [os.dup(fd) for fd in fds.values()])
            opened.door.stand(self.lives.still.stands(box_id.rpartition("-")[0]))
            opened.door.open()

    def _stands(self, uid: str, still: bool) -> None:
        for box_id, opened in self._doors.items():
            if box_id.rpartition("-")[0] == uid:
                opened.door.stand(still)

    def _open(self, box_id: str, fds: list[int]) -> _Open:
        async def answer(asked: Asked, emit: Emit) -> Any:
            guest = self.guests.find(box_id)
            call = Call(guest, asked.method, asked.params, key=asked.key, trace=asked.trace)
            return await self.gate.call(call, emit)

        native = JsonRpcService(answer, at_once=_AT_ONCE)
        http = gatecalls.http(self, box_id)
        frames = gatecalls.frames(self, box_id, native.room)
        speakers: dict[door.Spoken, door.Dialect] = {
            "jsonrpc": native.connection,
            "http": http.connection,
            "frames": frames.connection,
        }
        return _Open(door.Door(fds, speakers), (native, http, frames))

    # duties

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                await self.journal.sweep()
                await self.exits.keep({str(agent["metadata"]["uid"]) for agent in self.guests.all()})
                await self.jobs.sweep(self.guests.uids())
                self.guards.keep(self.guests.uids())
            except errors.AgentkError:  # a full disk, say: those who write hear of it too
                _log.exception("the journal could not be swept")


_BOOT = Path("/proc/sys/kernel/random/boot_id")
_BEGAN = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def now() -> float:
    """Unix seconds that do not jump, and that count the time a machine sleeps."""
    return _BEGAN + time.clock_gettime(time.CLOCK_BOOTTIME)
