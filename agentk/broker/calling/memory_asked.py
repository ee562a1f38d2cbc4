"""What a call of the memory asks for: the page it makes, whose pages it means, what they have to be. Pure.

What a guest wrote is read here into the words of `memory/`; names of others mean rooms that it may enter, or none.
"""

import hashlib
import json

from agentk.api import errors
from agentk.broker import memories
from agentk.broker.memories import Standing
from agentk.broker.methods import Params
from agentk.broker.words import Guest
from agentk.memory import keeping, pages, tokens
from agentk.memory.pages import Page


def page_of(guest: Guest, key: str, params: Params) -> Page:
    """The same page for the same call, so that one of unknown outcome can be made again."""
    text = params["content"]
    made = pages.new_id()
    if key:
        seed = json.dumps([guest.uid, guest.attempt, key]).encode("utf-8", "backslashreplace")
        made = f"p{hashlib.sha256(seed).hexdigest()[:16]}"
    content = text.encode("utf-8", "replace")
    return keeping.fresh(
        params["kind"],
        content.decode(),
        max(1, tokens.estimate(content)),
        id=made,
        unit=made,
        content=content,
        name=same(params["name"]),
        tags=tuple(params["tags"]),
        importance=float(params["importance"]),
        pinned=params["pinned"],
    )


def same(name: str) -> str:
    """A name as it is kept. Raises BadRequest."""
    try:
        return pages.name_of(name)
    except pages.Unusable as error:
        raise errors.BadRequest(str(error), field="params.name") from None


def other(standing: Standing, there: list[keeping.Room], name: str) -> keeping.Room:
    for room in standing.writable(there):
        if memories.name_of(room.owner) == name:
            return room
    raise errors.NotFound(
        f"no agent {json.dumps(name[:100])} for which this one may remember",
        hint="spec.sharing of the Memory says who shares it, and whether to write",
        field="params.agent",
    )


def chosen(standing: Standing, rooms: list[keeping.Room], params: Params) -> list[keeping.Room]:
    """By the caller's own name its own room alone is meant, whatever others are called."""
    if (wanted := params.get("agents")) is None:
        return rooms
    meant = {memories.name_of(standing.owner): standing.owner}
    named = ((one, memories.name_of(one.owner)) for one in rooms)
    return [one for one, name in named if name in wanted and meant.get(name, one.owner) == one.owner]


def filter_of(params: Params) -> keeping.Filter:
    return keeping.Filter(
        tuple(params.get("kinds") or ()),
        tuple(params.get("tags") or ()),
        params.get("since"),
        params.get("until"),
    )
