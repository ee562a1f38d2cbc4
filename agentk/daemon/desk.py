"""The rooms of the gate that people may look into through the control API, and whom a question is about.

Everything here reads, but `add`, by which people give more to a budget, `answers`, by which they answer an Approval,
and `call`, by which their programs ask as agents do.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentk.api import errors, kinds
from agentk.broker import policy_rules as ruling
from agentk.broker.approving_answers import Answers
from agentk.broker.budgets import Budgets
from agentk.broker.guests import Guests
from agentk.broker.methods import Method
from agentk.broker.running import Emit
from agentk.broker.words import Amount, Call, Guest
from agentk.daemon import calls
from agentk.daemon.contexthouse import Windows
from agentk.store import journal_calls
from agentk.store.journal import Journal

Object = dict[str, Any]

_SPENT_MAX = 4096  # agents whose use is remembered; the next question reads it anew


@dataclass(frozen=True)
class Desk:
    journal: Journal
    budgets: Budgets
    guests: Guests
    methods: Mapping[str, Method]
    rules: Callable[[Guest], ruling.Rules]
    path: Callable[[Guest], tuple[str, ...]]  # the budgets that a call of a guest counts for, outermost first
    add: Callable[
        [str, Amount, float], Awaitable[None]
    ]  # more for a budget, tokens and wall seconds; durable
    now: Callable[[], float]  # the clock of the budgets
    call: Callable[[Call, Emit], Awaitable[Any]]  # the gate itself, for programs of the owner
    answers: Answers  # to Approvals
    # What each agent used, so that asking again reads only what is new; lost with the daemon, and then read anew.
    spent: dict[str, journal_calls.Spent] = field(default_factory=dict)
    windows: Windows | None = None  # what models are shown of conversations


def of(call: calls.Call) -> Desk:
    """The desk of the daemon that was called. Raises Unavailable when it has no gate."""
    return there(call.services.desk)


def there(desk: Desk | None) -> Desk:
    if desk is None:
        raise errors.Unavailable("this daemon has no gate")
    return desk


async def agent(call: calls.Call) -> Object:
    """The Agent object of a path. Raises NotFound."""
    return await call.store.get(kinds.AGENT, call.target.namespace, call.target.name)


async def uid(call: calls.Call) -> str:
    """Whose records are meant: of the agent of that name, or of the last one that bore it. Raises NotFound."""
    if asked := call.query.get("uid"):
        return asked
    try:
        return str((await agent(call))["metadata"]["uid"])
    except errors.NotFound:
        namespace, name = call.target.namespace, call.target.name
        found = await of(call).journal.read_apart(lambda conn: journal_calls.uids(conn, namespace, name))
        if not found:
            raise
        return found[0]


def guest(desk: Desk, obj: Object) -> Guest:
    """Who an agent is to the gate, whether it runs or not. Raises Forbidden when its Policy does not exist."""
    attempt = max(1, int((obj.get("status") or {}).get("attempt") or 1))
    return desk.guests.find(f"{obj['metadata']['uid']}-{attempt}")


async def spent(desk: Desk, agent_uid: str) -> journal_calls.Spent:
    """What an agent used, ever. Cheap when asked again and again."""
    had = desk.spent.get(agent_uid)
    told = await desk.journal.read_apart(lambda conn: journal_calls.spent(conn, agent_uid, had))
    if len(desk.spent) >= _SPENT_MAX:
        desk.spent.clear()
    desk.spent[agent_uid] = told
    return told
