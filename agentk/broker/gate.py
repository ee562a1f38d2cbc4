"""The gate: every call of every guest goes through `Gate.call`, and what it does is in the order it is written.

The order is the security: nothing is decided on what was not parsed, nothing is done that was not allowed, nothing
is used that was not reserved, and no effect happens that is not on the disk as intended. There is no second way in.
"""

import asyncio
import contextlib
import hashlib
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agentk.api import errors, kinds
from agentk.broker import crash, policy, policy_rules, repeating
from agentk.broker.approving_words import Asking
from agentk.broker.budgets import Budgets, Reservation
from agentk.broker.methods import Approved, Done, Method, Params
from agentk.broker.stillness import Stillness
from agentk.broker.words import Amount, Call, Guest
from agentk.store import journal_words as entries
from agentk.store import writer
from agentk.store.journal import Journal

Emit = Callable[[Any], Awaitable[None]]


class Turn(Protocol):
    """A turn that was waited for; `charge` tells what it really took."""

    def charge(self, tokens: int) -> None: ...


# (route, guest, most tokens the call may use): held while the call runs.
TakeTurn = Callable[[str, Guest, int], contextlib.AbstractAsyncContextManager[Turn]]


async def _none(guest: Guest, refusal: errors.BudgetExceeded) -> None:
    raise refusal


async def _nobody(asking: Asking) -> Approved:
    raise errors.ApprovalRequired(asking.verdict.reason, hint="nobody can be asked here")


def _as_it_was(guest: Guest) -> Guest:
    return guest


@dataclass(frozen=True)
class Rooms:
    """What the gate is built of."""

    methods: Mapping[str, Method]  # by the names of the schema
    rules: Callable[[Guest], policy_rules.Rules]
    journal: Journal
    budgets: Budgets
    path: Callable[[Guest], tuple[str, ...]]  # whose budgets a call counts for, outermost first
    take_turn: TakeTurn
    forms: Mapping[str, Method] = field(default_factory=dict)  # the same calls in the words of a provider
    now: Callable[[], float] = time.time
    # What becomes of a call for which too little is left: raises, or returns when it may ask again.
    patience: Callable[[Guest, errors.BudgetExceeded], Awaitable[None]] = _none
    still: Stillness = field(default_factory=Stillness)
    # Returns when a person has let a call through, however long that takes. Raises when it is not to be done.
    approve: Callable[[Asking], Awaitable[Approved]] = _nobody
    # Who the guest is by now: its spec and its Policy may have changed while a call waited. Raises Forbidden.
    guest: Callable[[Guest], Guest] = _as_it_was


