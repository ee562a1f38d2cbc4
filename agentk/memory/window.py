"""The window of one conversation: which pages a model sees, which wait outside, and who leaves first. Pure.

Nothing here holds a text: a window knows of each page its size, its place and its worth. Each step takes a window and
returns another, the same one for the same words and clock. What is pinned never leaves, what belongs together leaves
together, and a window that cannot be kept below its budget is refused, never sent.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agentk.memory import scoring

BLOCK_TOKENS = 32  # what stands around pages that are quoted in one place: `layout.QUOTE`, as a message
RECAP_TOKENS = 40  # and around the notes: `layout.RECAP`
TURNS = 6  # that shall have room before pages leave again
_LOOKED_AT = 16  # messages that say how large a turn is: two each


class TooSmall(Exception):
    """What must be shown does not fit. `needed` and `budget` are tokens."""

    def __init__(self, needed: int, budget: int) -> None:
        super().__init__(f"what cannot leave has {needed} tokens, and the budget is {budget}")
        self.needed, self.budget = needed, budget


@dataclass(frozen=True, slots=True)
class Slot:
    """One page as its window sees it."""

    id: str
    kind: str
    digest: bytes  # of what was said: how a message is known again
    chain: bytes  # of this and everything before it; b"" for a note
    tokens: int
    quoted: int  # tokens when it is quoted
    importance: float
    seq: int
    unit: str
    used: float
    pinned: bool = False
    media: bool = False  # cannot be quoted in words
    resident: bool = True
    at: int = 0  # quoted before the page of this seq, since it was brought back; 0: in its own place
    note: str = ""  # id of the episode that tells of it
    accesses: int = 0
    faults: int = 0
    evictions: int = 0
    score: float = 0.0  # when it last left


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a window may hold, in tokens as they are counted here."""

    tokens: int
    low: float = 0.94  # once it is full it is emptied to here at most, so that the next prompts only grow;
    lowest: float = 0.75  # to here at least, and between them so that the next turns have room
    recap: float = 0.15  # of it for notes
    recalled: float = 0.25  # of it for what one turn brings back
    threshold: float = 0.35  # likeness from which a page is worth a fault
    note_tokens: int = 256  # of one note

    @property
    def note(self) -> int:
        return max(32, min(self.note_tokens, int(self.tokens * self.recap) - RECAP_TOKENS))


@dataclass(frozen=True, slots=True)
class Window:
    slots: tuple[Slot, ...] = ()  # the conversation, in its order
    notes: tuple[Slot, ...] = ()  # what tells of what left, in the same order
    last: tuple[tuple[bytes, int], ...] = ()  # the last prompt: digest and tokens of each part
    counts: Mapping[str, int] = field(default_factory=dict)


def counted(window: Window, **more: int) -> Window:
    counts = dict(window.counts)
    for name, number in more.items():
        counts[name] = counts.get(name, 0) + number
    return replace(window, counts=counts)


def size(window: Window) -> int:
    """Tokens of what a model would see of it."""
    return sum(spans(window).values())


def spans(window: Window) -> dict[str, int]:
    """The same by what it is spent on."""
    own = sum(slot.tokens for slot in window.slots if slot.resident and not slot.at)
    back = [slot for slot in window.slots if slot.resident and slot.at]
    notes = [note for note in window.notes if note.resident]
    return {
        "messages": own,
        "recalled": sum(slot.quoted for slot in back) + BLOCK_TOKENS * len({slot.at for slot in back}),
        "notes": sum(note.tokens for note in notes) + (RECAP_TOKENS if notes else 0),
    }


def units(slots: Iterable[Slot]) -> dict[str, list[Slot]]:
    """In the order in which they begin."""
    found: dict[str, list[Slot]] = {}
    for slot in slots:
        found.setdefault(slot.unit, []).append(slot)
    return found


def held(window: Window, also: Iterable[str] = ()) -> set[str]:
    """Units that must not leave now: pinned ones, the newest, and the one of the newest user's message."""
    keep = {slot.unit for slot in window.slots if slot.pinned or slot.kind == "system"} | set(also)
    if window.slots:
        keep.add(window.slots[-1].unit)
        keep.update(next(([slot.unit] for slot in reversed(window.slots) if slot.kind == "user"), []))
    return keep


