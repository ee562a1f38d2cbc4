"""A window, told to people: how full it is, what is in it and what left, and why a page is where it is. Pure."""

from collections.abc import Mapping
from typing import Any

from agentk.memory import scoring, window
from agentk.memory.contexts import Known
from agentk.memory.turning import Settings
from agentk.memory.window import Slot

PAGES = 5_000  # of one answer, the newest


def whole(known: Known, with_pages: bool = True) -> dict[str, Any]:
    """As the control API tells it. Tokens are corrected by what providers counted."""
    spent = window.spans(known.window)
    counts = known.window.counts
    # Notes behind the last of what they tell of.
    pages = sorted([*known.window.slots, *known.window.notes], key=lambda one: (one.seq, not one.chain))
    ratio = known.ratio or 1.0
    told = {name: round(size * ratio) for name, size in {"fixed": known.fixed, **spent}.items()}
    return {
        "id": known.id,
        "made": known.made,
        "used": known.used,
        "budgetTokens": known.budget,
        "countedBy": known.counter,
        "correction": None if known.ratio is None else round(known.ratio, 3),
        "tokens": {**told, "total": sum(told.values())},
        "resident": sum(page.resident for page in pages),
        "swapped": sum(not page.resident for page in pages),
        "prompts": counts.get("prompts", 0),
        "faults": counts.get("faults", 0),
        "evictions": counts.get("evictions", 0),
        "folds": counts.get("folds", 0),
        # What of each prompt the one before had begun with: the most that a provider's cache could have had.
        "prefix": _share(counts.get("prefix_tokens", 0), counts.get("prompt_tokens", 0)),
        "readTokens": known.read,
        "cachedTokens": known.cached,
        "pages": [page(one) for one in pages[-PAGES:]] if with_pages else [],
        "leftOut": max(0, len(pages) - PAGES),
    }


def page(slot: Slot) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": slot.id,
        "seq": slot.seq,
        "kind": slot.kind,
        "tokens": slot.tokens,
        "resident": slot.resident,
        "pinned": slot.pinned,
        "unit": slot.unit,
        "accesses": slot.accesses,
        "faults": slot.faults,
        "evictions": slot.evictions,
    }
    told |= {"recalledBefore": slot.at} if slot.at else {}
    told |= {"note": slot.note} if slot.note else {}
    return told


def explained(
    known: Known, wanted: str, texts: Mapping[str, str], settings: Settings, now: float
) -> dict[str, Any] | None:
    """Why a page of a window stays or left: its score by parts, and who would leave before it. None: it is none."""
    slot = next((one for one in (*known.window.slots, *known.window.notes) if one.id == wanted), None)
    if slot is None:
        return None
    alike = _alike(known, texts)
    worth = window.scores(known.window, alike, now, settings.weights, settings.halves)
    told: dict[str, Any] = {"window": known.id, "page": page(slot), "why": _why(known, slot)}
    told["countedBy"] = known.counter
    if slot.id in worth:
        weights = settings.weights
        parts = {
            name: {"weight": getattr(weights, name), "points": round(getattr(worth[slot.id], name), 4)}
            for name in ("recency", "importance", "frequency", "similarity")
        }
        told["score"] = {**parts, "total": round(worth[slot.id].total, 4)}
        told["whenItLeft"] = slot.score if slot.evictions else None
        if slot.resident:
            told["leavesAfter"] = _before(known, slot, worth)
    return told


def numbered(known: Known, seq: int) -> str:
    """The id of a message by its place; "" when there is none."""
    return next((slot.id for slot in known.window.slots if slot.seq == seq), "")


def _alike(known: Known, texts: Mapping[str, str]) -> dict[str, float]:
    """To the newest user's message, as when pages left."""
    slots = known.window.slots
    newest = next((slot for slot in reversed(slots) if slot.kind == "user"), None)
    if newest is None:
        return {}
    words = [scoring.words(texts.get(slot.id, "")) if slot is not newest else frozenset() for slot in slots]
    found = scoring.likeness(scoring.words(texts.get(newest.id, "")), words)
    return {slot.id: value for slot, value in zip(slots, found, strict=True)}


def _why(known: Known, slot: Slot) -> str:
    told = f" Note {slot.note} tells of it." if slot.note else ""
    if slot.kind == "episode":
        if slot.resident:
            return "It is a note of what left, and in the prompt while notes have room."
        return "It is a note; newer ones have its room in the prompt. It is searched."
    if slot.pinned:
        return "It is pinned, and never leaves."
    if slot.resident and slot.unit in window.held(known.window):
        return "It is of the newest that was said, and stays until something is said after it."
    if slot.resident and slot.at:
        return f"It had left, and was brought back before message {slot.at}." + told
    if slot.resident:
        return "It is in its own place, and was never brought back."
    return "It left when there was no room, and comes back when it is asked about." + told


def _before(known: Known, slot: Slot, worth: Mapping[str, scoring.Score]) -> int:
    """How many units would leave before the one of this page."""
    keep = window.held(known.window)
    totals = {
        unit: max(worth[one.id].total for one in pages if one.resident)
        for unit, pages in window.units(known.window.slots).items()
        if unit not in keep and any(one.resident for one in pages)
    }
    own = totals.get(slot.unit)
    return len(totals) if own is None else sum(total < own for total in totals.values())


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
