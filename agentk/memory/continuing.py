"""A conversation known again although its client does not say all of it any more. Pure.

Clients cut the front of their list to fit a model, keep their first task or not, and may say a summary of their own in
its place. Such a client goes on with its window: what it cut is in there, and pages as all of it does. It is known by
the end of its window, word for word; what two windows end with alike is nobody's, and an edit is no cut.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agentk.memory import messages, tokens
from agentk.memory.messages import Request, Said
from agentk.memory.pages import Page
from agentk.memory.window import Slot, Window

LEAST_BYTES = 200  # of messages that are said again: shorter ones may be said in any conversation
_LEAST = 2  # messages, and not only a user's
_HEAD = 2  # messages of the beginning that a client may keep: its task, and the answer to it
_SUMMARY = 2  # messages of its own in place of what it cut
_TRIED = 8  # places of a request at which a window may end
LOADED = (
    1_000  # pages that left and are not said any more: so many, the newest, are compared with what is asked
)


@dataclass(frozen=True, slots=True)
class Joined:
    """How a request and a window go together."""

    head: int  # messages that both begin with
    lead: int  # messages of the request after those that the window does not know: a summary of the client's own
    many: int  # messages at the end of the window that the request says

    def begins(self) -> int:
        """Place in the request of the first message that is of the window's end."""
        return self.head + self.lead


def joined(window: Window, said: Sequence[Said]) -> Joined | None:
    """None: it is another conversation, or an edit of this one."""
    slots = window.slots
    if not slots:
        return None
    head = 0
    while head < min(len(slots), len(said)) and slots[head].digest == said[head].digest:
        head += 1
    ends = [place for place in range(len(said) - 1, -1, -1) if said[place].digest == slots[-1].digest]
    found: list[Joined] = []
    for end in ends[:_TRIED]:
        many = 0
        while many < len(slots) and many <= end and slots[-1 - many].digest == said[end - many].digest:
            many += 1
        again = said[end - many + 1 : end + 1]
        at, begins = len(slots) - many, end - many + 1
        known = min(head, begins, at)
        one = Joined(known, begins - known, many)
        if _enough(again) and _cut(known, one.lead, at - known):
            found.append(one)
    return max(found, key=lambda one: one.many, default=None)


def _enough(again: Sequence[Said]) -> bool:
    several = len(again) >= _LEAST and any(one.kind != "user" for one in again)
    return several and sum(one.size for one in again) >= LEAST_BYTES


def _cut(head: int, lead: int, gone: int) -> bool:
    """Whether so many messages that are not said any more were cut, and not edited: an edit has one for each, and
    whoever takes one message back keeps what was before it."""
    if head > _HEAD or lead > _SUMMARY:
        return False
    return gone >= (2 if head else 1) and gone > lead


def chosen(several: Sequence[tuple[Window, Joined]]) -> int | None:
    """Which of these windows a request goes on with, by place; None when two could be meant."""
    most = max((one.many for _, one in several), default=0)
    best = [place for place, (_, one) in enumerate(several) if one.many == most]
    return best[0] if len(best) == 1 else None


def unsaid(window: Window, one: Joined) -> list[str]:
    """Pages that are not said any more and may be shown: those in the window, and the newest that left."""
    cut = window.slots[one.head : len(window.slots) - one.many]
    left = [slot.id for slot in cut if not slot.resident]
    return [*(slot.id for slot in cut if slot.resident), *left[-LOADED:]]


def whole(request: Request, window: Window, one: Joined, pages: Mapping[str, Page]) -> Request:
    """The request as if nothing had been cut. A summary of the client's own leads, and never leaves."""
    slots, begins = window.slots, one.begins()
    cut = slots[one.head : len(slots) - one.many]
    said = [*request.said[: one.head], *(_kept(slot, pages.get(slot.id)) for slot in cut)]
    again = zip(slots[len(slots) - one.many :], request.said[begins : begins + one.many], strict=True)
    said += [replace(told, chain=slot.chain) for slot, told in again]
    chain, before = slots[-1].chain, slots[-1].kind
    for told in request.said[begins + one.many :]:
        chain = messages.digest(chain + told.digest)
        # Of results whose call was cut, only the window knows.
        joins = told.joins or (told.kind == "tool" and before in ("tool", "assistant"))
        said.append(replace(told, chain=chain, joins=joins))
        before = told.kind
    lead = request.said[one.head : begins]
    return replace(
        request,
        first=(*request.first, *(told.item for told in lead)),
        said=tuple(said),
        fixed=request.fixed + sum(messages.weight(told.item, tokens.ESTIMATE) for told in lead),
        fixed_digest=messages.digest(b"".join([request.fixed_digest, *(told.digest for told in lead)])),
    )


def _kept(slot: Slot, page: Page | None) -> Said:
    """A message that was kept, as it was said."""
    return Said(
        kind=slot.kind,
        item=json.loads(page.content) if page else None,
        tokens=slot.tokens,
        quoted=slot.quoted,
        digest=slot.digest,
        chain=slot.chain,
        joins=False,
        media=slot.media,
        size=len(page.content) if page else 0,
        short=page.text if page else "",
    )
