"""One turn of a managed conversation: what came is known again, pages come back, leave, and are noted. Pure.

A client sends all it ever said, each time; its window is what was made of that before. Both are held together by
digests of what was said: a client that goes on continues a window, and one that says something else than it did, or
less, has a window of its own from there on. Nothing that it took back is ever shown to its model; what it only cut from
the front of its list was put back before (`continuing`).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agentk.memory import folding, messages, recalling, scoring, tokens
from agentk.memory import window as windows
from agentk.memory.messages import Request, Said
from agentk.memory.window import Bounds, Slot, Window

TASK_SHARE = 0.25  # of the budget: a longer first task is a page like any other
NEAR = 0.6  # of its words a question must share with a page for that to be a use of it
# What is kept as important: a user's words are not to be had again, a tool's answer mostly is.
_IMPORTANCE = {"system": 1.0, "user": 0.6, "assistant": 0.4, "tool": 0.2}


@dataclass(frozen=True, slots=True)
class Settings:
    bounds: Bounds
    weights: scoring.Weights = field(default_factory=scoring.Weights)
    halves: scoring.HalfLives = field(default_factory=scoring.HalfLives)


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of a window, and why."""

    window: Window
    recalled: tuple[str, ...]  # units
    left: tuple[str, ...]  # pages


def repeated(window: Window, said: Sequence[Said]) -> int:
    """How many of the window's pages a request says again, from the first on."""
    same = 0
    for slot, told in zip(window.slots, said, strict=False):
        if slot.digest != told.digest:
            break
        same += 1
    return same


def parted(window: Window, many: int) -> Window:
    """The window of who said the same up to here, and then something else, or nothing."""
    kept = window.slots[:many]
    gone = {slot.note for slot in window.slots[many:]}
    notes = tuple(note for note in window.notes if note.id not in gone)
    still = {note.id for note in notes}
    slots = tuple(slot if slot.note in still else replace(slot, note="") for slot in kept)
    return Window(slots=slots, notes=notes, last=window.last)


def grown(
    window: Window, said: Sequence[Said], bounds: Bounds, now: float, new_id: Callable[[], str]
) -> Window:
    """With what was said since. Raises ValueError when the window is not what the request begins with."""
    if repeated(window, said) != len(window.slots) or len(said) < len(window.slots):
        raise ValueError("the window is another conversation's")
    slots = list(window.slots)
    has_task = any(slot.kind == "user" for slot in slots)
    for told in said[len(slots) :]:
        before = slots[-1] if slots else None
        page = new_id()
        task = told.kind == "user" and not has_task
        has_task = has_task or task
        joins = told.joins and before is not None and not before.pinned
        slots.append(
            Slot(
                id=page,
                kind=told.kind,
                digest=told.digest,
                chain=told.chain,
                tokens=told.tokens,
                quoted=told.quoted,
                importance=_IMPORTANCE.get(told.kind, 0.4),
                seq=before.seq + 1 if before else 1,
                unit=before.unit if joins and before else page,
                used=now,
                pinned=told.kind == "system" or (task and told.tokens <= bounds.tokens * TASK_SHARE),
                media=told.media,
            )
        )
    return _newest_shown(replace(window, slots=tuple(slots)))


def turned(
    window: Window,
    request: Request,
    fresh: int,
    settings: Settings,
    now: float,
    also: Mapping[str, float],
    wanted: Sequence[str] = (),
) -> Turn:
    """The window within its budget, after `fresh` new pages. `also` is what others know of likeness, by page: a search
    by meaning, say. `wanted` are pages that the agent asked for by id. Raises TooSmall."""
    bounds, fixed = settings.bounds, request.fixed
    alike: dict[str, float] = {}
    room = recalling.room(window, bounds, fixed)
    recalled = recalling.asked_for(window, wanted, room) if wanted else ()
    asked = windows.units(window.slots) if recalled else {}
    room -= sum(recalling.size(asked[unit]) for unit in recalled)
    window = recalling.brought(window, recalled, now)
    asks = any(slot.kind == "user" for slot in window.slots[len(window.slots) - fresh :]) if fresh else False
    crowded = fixed + windows.size(window) > bounds.tokens
    if asks or crowded:
        alike = scoring.most_like(likeness(window, request), also)
    if asks:
        near = [slot.id for slot in window.slots[:-fresh] if slot.resident and alike[slot.id] >= NEAR]
        window = windows.touched(window, near, now)
        said = {slot.id: told for slot, told in zip(window.slots, request.said, strict=True)}
        words = functools.cache(lambda page: scoring.words(said[page].text))
        near_units = recalling.candidates(window, alike, bounds, room, words)
        window = recalling.brought(window, near_units, now)
        recalled = (*recalled, *near_units)
    if fixed + windows.size(window) <= bounds.tokens:
        return Turn(window, recalled, ())
    worth = windows.scores(window, alike, now, settings.weights, settings.halves)
    totals = {page: one.total for page, one in worth.items()}
    window, left = windows.evicted(window, bounds, fixed, totals, recalled)
    return Turn(window, recalled, left)


