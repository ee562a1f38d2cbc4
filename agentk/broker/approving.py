"""A person is asked: a call that a Policy wants approved waits here until somebody answers, or time does.

What is asked is an Approval object; the answer is read from the store, so it does not matter who was up when it was
given. An approval lets exactly one call through, the one it was given for: arguments, files and Policy are looked at
again when it is used, and that it is used is on the disk before anything is done. If the daemon ends in between, the
person is asked again; nothing is done that was not approved, and nothing is done twice.

Must never: hold a budget or a turn while a call waits; let a guest say who answered; keep more for a guest than its
Policy lets it have waiting.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentk.api import errors, kinds
from agentk.broker import approving_answers as answers
from agentk.broker import approving_likeness as likeness
from agentk.broker import approving_shown as showing
from agentk.broker import crash, previews, repeating
from agentk.broker.approving_index import Index, Place
from agentk.broker.approving_words import (
    NOBODY,
    Answer,
    Asking,
    Clock,
    Identity,
    Known,
    Object,
    Terms,
    bounded,
    files_of,
    named,
    phase,
    terms,
)
from agentk.broker.guests import Guests
from agentk.broker.methods import Approved
from agentk.broker.stillness import Stillness
from agentk.store import store as stores
from agentk.store.journal import Journal

_LOOK_SECONDS = 60.0  # a loop's timer does not count while the machine sleeps: look again after so long
_APART_BYTES = 64 * 1024  # what is longer is looked through in a thread
_UNANSWERED = "nobody answered until the deadline"

Redact = Callable[[bytes], bytes]
Awaits = Callable[[str, tuple[str, ...]], None]  # uid of an agent, what it waits for


class Approvals:
    """`hear` fits `store.feeding.Feed`; complete before the first call."""

    def __init__(
        self,
        store: stores.Store,
        journal: Journal,
        guests: Guests,
        clock: Clock,
        redact: Redact,
        awaits: Awaits,
        still: Stillness,
    ) -> None:
        self._store, self._journal, self._guests, self._clock = store, journal, guests, clock
        self._redact, self._awaits, self._still = redact, awaits, still
        still.listen(lambda uid, stands: self._wake(uid))
        self.index = Index(clock)
        self.answers = answers.Answers(store, journal, clock, guests)
        self._bells: dict[Place, asyncio.Event] = {}
        self.changed = asyncio.Event()  # for who keeps them: `approving_keeping`
        self.noted: dict[Place, bool] = {}  # whether one is waited for, and not told yet

    def hear(self, kind: kinds.Kind, obj: Mapping[str, Any], gone: bool) -> None:
        """After `Guests.hear`. A Policy or an Agent that changes may change what is said of a call that waits."""
        if kind is kinds.APPROVAL:
            self.index.hear(obj, gone)
            bell = self._bells.get((str(obj["metadata"]["namespace"]), str(obj["metadata"]["name"])))
            if bell is not None:
                bell.set()
            self.changed.set()
        elif kind is kinds.POLICY:
            for bell in self._bells.values():
                bell.set()
        elif kind is kinds.AGENT:
            uid = str(obj["metadata"]["uid"])
            self._wake(uid)
            if self.index.of(uid):
                self.changed.set()

    def _wake(self, agent: str) -> None:
        for one in self.index.waited(agent):
            self._bells[one.namespace, one.name].set()

    async def ask(self, asking: Asking) -> Approved:
        """Returns when exactly this call may be done. Raises ApprovalDenied, ApprovalRequired when nobody answered in
        time, TooManyRequests when too many wait already, Conflict when a file has changed, and Denied when the Policy
        has. Who is cancelled leaves the Approval to the same call made again."""
        guest = asking.call.guest
        asked = bounded(terms(guest.policy, asking.verdict.rule), asking)
        large = len(asking.body) > _APART_BYTES
        identity = await asyncio.to_thread(self._identity, asking) if large else self._identity(asking)
        preview = await self._preview(asking)
        for one in self.index.remembered(guest.uid, identity, asking.params, preview.files):
            if (approved := await self._remembered(one)) is not None:
                return approved
        with self._claimed(asking, identity, preview, asked) as place:
            fresh = not self._there(place)
            if fresh:
                await self._make(asking, place, identity, preview, asked)
            obj = await self._answered(asking, place)
            return Approved() if obj is None else await self._use(asking, obj, identity)

    # which Approval is this call's

    def _identity(self, asking: Asking) -> Identity:
        """Of all of the call, and for this store: an approval that comes back with a backup is no approval."""
        call, stand_in = asking.call, self._journal.stand_in
        told = (asking.method.name, call.form, call.runtime, self._store.epoch())
        sort = [part.encode() for part in told]
        slot = "" if call.fresh or not call.key else stand_in(b"key", call.key.encode())
        parts = {} if asking.method.asks else likeness.parts(stand_in, sort, asking.params)
        return Identity(stand_in(b"call", *sort, asking.body), slot, parts)

    @contextlib.contextmanager
    def _claimed(
        self, asking: Asking, identity: Identity, preview: previews.Preview, asked: Terms
    ) -> Iterator[Place]:
        """Without waiting in between: two calls at once never have one answer."""
        guest, index = asking.call.guest, self.index
        digest, slot = identity.digest, identity.slot
        if index.of_another(guest.uid, guest.run_id, digest, slot):
            raise repeating.another()
        found = index.fitting(guest.uid, guest.run_id, digest, slot, preview.files)
        if found is None:
            found = self._room(asking, identity, preview, asked)
        place = (found.namespace, found.name)
        index.claimed[place] = guest.uid
        self._bells[place] = asyncio.Event()
        self._tell(guest.uid, place, True)
        try:
            yield place
        finally:
            index.claimed.pop(place, None)
            self._bells.pop(place, None)
            if not self._there(place):
                index.drop(place)  # it was never made
            self._tell(guest.uid, place, False)

    def _room(self, asking: Asking, identity: Identity, preview: previews.Preview, asked: Terms) -> Known:
        """A name for a new one, noted at once: whoever answers by it answers what it was seen to be, and nothing that
        took its place. Raises TooManyRequests."""
        guest = asking.call.guest
        for above in (guest.uid, *guest.parents):  # who spawns many asks no more for it
            family = {above, *(str(one["metadata"]["uid"]) for one in self._guests.family(above))}
            waiting = sum(one.open for uid in family for one in self.index.of(uid))
            if waiting < asked.pending_max:
                continue
            whose = "this agent" if above == guest.uid else "the agents that were spawned beside this one"
            raise errors.TooManyRequests(
                f"{waiting} calls of {whose} wait for a person already, and no more may",
                hint="agentk get approvals shows them; spec.approvals.maxPending of its Policy bounds them",
            )
        files = [f"{one.path}\0{one.sha256}" for one in preview.files]
        about = (guest.uid, guest.run_id, identity.slot, identity.digest, *files)
        parts, ordinal = [part.encode("utf-8", "backslashreplace") for part in about], 0
        while True:
            number = self._journal.stand_in(b"approval", *parts, str(ordinal).encode())
            name = named(guest, number)
            if self.index.get((guest.namespace, name)) is None:
                break
            ordinal += 1
        made = Known(guest.namespace, name, "", guest.uid, guest.run_id, identity.digest, identity.slot)
        self.index.put(made)
        return made

    def _there(self, place: Place) -> bool:
        one = self.index.get(place)
        return one is not None and bool(one.uid)

    async def _make(
        self, asking: Asking, place: Place, identity: Identity, preview: previews.Preview, asked: Terms
    ) -> None:
        args = (asking, place[1], identity, preview, asked, self._clock, self._redact)
        large = len(asking.body) > _APART_BYTES
        made = await asyncio.to_thread(showing.made, *args) if large else showing.made(*args)
        try:
            obj = await self._store.create(made, in_live_namespace=True)
        except errors.AlreadyExists:  # made by us, and its maker was cancelled before it heard so
            obj = await self._store.get(kinds.APPROVAL, *place)
        self.index.hear(obj, False)
        await self.answers.note(*place, True)
        crash.crashpoint("approval.made")
        self._tell(asking.call.guest.uid, place, True)
        await self.answers.tell(
            asking.call.guest.uid, "Normal", "ApprovalRequested",
            f"agentk approve {place[1]}  # waits for a person: {obj['spec']['summary']}",
        )  # fmt: skip

    def _tell(self, agent: str, place: Place, waits: bool) -> None:
        """Who looks at the agent, or at the Approval, sees it."""
        self.noted[place] = waits
        self.changed.set()
        told = (f"agentk approve {one.name}  # {one.summary}" for one in self.index.waited(agent))
        self._awaits(agent, tuple(told))

    # waiting

    async def _answered(self, asking: Asking, place: Place) -> Object | None:
        """The Approval, once it is answered; None when the Policy asks no more. Raises Denied."""
        bell, uid = self._bells[place], ""
        while True:
            bell.clear()
            verdict = asking.again()
            obj = await self._store.find(kinds.APPROVAL, *place)
            if obj is None or uid not in ("", obj["metadata"]["uid"]):
                raise errors.ApprovalDenied(
                    "the Approval was deleted before anybody answered",
                    hint="make the call again to be asked again",
                )
            uid = str(obj["metadata"]["uid"])
            if verdict.effect == "Deny":
                await self._moot(place, "its Policy denies the call by now")
                raise errors.Denied(verdict.reason)
            if phase(obj) == "Approved" and self._still.stands(asking.call.guest.uid):
                await bell.wait()  # nothing is done for an agent that is frozen
                continue
            if phase(obj) != "Pending":
                return obj
            if verdict.effect == "Allow" and not asking.method.asks:
                await self._moot(place, "its Policy allows the call by now")
                return None
            left = self._clock.left(obj)
            if left <= 0:
                otherwise = (obj["spec"].get("question") or {}).get("default")
                allowed = otherwise is not None or self._by_default(asking, obj, verdict.rule)
                answer = Answer("Approved" if allowed else "Expired", reason=_UNANSWERED, text=otherwise)
                await self._moot(place, answer.reason, answer)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _LOOK_SECONDS)):
                    await bell.wait()

    def _by_default(self, asking: Asking, obj: Object, rule: str) -> bool:
        """Whether it is let through unanswered: as it was asked, and as the Policy has it by now."""
        now = self._guests.find(asking.call.guest.box_id)
        by_now = bounded(terms(now.policy, rule), asking).default
        return (obj["spec"].get("default"), by_now) == ("Allow", "Allow")

    async def _moot(self, place: Place, reason: str, answer: Answer | None = None) -> None:
        """Nobody needs to answer any more. Somebody may have been quicker."""
        with contextlib.suppress(errors.Conflict, errors.NotFound):
            await self.answers.give(*place, answer or Answer("Expired", reason=reason))

    # using

    async def _use(self, asking: Asking, obj: Object, identity: Identity) -> Approved:
        """What was approved is what is done: looked at again, and used up before it is."""
        place = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        status = obj["status"]
        who, reason = status.get("by") or {}, str(status.get("reason", ""))
        if phase(obj) == "Expired":
            await self._use_up(place, obj)
            told = f"nobody has approved it in time: {asking.verdict.reason}"
            told = "nobody has answered in time" if asking.method.asks else told
            raise errors.ApprovalRequired(
                told if who.get("name") == NOBODY and reason == _UNANSWERED else f"{told} ({reason})",
                hint=f"agentk describe approval {place[1]}",
            )
        if phase(obj) == "Denied":
            await self._use_up(place, obj)
            raise denied(obj)
        now = await self._preview(asking)
        if obj["spec"]["digest"] != identity.digest:
            raise errors.Conflict("what was approved is another call")
        if path := previews.changed(files_of(obj), now.files):
            await self._use_up(place, obj)
            raise errors.Conflict(
                f"{path} is not what it was when this was approved",
                hint="make the call again to be asked again",
            )
        await self._use_up(place, obj)
        crash.crashpoint("approval.used")
        return _approved(obj)

    async def _use_up(self, place: Place, obj: Object) -> None:
        """On the disk when it returns. Raises when another call had it, or it is not what it was."""

        def change(live: Object | None) -> Object:
            if live is None or live["metadata"]["uid"] != obj["metadata"]["uid"]:
                raise errors.ApprovalDenied(
                    "the Approval was deleted before it was used",
                    hint="make the call again to be asked again",
                )
            had = live["status"]
            if phase(live) != phase(obj) or (phase(live) == "Approved" and had.get("used")):
                raise errors.Conflict("the Approval was used by another call")
            return showing.status(live, self._clock.text(), used=True, waiting=False)

        self.index.hear(await self._store.modify(kinds.APPROVAL, *place, change), False)
        self.noted.pop(place, None)

    async def _remembered(self, one: Known) -> Approved | None:
        """What was said for good; None when it is gone by now."""
        obj = await self._store.find(kinds.APPROVAL, one.namespace, one.name)
        if obj is None or obj["metadata"]["uid"] != one.uid:
            return None
        if phase(obj) == "Denied":
            raise denied(obj)
        return _approved(obj) if phase(obj) == "Approved" else None

    async def _preview(self, asking: Asking) -> previews.Preview:
        look = asking.method.preview
        return previews.NOTHING if look is None else await look(asking.call.guest, asking.params)


def denied(obj: Mapping[str, Any]) -> errors.ApprovalDenied:
    status, name = obj["status"], obj["metadata"]["name"]
    reason = f": {status['reason']}" if status.get("reason") else ""
    told = f"{(status.get('by') or {}).get('name', 'somebody')} said no{reason}"
    return errors.ApprovalDenied(told, hint=f"agentk describe approval {name}")


def _approved(obj: Mapping[str, Any]) -> Approved:
    by = obj["status"].get("by") or {}
    who = f"{by.get('name')} (uid {by['uid']})" if "uid" in by else str(by.get("name", ""))
    return Approved(str(obj["metadata"]["name"]), who, str(obj["status"].get("answer", "")))
