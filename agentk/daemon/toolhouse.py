"""The tools of agents, built once: the Tools there are, who does each kind of them, and the boxes of their own.

A kind of tool is a line here. What of it goes on in the background is run by `run`, which the gatehouse keeps.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agentk.api import errors, kinds, toolspecs
from agentk.broker.calling import tooling
from agentk.broker.methods import Method
from agentk.broker.tooling import (
    commands,
    counting,
    delegating,
    instances,
    mcp_servers,
    mcps,
    pythons,
    requesting,
    running,
    senders,
    shelf,
)
from agentk.broker.tooling import kinds as words
from agentk.broker.words import Guest
from agentk.runtime import hands
from agentk.store import store as stores
from agentk.tools import mcp_worker
from agentk.tools.offers import Offered

if TYPE_CHECKING:
    from agentk.daemon.gatehouse import Gatehouse

_log = logging.getLogger(__name__)

Object = Mapping[str, Any]
_AT_ONCE = frozenset(
    {"command", "http", "agent"}
)  # kinds of which nothing has to be started to know what they offer

_NAMES_TOLD = 5  # of tools that drifted


class Toolhouse:
    def __init__(self, house: "Gatehouse", now: Callable[[], float]) -> None:
        self._store, self._execute, self._guests = house.store, house.boxes.exec, house.guests
        self.instances = instances.Instances(house.store, house.guests, self._all, self._tell, now)
        runner = running.Runner(house.boxes.exec, self.instances)
        self._worker = mcp_worker.Worker()
        rooms = mcp_servers.Rooms(
            self._worker,
            hands.Hands(house.boxes),
            self.instances,
            house.fetcher,
            lambda box_id, line: house.sayings.write(box_id, line),
        )
        self._mcps = mcps.Mcps(mcp_servers.Servers(rooms), self._tell, self._now)
        self._requests = requesting.Requests(house.fetcher, house.rules, house.store, house.secrecy.value)
        self._delegates = delegating.Delegates(house.store, house.guests, house.accounts.remember)
        self.kinds: dict[str, words.Kind] = {
            "command": commands.Commands(runner),
            "python": pythons.Pythons(runner, house.store),
            "http": self._requests,
            "mcp": self._mcps,
            "agent": self._delegates,
        }
        self.shelf = shelf.Shelf(self.kinds, self._tell, missed=self._missing)
        self._missed: dict[str, set[str]] = {}  # by uid of an agent: Tools that it was told are not there
        self._noting: set[asyncio.Task[None]] = set()
        self.counts = counting.Counts(house.journal, house.guests.of)
        self._telling = asyncio.Lock()
        self._news: dict[str, Object] = {}  # by uid
        self._heard = asyncio.Event()

    def methods(self) -> dict[str, Method]:
        return tooling.methods(shelf=self.shelf, execute=self._execute, counts=self.counts)

    def forms(self) -> dict[str, Method]:
        return tooling.forms(shelf=self.shelf)

    async def offers_now(self, tool: Object, anew: bool = False) -> tuple[Offered, ...]:
        """For a person, whom no pause after failures holds up. `anew`: whatever is known."""
        self._mcps.hurry(words.uid(tool))
        return await (self.shelf.again(tool) if anew else self.shelf.offers(tool, None, at_once=True))

    def command(self, guest: Guest, called: str) -> Object | None:
        """What a tool that the guest may call makes a command of; None of one of another kind."""
        try:
            tool, _, _ = self.shelf.split(guest, called)
        except errors.NotFound:
            return None
        found: Object | None = tool["spec"].get("command")
        return found

    # what goes on by itself

    def hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        """After `Guests.hear`."""
        self.shelf.hear(kind, obj, gone)
        if gone and kind is kinds.AGENT:
            self._missed.pop(words.uid(obj), None)
        if gone and kind is kinds.TOOL:
            self._mcps.forget(words.uid(obj))
            self._requests.forget(words.uid(obj))
        elif kind is kinds.TOOL and toolspecs.kind(obj["spec"]) in _AT_ONCE and _is_news(obj):
            self._look(obj)
        elif kind is kinds.SECRET:
            for tool in self._all():
                if "http" in tool["spec"] and _uses(tool, obj):
                    self._look(tool)

    def _look(self, tool: Object) -> None:
        self._news[words.uid(tool)] = tool
        self._heard.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.instances.run(), name="tools: boxes")
            group.create_task(self._describe(), name="tools: what they offer")
            group.create_task(self._delegates.run(), name="tools: agents that were asked")

    async def _describe(self) -> None:
        """What the manifest alone says is in the status before anybody asks, and so is what is wrong with it."""
        while True:
            await self._heard.wait()
            self._heard.clear()
            while self._news:
                _, tool = self._news.popitem()
                try:
                    await self.shelf.offers(tool, None)
                except errors.AgentkError:
                    continue  # its status tells
                except Exception:  # noqa: BLE001 — whatever somebody wrote into one Tool, the others are looked at
                    _log.exception("what Tool %s offers cannot be told", words.name(tool))

    async def close(self) -> None:
        await self.shelf.close()
        await self._mcps.close()
        await self._worker.close()

    def _missing(self, guest: Guest, tool: str) -> None:
        """Once an agent and Tool: whoever looks at the agent sees it. No more names than its spec has."""
        agent = self._guests.of(guest.uid)
        if agent is None or tool in self._missed.get(guest.uid, ()):
            return
        self._missed.setdefault(guest.uid, set()).add(tool)
        message = f'spec.tools names Tool "{tool}", and there is none in namespace "{guest.namespace}"'
        noting = asyncio.create_task(
            self._note(agent, "ToolNotFound", message), name=f"missing tool of {guest.name}"
        )
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)

    async def _note(self, obj: Object, reason: str, message: str) -> None:
        with contextlib.suppress(errors.AgentkError):
            now = stores.now_text()
            await self._store.record_event(obj, "Warning", reason, message, now, "agentk-gate")

    def _all(self) -> list[Object]:
        return self.shelf.all()

    def _now(self, tool: Object) -> Object:
        """The Tool as it is by now."""
        found = self._tool(words.namespace(tool), words.name(tool))
        return found if found is not None and words.uid(found) == words.uid(tool) else tool

    def _tool(self, namespace: str, name: str) -> Object | None:
        found = self.shelf.find(namespace, name)
        return found if found is not None and words.namespace(found) == namespace else None

    async def _tell(self, tool: Object, told: dict[str, Any]) -> None:
        """Part of a Tool's status, with the rest as it is."""
        at = words.namespace(tool), words.name(tool)
        async with self._telling:
            there = await self._store.find(kinds.TOOL, *at)
            if there is None or there["metadata"]["uid"] != words.uid(tool):
                return
            status = {**(there.get("status") or {}), **told}
            status = {key: value for key, value in status.items() if value is not None}
            status["observedGeneration"] = tool["metadata"].get("generation")
            status["conditions"] = _conditions(there, status)
            await self._store.set_status(kinds.TOOL, *at, words.uid(tool), status)
            if _pinned(status) == "False" and _pinned(there.get("status") or {}) != "False":
                # Always in the same words: however often a server turns, it is one Event that counts.
                drift = f"it lists other tools than were pinned: agentk tool accept {words.name(tool)}"
                await self._note(there, "ToolDrift", drift)


