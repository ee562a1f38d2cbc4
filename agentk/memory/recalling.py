"""What comes back into a window: by its id, or because it is like what is asked now. Pure.

A page that comes back stands where it was asked for, quoted, and not where it was said: what a provider has cached of
the prompt stays true, and what is quoted can split no call from its result. Units come back whole or not at all.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from agentk.memory import window as windows
from agentk.memory.window import Bounds, Slot, Window

SAME = 0.8  # of all words of two pages that both have: one of them says what the other does
_MANY = 8  # units that are about as like as the best: of so many none is meant
_ABOUT = 0.9

Words = Callable[[str], frozenset[str]]  # of a page, by its id


def candidates(
    window: Window, alike: Mapping[str, float], bounds: Bounds, room: int, words: Words
) -> tuple[str, ...]:
    """Units that are worth a fault, best first, as many as fit. `room` is what is free, or can be made so. What says
    only what is shown already is worth none."""
    outside = {
        unit: pages
        for unit, pages in windows.units(window.slots).items()
        if not any(page.resident for page in pages)
    }
    likeness = {unit: max(alike.get(page.id, 0.0) for page in pages) for unit, pages in outside.items()}
    best_of_all = max(likeness.values(), default=0.0)
    if sum(value >= _ABOUT * best_of_all for value in likeness.values()) > _MANY:
        return ()
    left = min(int(bounds.tokens * bounds.recalled), room) - windows.BLOCK_TOKENS
    chosen: list[str] = []
    shown = [words(slot.id) for slot in window.slots if slot.resident]
    for unit in sorted(outside, key=lambda one: (-likeness[one], -outside[one][0].seq)):
        if likeness[unit] < bounds.threshold:
            break
        best = words(max(outside[unit], key=lambda page: alike.get(page.id, 0.0)).id)
        cost = size(outside[unit])
        if cost <= left and not any(_same(best, other) for other in shown):
            chosen.append(unit)
            shown.append(best)
            left -= cost
    return tuple(chosen)


def asked_for(window: Window, pages: Iterable[str], room: int) -> tuple[str, ...]:
    """Units of the pages that were asked for by id, as many as fit, the first that was named first."""
    outside = {
        unit: several
        for unit, several in windows.units(window.slots).items()
        if not any(page.resident for page in several)
    }
    unit_of = {slot.id: slot.unit for slot in window.slots}
    left, chosen = room - windows.BLOCK_TOKENS, list[str]()
    for unit in dict.fromkeys(unit_of[page] for page in pages if page in unit_of):
        if unit in outside and (cost := size(outside[unit])) <= left:
            chosen.append(unit)
            left -= cost
    return tuple(chosen)


def size(unit: Iterable[Slot]) -> int:
    """Most tokens of a unit, quoted or in its own place."""
    return sum(max(page.tokens, page.quoted) for page in unit)


def _same(one: frozenset[str], other: frozenset[str]) -> bool:
    return bool(one) and len(one & other) >= SAME * len(one | other)


def room(window: Window, bounds: Bounds, fixed: int) -> int:
    """What could be made free for pages that come back, with everything gone that may leave."""
    keep = windows.held(window)
    stays = sum(slot.tokens for slot in window.slots if slot.resident and slot.unit in keep)
    notes = windows.spans(window)["notes"]
    return bounds.tokens - fixed - stays - notes


def brought(window: Window, chosen: Iterable[str], now: float) -> Window:
    """A page fault of each page of these units. What is resident already is left where it is."""
    wanted = set(chosen)
    if not window.slots or not wanted:
        return window
    at = next((slot.seq for slot in reversed(window.slots) if slot.kind == "user"), window.slots[-1].seq)
    slots = list(window.slots)
    meant = [place for place, slot in enumerate(slots) if slot.unit in wanted]  # the one look at all of them
    pictures = {slots[place].unit for place in meant if slots[place].media}
    faulted = [place for place in meant if not slots[place].resident]
    for place in faulted:
        slot = slots[place]
        slots[place] = replace(
            slot,
            resident=True,
            at=0 if slot.unit in pictures else at,
            faults=slot.faults + 1,
            accesses=slot.accesses + 1,
            used=max(now, slot.used),
        )
    return windows.counted(replace(window, slots=tuple(slots)), faults=len(faulted))