def scores(
    window: Window,
    alike: Mapping[str, float],
    now: float,
    weights: scoring.Weights,
    halves: scoring.HalfLives,
) -> dict[str, scoring.Score]:
    """Of every page of the conversation, by id."""
    end = window.slots[-1].seq if window.slots else 0
    return {
        slot.id: scoring.score(
            age_seconds=now - slot.used,
            age_pages=end - (slot.at or slot.seq),
            importance=slot.importance,
            accesses=slot.accesses,
            similarity=alike.get(slot.id, 0.0),
            weights=weights,
            halves=halves,
        )
        for slot in window.slots
    }


def evicted(
    window: Window, bounds: Bounds, fixed: int, worth: Mapping[str, float], also: Iterable[str] = ()
) -> tuple[Window, tuple[str, ...]]:
    """The window within its budget, and the ids of what left. `fixed` is what is sent besides; `also` are units that
    stay this time. Raises TooSmall when what must stay does not fit."""
    if fixed + size(window) <= bounds.tokens:
        return window, ()
    keep = held(window, also)
    leaving: list[str] = []
    target = max(0, _low(window, bounds) - _growth(window, bounds))
    room = fixed + size(window)
    # Newest last among equals: of two pages worth the same the older one leaves.
    for unit, pages in sorted(
        ((unit, [one for one in pages if one.resident]) for unit, pages in units(window.slots).items()),
        key=lambda each: (max((worth.get(one.id, 0.0) for one in each[1]), default=0.0), _first(each[1])),
    ):
        if room <= target:
            break
        if not pages or unit in keep:
            continue
        leaving += [one.id for one in pages]
        room -= sum(one.quoted if one.at else one.tokens for one in pages)
    left = swapped(window, leaving, worth)
    left = without_old_notes(left, bounds, fixed)
    needed = fixed + size(left)
    if needed > bounds.tokens:
        raise TooSmall(needed, bounds.tokens)
    return left, tuple(leaving)


def _low(window: Window, bounds: Bounds) -> int:
    """Tokens that it is emptied to: the larger turns are, the more of it, or each would push out what caches have."""
    newest = [slot.tokens for slot in window.slots[-_LOOKED_AT:]]
    turns = TURNS * 2 * sum(newest) // max(1, len(newest))
    most, least = (int(bounds.tokens * part) for part in (bounds.low, bounds.lowest))
    return max(least, min(most, bounds.tokens - turns))


def _growth(window: Window, bounds: Bounds) -> int:
    """Tokens that notes may take beyond what they have, with the next one: where a recap is full older ones leave."""
    notes = [note.tokens for note in window.notes if note.resident]
    more = max(0, int(bounds.tokens * bounds.recap) - sum(notes))
    return min(bounds.note, more) + (0 if notes else RECAP_TOKENS)


def swapped(window: Window, leaving: Iterable[str], worth: Mapping[str, float]) -> Window:
    gone = set(leaving)
    slots = tuple(
        replace(
            slot,
            resident=False,
            at=0,
            evictions=slot.evictions + 1,
            score=round(worth.get(slot.id, 0.0), 6),
        )
        if slot.id in gone
        else slot
        for slot in window.slots
    )
    return counted(replace(window, slots=slots), evictions=len(gone)) if gone else window


def without_old_notes(window: Window, bounds: Bounds, fixed: int) -> Window:
    """Where there is no room for all notes, the oldest leave; they are found by who searches."""
    notes = list(window.notes)
    for place, note in enumerate(notes):
        if fixed + size(replace(window, notes=tuple(notes))) <= bounds.tokens:
            break
        if note.resident:
            notes[place] = replace(note, resident=False, evictions=note.evictions + 1)
    return replace(window, notes=tuple(notes))


def touched(window: Window, ids: Iterable[str], now: float) -> Window:
    """They were of use: an access of what is in the window."""
    wanted = set(ids)
    if not wanted:
        return window
    slots = tuple(
        replace(slot, accesses=slot.accesses + 1, used=max(now, slot.used)) if slot.id in wanted else slot
        for slot in window.slots
    )
    return replace(window, slots=slots)


def mapped(window: Window, wanted: Iterable[str], change: Callable[[Slot], Slot]) -> Window:
    ids = set(wanted)
    return replace(window, slots=tuple(change(slot) if slot.id in ids else slot for slot in window.slots))


def _first(pages: Sequence[Slot]) -> int:
    return pages[0].seq if pages else 0
