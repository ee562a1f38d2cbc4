"""The gate: every call of every guest goes through `Gate.call`, and what it does is in the order it is written.

The order is the security: nothing is decided on what was not parsed, nothing is done that was not allowed, nothing
is used that was not reserved, and no effect happens that is not on the disk as intended. There is no second way in.
"""

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agentk.api import errors, kinds
from agentk.broker import policy, policy_rules, repeating
from agentk.broker.approving_words import Asking
from agentk.broker.budgets import Budgets, Reservation
from agentk.broker.guarding.guarded import Guarded
from agentk.broker.methods import Approved, Method, Params
from agentk.broker.running import Emit, Running, Turn, intent_of, written
from agentk.broker.stillness import Stillness
from agentk.broker.words import Amount, Call, Guest
from agentk.store.journal import Journal

# (route, guest, most tokens the call may use): held while the call runs.
TakeTurn = Callable[[str, Guest, int], contextlib.AbstractAsyncContextManager[Turn]]


async def _none(guest: Guest, refusal: errors.BudgetExceeded) -> None:
    raise refusal


async def _nobody(asking: Asking) -> Approved:
    raise errors.ApprovalRequired(asking.verdict.reason, hint="nobody can be asked here")


def _as_it_was(guest: Guest) -> Guest:
    return guest


def _unheard(uid: str, method: str) -> None:
    """Nobody counts."""


def _unguarded(call: Call, method: str) -> Guarded | None:
    return None


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
    # What its Policy's guardrails make of a call; None when it has none.
    guard: Callable[[Call, str], Guarded | None] = _unguarded
    # By uid and method: a call has ended well, and is on record as that. It must not wait.
    stepped: Callable[[str, str], None] = _unheard


class Gate:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        # calls under way that have a key
        self._flying: dict[tuple[str, int, str], tuple[Running, asyncio.Future[Any]]] = {}

    async def call(self, call: Call, emit: Emit) -> Any:
        """The result. Raises AgentkError; when cancelled, the call ends and what it used so far is settled."""
        rooms = self._rooms
        method = self._find(call)
        params = method.parse(call.params)
        running = Running(call, emit, rooms.journal, rooms.guard(call, method.name))
        params, kept, refusal = await running.leaving(params)
        running.facts = facts = method.facts(call.guest, params)
        verdict = policy.decide(rooms.rules(call.guest), method.name, facts)
        if verdict.effect == "Allow" and method.recording == "none" and refusal is None:
            return await running.unrecorded(method.handle(running, params))
        running.intent = intent_of(call, kept, verdict)
        if verdict.effect == "Deny":
            refusal = errors.Denied(verdict.reason)
        if refusal is not None:
            raise await running.refused(refusal)
        if not call.key:
            return await self._do(method, running, params, verdict)
        while True:
            async with self._once(call, running, method.repeatable, params) as repeated:
                if repeated is None:
                    return await self._do(method, running, params, verdict)
                with contextlib.suppress(repeating.NeverBegun):  # then it is this one's
                    return await repeated

    async def _do(self, method: Method, running: Running, params: Params, verdict: policy.Verdict) -> Any:
        if verdict.effect == "Ask" or method.asks:
            await self._asked(method, running, params, verdict)
        rooms, guest = self._rooms, running.call.guest
        if method.arrange is not None:
            params = await running.arranged(method.arrange, params)
        running.bound, reservation = await self._reserve(method, guest, params)
        try:
            async with self._turn(method, running, params) as turn:
                if method.recording == "effect" and not running.effect:
                    await running.intend(running.bound)
                done = await running.ended(method.handle(running, params), turn)
                rooms.stepped(guest.uid, method.name)
                return done.result
        finally:
            rooms.budgets.settle(reservation, running.used, rooms.now())

    async def _asked(self, method: Method, running: Running, params: Params, verdict: policy.Verdict) -> None:
        """Returns once a person has let this call through; nothing of it is reserved or done until then."""
        rooms, call = self._rooms, running.call

        def again() -> policy.Verdict:
            guest = rooms.guest(call.guest)
            running.call = replace(call, guest=guest)
            if not running.guarded_as(rooms.guard(running.call, method.name)):
                return policy.Verdict("Deny", "", "the guardrails of its Policy changed while it waited")
            facts = method.facts(guest, params)
            if facts.tool != running.facts.tool:
                return policy.Verdict(
                    "Deny", "", "what it calls is another tool than when it was asked about"
                )
            return policy.decide(rooms.rules(guest), method.name, facts)

        running.parked = True
        try:
            asking = Asking(call, method, params, written(params), verdict, again)
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
        self, method: Method, running: Running, params: Params
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
        self, call: Call, running: Running, repeatable: Callable[[Guest, Params], bool], params: Params
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
                yield running.retold(known)
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


@contextlib.asynccontextmanager
async def _in_time(
    turn: contextlib.AbstractAsyncContextManager[Turn], running: Running, still: Stillness
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
