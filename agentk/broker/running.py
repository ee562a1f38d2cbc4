"""One call while it runs: what its handler sees of it, and its records in the journal.

Must never tell a guest of an answer that is not on the disk, and never write down what its guardrails mask.
"""

import asyncio
import hashlib
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from agentk.api import errors
from agentk.broker import crash, policy, repeating
from agentk.broker.guarding.guarded import Guarded
from agentk.broker.methods import Approved, Arrange, Done, Params
from agentk.broker.words import Amount, Call, Guest
from agentk.store import journal_words as entries
from agentk.store import writer
from agentk.store.journal import Journal

Emit = Callable[[Any], Awaitable[None]]
_APART_BYTES = 64 * 1024  # what is longer is looked through in a thread
_REFUSED_BYTES = 16 * 1024  # what is longer, and was refused, is known by its hash


class Turn(Protocol):
    """A turn that was waited for; `charge` tells what it really took."""

    def charge(self, tokens: int) -> None: ...


class Running:
    """One call while it runs: what its handler sees, and its records."""

    intent: entries.Intent  # of what is recorded
    facts: policy.Facts = policy.NOTHING  # that it was judged by

    def __init__(self, call: Call, emit: Emit, journal: Journal, guard: Guarded | None = None) -> None:
        self.call, self._emit, self._guard = call, emit, guard
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
        for item in [data] if self._guard is None else await self._guard.hears(data):
            await self._emit(item)

    # guardrails

    async def leaving(self, params: Params) -> tuple[Params, Params, errors.AgentkError | None]:
        """The parameters for its handler, those for the journal, and why it may not be done."""
        if self._guard is None:
            return params, params, None
        left = await self._guard.leaves(params)
        return dict(left.params), dict(left.kept), left.refusal

    def guarded_as(self, other: Guarded | None) -> bool:
        """Whether the same is looked for."""
        mine, theirs = (None if one is None else one.rails for one in (self._guard, other))
        return mine is theirs

    async def seen(self, value: Any) -> Any:
        return value if self._guard is None else await self._guard.seen(value)

    async def background(self, answer: Any) -> Any:
        return answer if self._guard is None else await self._guard.background(answer)

    async def unrecorded(self, handled: Awaitable[Done]) -> Any:
        """The answer of a call that is only counted."""
        if self._guard is None:
            return (await handled).result
        try:
            came = await self._guard.comes((await handled).result)
            await self._rest()
        except errors.AgentkError as error:
            await self._guard.failed(error)
            raise
        return came.told

    async def retold(self, known: entries.Known) -> Any:
        """The answer that a call had."""
        answer = await repeating.told(known)
        return answer if self._guard is None else self._guard.again(answer)

    async def _came(self, result: Any) -> tuple[Any, Any]:
        """The answer for the guest, whose stream is whole by then, and for the journal."""
        if self._guard is None:
            return result, result
        came = await self._guard.comes(result)
        await self._rest()
        return came.told, came.kept

    async def _rest(self) -> None:
        assert self._guard is not None
        for item in await self._guard.ends():
            await self._emit(item)

    async def _failed(self, error: errors.AgentkError) -> Any:
        """As the journal may have it."""
        if self._guard is None:
            return error.to_status()
        try:
            await self._guard.failed(error)
            return await self._guard.kept(error.to_status())
        except errors.AgentkError:
            error.message, error.hint, error.causes = "it failed, and why may not be told", "", []
            return error.to_status()

    # the journal

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

    async def arranged(self, arrange: Arrange, params: Params) -> Params:
        """What is done in its place; the record has what was asked."""
        try:
            return await arrange(self, params)
        except errors.AgentkError as error:
            # Whoever forgets a page of this conversation would not find it here.
            told_of = {"omittedBytes": len(self.intent.body)}
            self.intent = replace(self.intent, body=json.dumps(told_of).encode())
            raise await self.refused(error) from None

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
            kept = self.result if self._guard is None else self._guard.local(self.result)
            return _outcome("ok", kept, Amount(calls=1))

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
            self.used = done.used
            told, kept = await self._came(done.result)
        except asyncio.CancelledError:
            if not self.done:  # else it is a local call whose answer is on record
                await self._settled("cancelled", self._cut(None))
            raise
        except errors.AgentkError as error:
            unknown = isinstance(error, errors.OutcomeUnknown)
            await self._settled("unknown" if unknown else "error", self._cut(await self._failed(error)))
            raise
        except Exception as error:
            await self._settled("error", {"message": f"internal error: {type(error).__name__}"})
            raise
        crash.crashpoint("call.handled")
        self.result, self.done = told, True
        turn.charge(self.used.tokens)  # who hangs up earlier is charged what was expected
        await self._settled("ok", kept)
        crash.crashpoint("call.settled")
        return replace(done, result=told)

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
        sent = self.sent.decode("utf-8", "replace")
        if sent and self._guard is not None:  # what was held back was not told
            sent = "" if self._guard.holds else "(kept off the record by guardrails)"
        return {repeating.SENT: sent, "error": answer} if sent else answer

    def same_as(self, other: "Running") -> None:
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


def intent_of(call: Call, params: Params, verdict: policy.Verdict) -> entries.Intent:
    guest = call.guest
    return entries.Intent(
        namespace=guest.namespace,
        agent=guest.name,
        uid=guest.uid,
        attempt=guest.attempt,
        run=guest.run_id,
        method=call.method,
        body=written(params),
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


def written(params: Params) -> bytes:
    """The same for the same parameters."""
    return _written(_SORTED, params)


def _written(encoder: json.JSONEncoder, value: Any) -> bytes:
    return encoder.encode(value).encode(
        "utf-8", "backslashreplace"
    )  # half a surrogate pair as it came: escaped
