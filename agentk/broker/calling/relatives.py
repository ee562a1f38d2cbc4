"""Whom the calls of one agent about another may mean: itself and what it spawned, by name.

Who is not of the family is not there, whether it exists or not: nothing here tells the two apart.
"""

from collections.abc import Mapping
from typing import Any

from agentk.broker import policy
from agentk.broker.guests import Guests
from agentk.broker.words import Guest

MANAGER = "agentk-gate"  # owner of the fields that agents write of one another

Object = Mapping[str, Any]


def named(guests: Guests, guest: Guest, name: str) -> Object | None:
    """The agent of that name, when it is the guest itself or one that it spawned, directly or not."""
    found = guests.named(guest.namespace, name)
    if found is None:
        return None
    uid = found["metadata"]["uid"]
    return found if uid == guest.uid or guest.uid in guests.parents(uid) else None


def facts(guests: Guests, guest: Guest, name: str) -> policy.Facts:
    """Of a call about such an agent. Any other counts as a descendant that is gone."""
    agent = named(guests, guest, name)
    uid = agent["metadata"]["uid"] if agent else ""
    parents = () if uid == guest.uid else (guest.uid,)
    relations = policy.related(guest, guest.namespace, uid, parents)
    return policy.Facts(target=f"{guest.namespace}/{name}", relations=relations)