class Gate:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        # calls under way that have a key
        self._flying: dict[tuple[str, int, str], tuple[_Running, asyncio.Future[Any]]] = {}

    async def call(self, call: Call, emit: Emit) -> Any:
        """The result. Raises AgentkError; when cancelled, the call ends and what it used so far is settled."""
        rooms = self._rooms
        method = self._find(call)
        params = method.parse(call.params)
        facts = method.facts(call.guest, params)
        verdict = policy.decide(rooms.rules(call.guest), method.name, facts)
        running = _Running(call, emit, rooms.journal)
        if verdict.effect == "Allow" and method.recording == "none":
            return (await method.handle(running, params)).result
        running.intent = _intent(call, params, verdict)
        if verdict.effect == "Deny":
            raise await running.refused(errors.Denied(verdict.reason))
        if not call.key:
            return await self._do(method, running, params, verdict)
        while True:
            async with self._once(call, running, method.repeatable, params) as repeated:
                if repeated is None:
                    return await self._do(method, running, params, verdict)
                with contextlib.suppress(repeating.NeverBegun):  # then it is this one's
                    return await repeated

    async def _do(self, method: Method, running: "_Running", params: Params, verdict: policy.Verdict) -> Any:
        if verdict.effect == "Ask" or method.asks:
            await self._asked(method, running, params, verdict)
        rooms, guest = self._rooms, running.call.guest
        running.bound, reservation = await self._reserve(method, guest, params)
        try:
            async with self._turn(method, running, params) as turn:
                if method.recording == "effect" and not running.effect:
                    await running.intend(running.bound)
                return (await running.ended(method.handle(running, params), turn)).result
        finally:
            rooms.budgets.settle(reservation, running.used, rooms.now())

    async def _asked(
        self, method: Method, running: "_Running", params: Params, verdict: policy.Verdict
    ) -> None:
        """Returns once a person has let this call through; nothing of it is reserved or done until then."""
        rooms, call = self._rooms, running.call

        def again() -> policy.Verdict:
            guest = rooms.guest(call.guest)
            running.call = replace(call, guest=guest)
            return policy.decide(rooms.rules(guest), method.name, method.facts(guest, params))

        running.parked = True
        try:
            asking = Asking(call, method, params, running.intent.body, verdict, again)
            running.approved = approved = await rooms.approve(asking)
            running.parked = False
            last = again()
            if last.effect == "Deny":
                raise errors.Denied(last.reason)
        except errors.AgentkError as error:
            raise await running.refused(error) from None
        told = {"approval": approved.name, "approvedBy": approved.by} if approved.name else {}
        running.intent = replace(running.intent, meta={**running.intent.meta, "rule": last.rule, **told})

    async def _reserve(self, method: Method, guest: Guest, params: Params) -> tuple[Amount, Reservation]:
        """The most the call may use, held at every budget above it. Raises BudgetExceeded, or waits, as `patience`."""
        rooms = self._rooms
        while True:
            try:
                bound = await method.bound(guest, params)
                return bound, rooms.budgets.reserve(rooms.path(guest), bound, rooms.now())
            except errors.BudgetExceeded as refusal:
                await rooms.patience(guest, refusal)

    def _find(self, call: Call) -> Method:
        rooms = self._rooms
        method = rooms.forms.get(call.form) if call.form else rooms.methods.get(call.method)
        if method is None or method.name != call.method:
            hint = kinds.did_you_mean(call.method, sorted(rooms.methods), "methods")
            raise errors.MethodNotAllowed(f"no method {json.dumps(call.method[:100])}", hint=hint)
        return method

    def _turn(
        self, method: Method, running: "_Running", params: Params
    ) -> contextlib.AbstractAsyncContextManager[Turn]:
        if method.seconds is not None:
            running.deadline = asyncio.get_running_loop().time() + method.seconds(params)
        if method.turn is None:
            return contextlib.nullcontext(_NO_TURN)
        guest = running.call.guest
        turn = self._rooms.take_turn(method.turn(guest, params), guest, running.bound.tokens)
        return turn if math.isinf(running.deadline) else _in_time(turn, running, self._rooms.still)

    @contextlib.asynccontextmanager
    async def _once(
        self, call: Call, running: "_Running", repeatable: Callable[[Guest, Params], bool], params: Params
    ) -> AsyncIterator[Awaitable[Any] | None]:
        """None: it is to be done now. Else what answers it: the call under way with this key, or its answer."""
        scope = (call.guest.uid, call.guest.attempt, call.key)
        if scope in self._flying:
            other, flying = self._flying[scope]
            running.same_as(other)
            yield asyncio.shield(flying)  # who hangs up must not end another's
            return
        known = None if call.fresh else self._rooms.journal.known(*scope)
        if known is not None:
            await running.same_as_known(known)
            if not (repeating.is_unknown(known) and repeatable(call.guest, params)):
                yield repeating.told(known)
                return
            running.effect = known.effect  # it is the same call, done again
        flying = asyncio.get_running_loop().create_future()
        self._flying[scope] = running, flying
        try:
            yield None
            answer = running.result
            flying.set_result(answer)
        except BaseException as error:
            if running.done:  # the guest hung up, and had its answer
                flying.set_result(running.result)
            else:
                why = "the call was taken back"
                taken_back = repeating.NeverBegun(why) if running.parked else errors.Cancelled(why)
                flying.set_exception(error if isinstance(error, errors.AgentkError) else taken_back)
                flying.exception()  # nobody may be there to hear it
            raise
        finally:
            del self._flying[scope]


_APART_BYTES = 64 * 1024  # what is longer is looked through in a thread
_REFUSED_BYTES = 16 * 1024  # what is longer, and was refused, is known by its hash


@contextlib.asynccontextmanager
async def _in_time(
    turn: contextlib.AbstractAsyncContextManager[Turn], running: "_Running", still: Stillness
) -> AsyncIterator[Turn]:
    """The turn, when it comes before the deadline; how long it is held is its holder's business. While the guest is
    frozen it waits for none, and loses no time."""
    async with contextlib.AsyncExitStack() as held:
        try:
            async with still.timeout_at(running.call.guest.uid, running.deadline) as deadline:
                granted = await held.enter_async_context(turn)
            running.deadline = deadline.at
        except TimeoutError:
            raise errors.Timeout("its turn did not come in time", hint="give it longer") from None
        yield granted


class _NoTurn:
    def charge(self, tokens: int) -> None:
        """Nobody waits for this kind of call."""


_NO_TURN = _NoTurn()


