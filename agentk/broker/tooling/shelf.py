"""The Tools there are, what each offers, and which of it an agent may call.

What is offered is asked for once and kept, in memory and in the Tool's status, until what it is made of changes. Two
who ask at once wait for one answer. Names and descriptions are the tool's own words: nothing is decided by them.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, kinds, toolspecs
from agentk.broker import granting
from agentk.broker.tooling import kinds as words
from agentk.broker.tooling import patience
from agentk.broker.tooling.kinds import Object
from agentk.broker.words import Guest
from agentk.store import store as stores
from agentk.tools import offers
from agentk.tools.offers import Offered

BETWEEN = "__"  # of a Tool's name and that of one of several that it offers; no Tool's name has an underscore
_STATUS_BYTES = 256 * 1024  # of schemas: more is asked for again by the next daemon
_TOLD_BYTES = 1024  # of a description in a status
_ERROR_CHARS = 500

_log = logging.getLogger(__name__)

SetStatus = Callable[[Object, dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Found:
    """One tool that an agent may call."""

    tool: Object
    grant: granting.Grant
    offered: Offered
    name: str  # as the agent calls it


@dataclass(frozen=True)
class _Known:
    fingerprint: str
    offers: tuple[Offered, ...]


class Shelf:
    def __init__(
        self,
        makers: Mapping[str, words.Kind],
        set_status: SetStatus,
        now: Callable[[], float] = time.monotonic,
        missed: Callable[[Guest, str], None] = lambda guest, tool: None,
    ) -> None:
        """`makers` by the field of the spec that says the kind; `missed` hears of Tools that are granted and not
        there."""
        self._makers, self._set_status, self._missed = makers, set_status, missed
        self._patience = patience.Patience(now)
        self._tools: dict[tuple[str, str], Object] = {}
        self._known: dict[str, _Known] = {}  # by uid of the Tool
        self._asking: dict[str, asyncio.Task[tuple[Offered, ...]]] = {}
        self._bells: set[asyncio.Event] = set()

    # Tools

    def hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        if kind is not kinds.TOOL:
            return
        at = words.namespace(obj), words.name(obj)
        if gone:
            self._tools.pop(at, None)
            self._known.pop(words.uid(obj), None)
            self._patience.forget(words.uid(obj))
        else:
            self._tools[at] = obj
        self._ring()

    def find(self, namespace: str, name: str) -> Object | None:
        """The Tool that the name means there."""
        own = self._tools.get((namespace, name))
        if own is not None:
            return own
        shared = self._tools.get((toolspecs.EVERYWHERE, name))
        return shared if shared is not None and shared["spec"].get("everywhere") else None

    def all(self) -> list[Object]:
        return list(self._tools.values())

    def kind(self, tool: Object) -> words.Kind:
        return self._makers[toolspecs.kind(tool["spec"])]

    # what changes

    @contextlib.contextmanager
    def ringing(self, bell: asyncio.Event) -> Iterator[None]:
        """Set it whenever a Tool is another, or offers something else."""
        self._bells.add(bell)
        try:
            yield
        finally:
            self._bells.discard(bell)

    def state(self, guest: Guest) -> list[Any]:
        """The same as long as what it is granted is, as far as that is known without asking."""
        found: list[Any] = []
        for grant in granting.grants(guest.spec):
            tool = self.find(guest.namespace, grant.tool)
            status = (tool or {}).get("status") or {}
            known = self._known.get(words.uid(tool)) if tool else None
            listed = (
                [(one.name, one.digest) for one in known.offers]
                if known is not None
                else [(one.get("name"), one.get("digest")) for one in status.get("tools") or ()]
            )
            may = sorted(one for one in listed if grant.offers(str(one[0])))
            about = words.uid(tool) if tool else "", status.get("listing"), status.get("drift")
            found.append((grant.tool, *about, may))
        return found

    def _ring(self) -> None:
        for bell in self._bells:
            bell.set()

    # what they offer

    async def offers(
        self, tool: Object, guest: Guest | None, *, at_once: bool = False
    ) -> tuple[Offered, ...]:
        """Raises what asking raised, now or, unless `at_once`, a little while ago."""
        fingerprint = await self._fingerprint(tool)
        if (known := self._kept(tool, fingerprint)) is not None:
            return known
        refusal = self._patience.refusal(words.uid(tool), fingerprint)
        if refusal is not None and not at_once:
            raise refusal
        return await self._ask(tool, guest, fingerprint)

    async def again(self, tool: Object) -> tuple[Offered, ...]:
        """The same, asked of the tool itself, whatever is known. Agents are told the answer from now on."""
        return await self._ask(tool, None, await self._fingerprint(tool))

    async def _ask(self, tool: Object, guest: Guest | None, fingerprint: str) -> tuple[Offered, ...]:
        at = f"{words.uid(tool)}/{fingerprint}"
        if at not in self._asking:
            asking = self._discover(tool, guest, fingerprint)
            task = self._asking[at] = asyncio.create_task(asking, name=f"discover {words.name(tool)}")
            task.add_done_callback(lambda done: self._asked(at, done))
        return await asyncio.shield(self._asking[at])

    def _kept(self, tool: Object, fingerprint: str) -> tuple[Offered, ...] | None:
        known = self._known.get(words.uid(tool))
        if known is not None and known.fingerprint == fingerprint:
            return known.offers
        told = _of_status(tool, fingerprint)
        if told is not None and not self._patience.has_failed(words.uid(tool)):
            self._known[words.uid(tool)] = _Known(fingerprint, told)
            return told
        return None

    def names(self, tool: Object) -> Sequence[str] | None:
        """Of what it offers, as far as that is known without waiting."""
        listed = self.kind(tool).names(tool)
        if listed is not None:
            return listed
        known = self._known.get(words.uid(tool))
        if known is not None:
            return [one.name for one in known.offers]
        status = tool.get("status") or {}
        if status.get("observedGeneration") == tool["metadata"].get("generation") and "tools" in status:
            return [str(one["name"]) for one in status["tools"]]
        return None

    async def close(self) -> None:
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # whose they are

    def split(self, guest: Guest, called: str) -> tuple[Object, granting.Grant, str]:
        """The Tool that a name means to this agent, its grant, and which of what it offers. Raises NotFound."""
        for name, inner in _readings(called):
            grant = granting.of(guest.spec, name)
            tool = self.find(guest.namespace, name) if grant else None
            if grant is None:
                continue
            if tool is None:
                self._missed(guest, name)
                raise errors.NotFound(
                    f'spec.tools grants Tool "{name}", but there is none in namespace "{guest.namespace}"',
                    hint=f"agentk get tools -n {guest.namespace}  # shows those there are",
                    field="params.name",
                )
            if not inner:
                names = self.names(tool)
                if names is not None and len(names) == 1:
                    inner = names[0]
            return tool, grant, inner
        raise errors.NotFound(
            f"no tool {json.dumps(called[:200])} among those that this agent is granted",
            hint=self._meant(guest, called),
            field="params.name",
        )

    def _meant(self, guest: Guest, called: str) -> str:
        """What may have been meant, as far as that is known without asking a tool."""
        names: list[str] = []
        for grant in granting.grants(guest.spec):
            tool = self.find(guest.namespace, grant.tool)
            inner = [one for one in (self.names(tool) if tool else None) or () if grant.offers(one)]
            if called in inner:
                return f"did you mean '{grant.tool}{BETWEEN}{called}'?"
            names.append(grant.tool)
        return kinds.did_you_mean(called, names, "tools") if names else "its spec.tools names none"

    async def found(self, guest: Guest, called: str) -> Found:
        """Raises NotFound for what is not offered, or not granted: the two are not told apart."""
        tool, grant, inner = self.split(guest, called)
        offered = await self.offers(tool, guest)
        if not inner and len(offered) == 1:
            inner = offered[0].name
        for one in offered:
            if one.name == inner and grant.offers(one.name):
                return Found(tool, grant, one, called_as(tool, one, offered))
        may = [called_as(tool, one, offered) for one in offered if grant.offers(one.name)]
        raise errors.NotFound(
            f"no tool {json.dumps(called[:200])} among those that this agent is granted",
            hint=kinds.did_you_mean(called, may, "tools") if may else "",
            field="params.name",
        )

    async def granted(self, guest: Guest, seconds: float) -> tuple[list[Found], dict[str, str]]:
        """All that it may call; and Tools that could not be asked within that time, with why."""
        grants = granting.grants(guest.spec)
        asked = await asyncio.gather(*(self._of_grant(guest, one, seconds) for one in grants))
        found, refused = [], {}
        for grant, told in zip(grants, asked, strict=True):
            if isinstance(told, str):
                refused[grant.tool] = told
            else:
                found += told
        return found, refused

    async def _of_grant(self, guest: Guest, grant: granting.Grant, seconds: float) -> list[Found] | str:
        tool = self.find(guest.namespace, grant.tool)
        if tool is None:
            self._missed(guest, grant.tool)
            return "there is no such Tool"
        try:
            async with asyncio.timeout(seconds):
                offered = await self.offers(tool, guest)
        except TimeoutError:
            return f"it did not say within {seconds:g} s what it offers"
        except errors.AgentkError as error:
            return _why(error)
        may = [one for one in offered if grant.offers(one.name)]
        return [Found(tool, grant, one, called_as(tool, one, offered)) for one in may]

    # asking

    async def _fingerprint(self, tool: Object) -> str:
        own = await self.kind(tool).fingerprint(tool)
        return f"{tool['metadata'].get('generation')}-{own}"

    async def _discover(self, tool: Object, guest: Guest | None, fingerprint: str) -> tuple[Offered, ...]:
        uid = words.uid(tool)
        try:
            told = tuple(await self.kind(tool).discover(tool, guest))[: offers.OFFERS]
        except (errors.AgentkError, offers.Unusable) as failure:
            error = failure if isinstance(failure, errors.AgentkError) else _unusable(tool, failure)
            self._known.pop(uid, None)
            wait = self._patience.failed(uid, fingerprint, error)
            again = stores.now_text(wait) if wait else None
            await self._tell(tool, {"lastError": _why(failure), "nextTryTime": again})
            raise error from None
        self._known[words.uid(tool)] = _Known(fingerprint, told)
        self._ring()
        self._patience.forget(words.uid(tool))
        await self._tell(tool, {"lastError": "", "nextTryTime": None, **status_of(told, fingerprint)})
        return told

    async def _tell(self, tool: Object, told: dict[str, Any]) -> None:
        try:
            await self._set_status(tool, told)
        except errors.AgentkError as error:
            _log.warning("the status of Tool %s could not be written: %s", words.name(tool), error)

    def _asked(self, at: str, done: "asyncio.Task[tuple[Offered, ...]]") -> None:
        self._asking.pop(at, None)
        if not done.cancelled():
            done.exception()  # whoever asked has heard it, if anybody still listens


def _unusable(tool: Object, why: offers.Unusable) -> errors.AgentkError:
    return errors.Invalid(
        f'Tool "{words.name(tool)}" cannot be used: {why}',
        hint=f"agentk tool test {words.name(tool)} -n {words.namespace(tool)}",
    )


def called_as(tool: Object, offered: Offered, among: Sequence[Offered]) -> str:
    return words.name(tool) if len(among) == 1 else f"{words.name(tool)}{BETWEEN}{offered.name}"


def status_of(told: Sequence[Offered], fingerprint: str) -> dict[str, Any]:
    """As a Tool's status keeps it: with schemas where they fit."""
    tools = []
    for one in told:
        entry: dict[str, Any] = {"name": one.name, "digest": one.digest, "inputSchema": one.input_schema}
        entry["description"] = one.description.encode()[:_TOLD_BYTES].decode("utf-8", "ignore")
        if one.output_schema is not None:
            entry["outputSchema"] = one.output_schema
        tools.append(entry)
    if len(json.dumps(tools)) > _STATUS_BYTES:
        tools = [{key: one[key] for key in ("name", "description", "digest")} for one in tools]
    return {"tools": tools, "offers": len(tools), "digest": fingerprint}


def _of_status(tool: Object, fingerprint: str) -> tuple[Offered, ...] | None:
    """What an earlier daemon wrote there, when it is whole and of the same."""
    status = tool.get("status") or {}
    if status.get("digest") != fingerprint or "tools" not in status or status.get("lastError"):
        return None
    made = []
    for one in status["tools"]:
        if "inputSchema" not in one:
            return None
        try:
            again = offers.offered(
                one.get("name"), one.get("description"), one["inputSchema"], one.get("outputSchema")
            )
        except offers.Unusable:
            return None
        if again.digest != one.get("digest"):
            return None  # its description was cut: ask again
        made.append(again)
    return tuple(made)


def _why(error: Exception) -> str:
    """With what to do about it, where that is known."""
    if not isinstance(error, errors.AgentkError):
        return str(error)[:_ERROR_CHARS]
    return (f"{error.message}; {error.hint}" if error.hint else error.message)[:_ERROR_CHARS]


def _readings(called: str) -> list[tuple[str, str]]:
    """TOOL__NAME, TOOL/NAME or TOOL."""
    for between in (BETWEEN, "/"):
        name, found, inner = called.partition(between)
        if found:
            return [(name, inner)]
    return [(called, "")]
