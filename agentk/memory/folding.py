"""What left a window, told in a few lines: a note of an episode, so that a model knows what it may ask for. Pure.

Only pages that left and that no note tells of yet are folded, and never a note: what is told was said. A note is
bounded, and so is what is read for it. Whoever writes it (here, the beginnings of what was said; elsewhere a model) may
fail: until there is a note nothing is marked as told, and the next fold begins where this one did.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agentk.memory import tokens
from agentk.memory.window import Bounds, Slot, Window, counted

INPUT_CHARS = 48_000  # of one fold that a model reads
_LINE_CHARS = 160
_SHORTEST = 24
_LEAST_BYTES = len("- tool: x")  # of a line
_END = re.compile(r"(?<=[.!?。！？])\s|\n")
_JSON = json.JSONEncoder(ensure_ascii=False)
_WHO = {"user": "user", "assistant": "assistant", "tool": "tool", "system": "system"}


@dataclass(frozen=True, slots=True)
class Episode:
    """What is to be folded: pages in their order, with what was said in them."""

    pages: tuple[Slot, ...]
    texts: tuple[str, ...]

    @property
    def span(self) -> str:
        first, last = self.pages[0].seq, self.pages[-1].seq
        return f"message {first}" if first == last else f"messages {first} to {last}"


def due(window: Window, texts: Mapping[str, str]) -> Episode | None:
    """What no note tells of. None: nothing."""
    pages = tuple(
        slot for slot in window.slots if not slot.resident and not slot.note and slot.kind != "system"
    )
    return Episode(pages, tuple(texts.get(page.id, "") for page in pages)) if pages else None


def extract(episode: Episode, most: int) -> str:
    """A note of at most so many tokens, without any model: how each message begins, the user's before the others'."""
    head = f"{episode.span[0].upper()}{episode.span[1:]}:"
    for kinds in (("user", "assistant", "tool"), ("user", "assistant"), ("user",), ()):
        chosen = [
            (slot.kind, text)
            for slot, text in zip(episode.pages, episode.texts, strict=True)
            if (slot.kind in kinds or not kinds) and text.strip()
        ]
        if len(chosen) * _LEAST_BYTES > most * tokens.BYTES_A_TOKEN:
            continue  # whatever they say, they do not fit
        for chars in (_LINE_CHARS, 96, 56, _SHORTEST):
            lines = [head, *(f"- {_WHO.get(kind, kind)}: {_beginning(text, chars)}" for kind, text in chosen)]
            if chosen and fits("\n".join(lines), most):
                return "\n".join(lines)
    return cut("\n".join(_thinned(episode, head, most)), most)


def asked(episode: Episode) -> str:
    """What a model reads to write the note; bounded, each message cut alike."""
    each = max(_SHORTEST, INPUT_CHARS // max(1, len(episode.pages)))
    said = [
        f"{_WHO.get(slot.kind, slot.kind)}: {_beginning(text, each, whole=True)}"
        for slot, text in zip(episode.pages, episode.texts, strict=True)
    ]
    return "\n".join(said)[:INPUT_CHARS]


def folded(window: Window, episode: Episode, note: Slot, bounds: Bounds) -> Window:
    """With the note, and older notes gone where they would be more than a recap may have."""
    told = {page.id for page in episode.pages}
    slots = tuple(replace(slot, note=note.id) if slot.id in told else slot for slot in window.slots)
    most, kept, left = int(bounds.tokens * bounds.recap), [], 0
    for one in reversed((*window.notes, note)):
        stays = one.resident and left + one.tokens <= most
        left += one.tokens if stays else 0
        kept.append(
            one if stays or not one.resident else replace(one, resident=False, evictions=one.evictions + 1)
        )
    return counted(replace(window, slots=slots, notes=tuple(reversed(kept))), folds=1)


def note_tokens(text: str) -> int:
    """As it is sent: as a part of a JSON string, where a backslash, a quote or a line's end has two bytes."""
    return tokens.estimate(_JSON.encode(text).encode("utf-8", "replace")) + tokens.MESSAGE_TOKENS


def fits(text: str, most: int) -> bool:
    return note_tokens(text) <= most


def cut(text: str, most: int) -> str:
    """At most so many tokens of it."""
    if fits(text, most):
        return text
    least, room = 0, min(len(text), max(0, most) * tokens.BYTES_A_TOKEN)
    while least < room:
        half = (least + room + 1) // 2
        least, room = (half, room) if fits(text[:half].rstrip() + "…", most) else (least, half - 1)
    return text[:least].rstrip() + "…"


def _thinned(episode: Episode, head: str, most: int) -> list[str]:
    """Of very many messages, some: as many as fit, evenly spread."""
    said = [
        (slot.kind, text)
        for slot, text in zip(episode.pages, episode.texts, strict=True)
        if slot.kind == "user" and text.strip()
    ] or list(zip((slot.kind for slot in episode.pages), episode.texts, strict=True))
    line = len(head) + 2
    many = max(1, (most * tokens.BYTES_A_TOKEN - line) // (_SHORTEST + 10))
    step = max(1, -(-len(said) // many))
    return [
        head,
        *(f"- {_WHO.get(kind, kind)}: {_beginning(text, _SHORTEST)}" for kind, text in said[::step]),
    ]


def _beginning(text: str, chars: int, whole: bool = False) -> str:
    said = " ".join(text[: 8 * chars].split()) if not whole else text
    first: Sequence[str] = [said] if whole else _END.split(said, maxsplit=1)
    told = first[0] if len(first[0]) >= _SHORTEST or len(said) <= chars else said
    return told if len(told) <= chars else told[: chars - 1].rstrip() + "…"
