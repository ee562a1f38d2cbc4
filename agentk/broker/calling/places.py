"""Whose things are whose, and how values are kept: what every call on guests' state shares.

A guest names a scope by a word; which rows that is follows from who it is, never from what it says.
"""

import json
import secrets
from datetime import UTC, datetime
from typing import Any

from agentk.broker.words import Guest


def scope(guest: Guest, word: str) -> str:
    """The rows that `word` (attempt, agent, family) means for this guest."""
    if word == "attempt":
        return f"attempt/{guest.uid}/{guest.attempt}"
    if word == "agent":
        return f"agent/{guest.uid}"
    return family(guest.uid, guest.parents)


def family(uid: str, parents: tuple[str, ...]) -> str:
    """Shared with the first agent above that nobody spawned, and all below it."""
    return f"family/{parents[-1] if parents else uid}"


def mailbox(uid: str) -> str:
    return f"mail/{uid}"


def new_id() -> str:
    """Tells nothing, neither how many there were before nor whose they were."""
    return secrets.token_hex(16)


def kept(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def shown(data: bytes) -> Any:
    return json.loads(data)


def moment(seconds: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def optional(**fields: Any) -> dict[str, Any]:
    """Without what there is none of."""
    return {key: value for key, value in fields.items() if value is not None}