def pressed(
    window: Window, request: Request, settings: Settings, now: float, sent: int
) -> tuple[Window, tuple[str, ...]]:
    """With less in it, for a prompt of it had so many tokens, and that was too much. Raises TooSmall."""
    worth = windows.scores(window, likeness(window, request), now, settings.weights, settings.halves)
    totals = {page: one.total for page, one in worth.items()}
    return windows.evicted(window, settings.bounds, sent - windows.size(window), totals)


def recounted(window: Window, request: Request) -> Window:
    """With the sizes of a request that another counter counted."""
    slots = tuple(
        replace(slot, tokens=said.tokens, quoted=said.quoted)
        for slot, said in zip(window.slots, request.said, strict=False)
    )
    return replace(window, slots=slots, last=())


def reopened(window: Window) -> Window:
    """As if nothing had left: it did so by a bound that was too careful, and the budget is known now."""
    slots = tuple(replace(slot, resident=True, at=0, note="") for slot in window.slots)
    notes = tuple(replace(note, resident=False) for note in window.notes)
    counts = {name: number for name, number in window.counts.items() if name != "cautious"}
    return replace(window, slots=slots, notes=notes, counts=counts)


def likeness(window: Window, request: Request) -> dict[str, float]:
    """How much of the newest user's words each page has."""
    newest = next((told for told in reversed(request.said) if told.kind == "user"), None)
    if newest is None:
        return dict.fromkeys((slot.id for slot in window.slots), 0.0)
    texts = [scoring.words(told.text) if told is not newest else frozenset() for told in request.said]
    found = scoring.likeness(scoring.words(newest.text), texts)
    return {slot.id: value for slot, value in zip(window.slots, found, strict=True)}


def texts(window: Window, request: Request) -> dict[str, str]:
    return {slot.id: told.text for slot, told in zip(window.slots, request.said, strict=True)}


def noted(
    window: Window,
    episode: folding.Episode,
    text: str,
    settings: Settings,
    fixed: int,
    now: float,
    page: str,
    counter: tokens.Counter = tokens.ESTIMATE,
) -> Window:
    """With a note of what left, which is in the prompt where there is room for it."""
    known = counter.count(text.encode("utf-8", "replace")) + tokens.MESSAGE_TOKENS
    note = Slot(
        id=page,
        kind="episode",
        digest=messages.digest(text.encode()),
        chain=b"",
        tokens=known if counter.form == "words" else folding.note_tokens(text),
        quoted=0,
        importance=0.8,
        seq=episode.pages[-1].seq,
        unit=page,
        used=now,
    )
    told = folding.folded(window, episode, note, settings.bounds)
    return windows.without_old_notes(told, settings.bounds, fixed)


def within(bounds: Bounds, correction: tokens.Correction) -> Bounds:
    """The same bounds in tokens as they are counted here."""
    return replace(bounds, tokens=correction.fits(bounds.tokens))


def _newest_shown(window: Window) -> Window:
    """What is said now is always shown, in its own place."""
    keep = windows.held(window)
    hidden = [slot.id for slot in window.slots if slot.unit in keep and (not slot.resident or slot.at)]
    return windows.mapped(window, hidden, lambda slot: replace(slot, resident=True, at=0))