class _Running:
    """One call while it runs: what its handler sees, and its records."""

    intent: entries.Intent  # of what is recorded

    def __init__(self, call: Call, emit: Emit, journal: Journal) -> None:
        self.call, self._emit = call, emit
        self.effect = ""
        self.bound = self.used = Amount()
        self.deadline = math.inf
        self.sent = bytearray()
        self.meta: dict[str, str | int] = {}
        self.result: Any = None
        self.approved = Approved()
        self.done = self.parked = False  # parked: it waits for a person
        self._journal = journal

    async def emit(self, data: Any) -> None:
        await self._emit(data)

    async def refused(self, error: errors.AgentkError) -> errors.AgentkError:
        """The error a guest is told, once it is on record."""
        told = _outcome("denied", {"reason": error.message}, Amount())
        body = self.intent.body
        if len(body) > _REFUSED_BYTES:  # no budget bounds how often something is refused
            told_of = {"omittedBytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            body = json.dumps(told_of).encode()
        intent = replace(self.intent, key="", body=body)  # with another Policy the key may be used
        await self._journal.record(intent, told)
        if isinstance(error, errors.Denied) and not error.hint:
            guest, rule = self.call.guest, str(self.intent.meta.get("rule", ""))
            granted = rule.startswith("tools[")  # the agent's own spec says it, not its Policy
            error.hint = f"agentk get agent {guest.name} -o yaml" if granted else _policy(guest)
        return error

    async def intend(self, bound: Amount) -> None:
        """On the disk when it returns."""
        self.effect = await self._journal.intend(replace(self.intent, reserved=bound._asdict()))
        crash.crashpoint("call.intended")

    async def transact(self, work: Callable[[writer.Tx], Any]) -> Any:
        """The whole of a local call: what `work` writes and the record of it, in one transaction.

        Returns, or is cancelled, once that is known to be on the disk or not: a commit is not taken back.
        """

        def both(tx: writer.Tx) -> entries.Outcome:
            self.result = work(tx)
            return _outcome("ok", self.result, Amount(calls=1))

        writing = asyncio.ensure_future(self._journal.local(self.intent, both))
        cancelled = await _ended(writing)
        writing.result()
        self.used, self.done = Amount(calls=1), True
        crash.crashpoint("call.local")
        if cancelled:
            raise asyncio.CancelledError
        return self.result

    async def ended(self, handled: Awaitable[Done], turn: Turn) -> Done:
        """What the handler answers, once that is on the disk; whatever happens to it is on record."""
        try:
            done = await handled
        except asyncio.CancelledError:
            if not self.done:  # else it is a local call whose answer is on record
                await self._settled("cancelled", self._cut(None))
            raise
        except errors.AgentkError as error:
            unknown = isinstance(error, errors.OutcomeUnknown)
            await self._settled("unknown" if unknown else "error", self._cut(error.to_status()))
            raise
        except Exception as error:
            await self._settled("error", {"message": f"internal error: {type(error).__name__}"})
            raise
        crash.crashpoint("call.handled")
        self.used, self.result, self.done = done.used, done.result, True
        turn.charge(self.used.tokens)  # who hangs up earlier is charged what was expected
        await self._settled("ok", done.result)
        crash.crashpoint("call.settled")
        return done

    async def _settled(self, status: entries.Status, answer: Any) -> None:
        """Returns, or is cancelled, once it is on the disk: who asks again with the same key must find it there."""
        if status == "ok" and not self.effect:
            return  # a local call: its answer was written with it
        settling = asyncio.ensure_future(self._settle(status, answer))
        cancelled = await _ended(settling)
        settling.result()
        if cancelled:
            raise asyncio.CancelledError

    async def _settle(self, status: entries.Status, answer: Any) -> None:
        outcome = _outcome(status, answer, self.used, self.meta)
        if self.effect:
            await self._journal.settle(self.effect, outcome)
        else:  # a local call that wrote nothing
            await self._journal.record(replace(self.intent, key=""), outcome)

    def _cut(self, answer: Any) -> Any:
        return (
            {repeating.SENT: self.sent.decode("utf-8", "replace"), "error": answer} if self.sent else answer
        )

    def same_as(self, other: "_Running") -> None:
        """Raises Conflict when a key comes again with another call."""
        if (other.intent.method, other.intent.body) != (self.intent.method, self.intent.body):
            raise repeating.another()

    async def same_as_known(self, known: entries.Known) -> None:
        """The same, of a call that is on record."""
        if not known.digest:
            return
        method, body = self.intent.method, self.intent.body
        if len(body) < _APART_BYTES:
            digest = self._journal.digest(method, body)
        else:
            digest = await asyncio.to_thread(self._journal.digest, method, body)
        if known.digest != digest:
            raise repeating.another()


async def _ended(writing: "asyncio.Future[Any]") -> bool:
    """Waits whatever happens. Whether who waited was cancelled meanwhile: the guest hung up, perhaps again."""
    cancelled = False
    while not writing.done():
        try:
            await asyncio.wait([writing])
        except asyncio.CancelledError:
            cancelled = True
    return cancelled


def _policy(guest: Guest) -> str:
    return f"agentk get policy {guest.policy_name} -o yaml"


def _intent(call: Call, params: Params, verdict: policy.Verdict) -> entries.Intent:
    guest = call.guest
    return entries.Intent(
        namespace=guest.namespace,
        agent=guest.name,
        uid=guest.uid,
        attempt=guest.attempt,
        run=guest.run_id,
        method=call.method,
        body=_written(_SORTED, params),
        key=call.key,
        trace=call.trace,
        meta={"dialect": call.form or call.dialect, "rule": verdict.rule},
    )


def _outcome(
    status: entries.Status, answer: Any, used: Amount, meta: Mapping[str, str | int] | None = None
) -> entries.Outcome:
    return entries.Outcome(status, _written(_PLAIN, answer), used._asdict(), meta or {})


# Made once: json.dumps makes one for each call that is not all defaults.
_PLAIN = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_SORTED = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _written(encoder: json.JSONEncoder, value: Any) -> bytes:
    return encoder.encode(value).encode(
        "utf-8", "backslashreplace"
    )  # half a surrogate pair as it came: escaped