def _pinned(status: Mapping[str, Any]) -> str:
    found = (one["status"] for one in status.get("conditions") or () if one["type"] == "Pinned")
    return str(next(found, "Unknown"))


def _uses(tool: Object, secret: Object) -> bool:
    metadata = secret["metadata"]
    names = {one["name"] for one in senders.secrets(tool["spec"]["http"])}
    return words.namespace(tool) == metadata["namespace"] and metadata["name"] in names


def _is_news(tool: Object) -> bool:
    return bool((tool.get("status") or {}).get("observedGeneration") != tool["metadata"].get("generation"))


def _conditions(tool: Object, status: Mapping[str, Any]) -> list[dict[str, Any]]:
    wrong = str(status.get("lastError") or "")
    asked = wrong or "offers" in status
    reason, message = "Offered", f"offers {status.get('offers', 0)}"
    if wrong:
        again = (
            f" (asked again by its first use after {status['nextTryTime']})"
            if "nextTryTime" in status
            else ""
        )
        reason, message = "CannotBeUsed", wrong + again
    if not asked:
        reason, message = "NotAsked", "what it offers is asked for by its first use"
    told = [_condition(tool, status, "Ready", not wrong if asked else None, reason, message)]
    if "mcp" in tool["spec"] and "pins" in status:
        drift = [str(one["name"]) for one in status.get("drift") or ()]
        names = ", ".join(drift[:_NAMES_TOLD]) + (" …" if len(drift) > _NAMES_TOLD else "")
        message = f"not as pinned: {names}; agentk tool accept {words.name(tool)}" if drift else "as pinned"
        told.append(
            _condition(tool, status, "Pinned", not drift, "ToolDrift" if drift else "AsPinned", message)
        )
    return told


def _condition(
    tool: Object, status: Mapping[str, Any], kind: str, holds: bool | None, reason: str, message: str
) -> dict[str, Any]:
    made = {
        "type": kind,
        "status": "Unknown" if holds is None else str(holds),
        "reason": reason,
        "message": message,
        "observedGeneration": status["observedGeneration"],
        "lastTransitionTime": stores.now_text(),
    }
    conditions = (tool.get("status") or {}).get("conditions") or ()
    before: Object = next((one for one in conditions if one.get("type") == kind), {})
    if before.get("status") == made["status"]:
        made["lastTransitionTime"] = before.get("lastTransitionTime", made["lastTransitionTime"])
    return made
