"""Who does which call: every handler with the rooms it needs, and nothing more.

A handler that lands is a line here.
"""

import asyncio
import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agentk.broker.calling import (
    agents,
    asking,
    basics,
    events,
    execing,
    fetching,
    locks,
    memory,
    messages,
    passing,
    pausing,
    proxying,
    queues,
    skills,
    state,
    thinking,
)
from agentk.broker.dialects import agentos, agentos_session, serving_http, serving_mcp, serving_proxy
from agentk.broker.dialects.frames_serving import FramesService
from agentk.broker.dialects.http import HttpService
from agentk.broker.dialects.jsonrpc import Room
from agentk.broker.methods import Method
from agentk.control import exits
from agentk.daemon import contexthouse
from agentk.store import journal_reading
from agentk.store import journal_words as entries

if TYPE_CHECKING:
    from agentk.daemon.gatehouse import Gatehouse


def methods(house: "Gatehouse") -> dict[str, Method]:
    """Every call this gate answers, by name."""
    return {
        **thinking.methods(models=house.models, left=house.left, managing=house.contexts),
        **execing.methods(execute=house.boxes.exec, jobs=house.jobs, stay=house.sessions),
        **fetching.methods(fetcher=house.fetcher, rules=house.rules),
        **basics.methods(
            version=house.version,
            names=lambda: list(house.methods),
            write=house.sayings.write,
            agent=house.guests.of,
        ),
        **messages.methods(
            journal=house.journal, waiting=house.waiting, guests=house.guests, rules=house.rules
        ),
        **asking.methods(),
        **state.methods(journal=house.journal, now=house.waiting.now),
        **locks.methods(journal=house.journal, waiting=house.waiting),
        **queues.methods(journal=house.journal, waiting=house.waiting),
        **events.methods(journal=house.journal, waiting=house.waiting),
        **pausing.methods(store=house.store, guests=house.guests),
        **house.tools.methods(),
        **memory.methods(
            db=house.memory.db,
            known=house.memory.known,
            embedders=house.memory.embedders,
            erase=house.memory.erase,
            changed=lambda memory: house.memory.source.changed(memory),
        ),
        **skills.methods(store=house.store, shelf=house.skills, execute=house.boxes.exec),
        **agents.methods(
            store=house.store,
            guests=house.guests,
            said=house.exits,
            stop=lambda guest: house.lives.wake(guest.uid),
            spawned=house.accounts.remember,
        ),
    }


def forms(house: "Gatehouse") -> dict[str, Method]:
    """The same calls in the words of OpenAI and Anthropic, of a proxy's clients, of AgentOS, and of MCP."""
    return {
        **passing.forms(models=house.models, left=house.left, managing=house.contexts),
        contexthouse.FOLD: thinking.methods(models=house.models, left=house.left, managing=house.contexts)[
            "think"
        ],
        **proxying.forms(fetcher=house.fetcher, dialer=house.dialer),
        **execing.forms(execute=house.boxes.exec, jobs=house.jobs, stay=house.sessions),
        **house.tools.forms(),
    }


def http(house: "Gatehouse", box_id: str) -> HttpService:
    """What speaks HTTP with the guest of one box."""
    guest = functools.partial(house.guests.find, box_id)
    proxy = serving_proxy.handler(house.gate, guest, house.fetcher, house.authorities.context)
    models = serving_http.handler(house.gate, guest, house.journal.left_behind)
    changes = serving_mcp.Changes(
        lambda: _listening(house, guest().uid), lambda: house.tools.shelf.state(guest())
    )
    handler = serving_mcp.handler(house.gate, guest, house.version, models, changes)
    return HttpService(handler, proxy, still=lambda: house.lives.still.stands(box_id.rpartition("-")[0]))


@contextlib.contextmanager
def _listening(house: "Gatehouse", uid: str) -> Iterator[asyncio.Event]:
    """Set whenever the agent or a Tool is heard of."""
    with house.guests.listening(uid) as bell, house.tools.shelf.ringing(bell):
        yield bell


def kernel(house: "Gatehouse", version: str) -> agentos_session.Kernel:
    """What every AgentOS session of this gate shares."""

    async def audit(uids: list[str], after: int, limit: int) -> list[entries.Record]:
        return await house.journal.read_apart(
            lambda conn: journal_reading.newest(conn, uids, after=after, limit=limit)
        )

    async def counters(box_id: str) -> dict[str, int]:
        return exits.counters(await house.boxes.counters(box_id))

    return agentos_session.Kernel(
        house.gate.call, house.guests, house.rules, audit, counters, version, house.happenings.note
    )


def frames(house: "Gatehouse", box_id: str, room: Room) -> FramesService:
    """What speaks AgentOS frames with the guest of one box."""
    return agentos.service(house.agentos, functools.partial(house.guests.find, box_id), room)
