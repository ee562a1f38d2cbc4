"""What a turn of a managed conversation reads and keeps: one read before it, and one transaction for all it changed."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from agentk.broker import crash
from agentk.broker.words import Guest
from agentk.memory import contexts, continuing, keeping, pages, turning
from agentk.memory import window as windows
from agentk.memory.driver import Conn
from agentk.memory.keeping import Limits, Room
from agentk.memory.layout import Prompt
from agentk.memory.messages import Request
from agentk.memory.turning import Turn
from agentk.memory.window import Window

T = TypeVar("T")
_AT_ONCE = 32  # pages
Heard = Callable[[str], None]  # of a call of the journal that has words of a conversation


@dataclass(frozen=True)
class Place:
    """Where an agent's pages are kept."""

    memory: str
    owner: str
    account: str
    limits: Limits

    @property
    def whose(self) -> str:
        """Who takes turns with others at the memory."""
        return f"{self.memory}/{self.account}"


class Keeper(Protocol):
    """The agents' memory, as managed context needs it."""

    def place(self, guest: Guest) -> Place: ...
    async def read(self, work: Callable[[Conn], T]) -> T: ...
    async def write(self, work: Callable[[Conn], T], whose: str = "") -> T: ...

    def kept(self, guest: Guest, place: Place) -> None: ...

    async def vectors(self, guest: Guest, texts: Sequence[str]) -> Sequence[keeping.Vector | None]:
        """Of pages that are kept now; None: it is embedded later."""

    async def near(self, guest: Guest, text: str, least: float, heard: Heard) -> Mapping[str, float]:
        """Pages that mean something like this, by id; empty when only words are known. `heard` is told of a call that
        asked."""


@dataclass
class Turned:
    """One turn, worked out and not yet kept."""

    place: Place
    request: Request
    counter: str
    before: contexts.Known | None
    grown: Window
    fresh: int
    turn: Turn
    window: Window
    prompt: Prompt
    note: tuple[str, str] = ("", "")  # id and text
    wanted: tuple[str, ...] = ()  # pages that the agent asked for


async def save(keeper: Keeper, guest: Guest, turned: Turned, budget: int, now: float) -> int:
    """Its number, once all of it is on the disk. Raises Full."""
    request = turned.request
    fresh = turned.window.slots[len(turned.window.slots) - turned.fresh :]
    said = request.said[len(request.said) - turned.fresh :]
    made = list[pages.Page]()
    for at, (slot, told) in enumerate(zip(fresh, said, strict=True), 1):
        made.append(_page(slot, told.content, told.text, now))
        if not at % _AT_ONCE:  # others wait on this loop
            await asyncio.sleep(0)
    if turned.note[0]:
        note = turned.window.notes[-1]
        made.append(_page(note, turned.note[1].encode(), turned.note[1], now))
    vectors = await keeper.vectors(guest, [page.text for page in made])

    def work(conn: Conn) -> int:
        room = keeping.room(conn, turned.place.memory, turned.place.owner, turned.place.account)
        _make_room(conn, room, made, turned)
        for page, vector in zip(made, vectors, strict=True):
            keeping.put(conn, room, page, turned.place.limits, vector=vector)
        number = contexts.save(
            conn,
            room.id,
            turned.before,
            turned.window,
            now,
            budget=budget,
            fixed=request.fixed,
            counter=turned.counter,
        )
        contexts.had(conn, room.id, turned.wanted)
        contexts.let_go(conn, room.id, but=number)
        faults = sum(slot.faults for slot in turned.window.slots) - sum(
            slot.faults for slot in turned.grown.slots
        )
        keeping.count(conn, room.id, {"faults": faults, "evictions": len(turned.turn.left)})
        crash.crashpoint("context.written")
        return number

    crash.crashpoint("context.keeping")
    number = await keeper.write(work, turned.place.whose)
    keeper.kept(guest, turned.place)
    return number


@dataclass(frozen=True)
class Found:
    """What is known of a conversation: its window, and the request as it goes on from it."""

    request: Request
    known: contexts.Known | None = None
    texts: Mapping[str, str] = field(default_factory=dict)  # of notes
    wanted: tuple[str, ...] = ()  # pages that the agent asked for
    loaded: frozenset[str] | None = (
        None  # of pages that are not said any more, those that may be shown; None: all
    )


def found(conn: Conn, place: Place, request: Request) -> Found:
    room = keeping.find(conn, place.memory, place.owner)
    if room is None:
        return Found(request)
    known = contexts.find(conn, room.id, [said.chain for said in request.said])
    loaded: frozenset[str] | None = None
    if known is None or turning.repeated(known.window, request.said) < len(known.window.slots):
        request, known, loaded = _trimmed(conn, room, request, known)
    if known is None:
        return Found(request)
    notes = contexts.texts(conn, room.id, [note.id for note in known.window.notes if note.resident])
    return Found(request, known, notes, contexts.wanted(conn, room.id), loaded)


def _trimmed(
    conn: Conn, room: Room, request: Request, before: contexts.Known | None
) -> tuple[Request, contexts.Known | None, frozenset[str] | None]:
    """A client that cut its list, or said a summary in place of its front, goes on with its window."""
    several = [
        (known, joined)
        for known in contexts.ended(conn, room.id, {said.digest for said in request.said})
        if (joined := continuing.joined(known.window, request.said))
    ]
    at = continuing.chosen([(known.window, joined) for known, joined in several])
    if at is None:
        return request, before, None
    known, joined = several[at]
    ids = continuing.unsaid(known.window, joined)
    kept = {
        page.id: page
        for start in range(0, len(ids), keeping.LISTED)
        for page in keeping.get(conn, [room.id], ids[start : start + keeping.LISTED])
    }
    return continuing.whole(request, known.window, joined, kept), known, frozenset(kept)


def _make_room(conn: Conn, room: Room, made: Sequence[pages.Page], turned: Turned) -> None:
    """Older conversations go before this one is not kept; pages that were remembered on purpose never do."""
    limits = turned.place.limits
    size = sum(pages.size(page) for page in made)
    most = contexts.KEPT
    while most > 1 and (room.pages + len(made) > limits.pages or room.bytes + size > limits.bytes):
        most //= 2
        contexts.let_go(conn, room.id, most, but=turned.before.id if turned.before else 0)
        room = keeping.room(conn, room.memory, room.owner, room.account)


def _page(slot: windows.Slot, content: bytes, text: str, now: float) -> pages.Page:
    return pages.Page(
        id=slot.id,
        kind=slot.kind,
        content=content,
        text=text.encode("utf-8", "replace").decode(),
        tokens=slot.tokens,
        importance=slot.importance,
        accesses=0,
        created=now,
        used=now,
        seq=0,
        unit=slot.unit,
        pinned=slot.pinned,
        name="",
        tags=("context",),
    )
