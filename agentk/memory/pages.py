"""What a page is: the piece of an agent's memory that is kept, searched, brought back and forgotten as one. Pure.

What was kept comes back byte for byte, whatever is in it. Nothing here trusts a page: names, tags and contents may have
been made by a guest, so each is bounded before it is kept, and a number that is none is refused.
"""

import math
import re
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace

KINDS = ("system", "user", "assistant", "tool", "note", "episode", "skill")

CONTENT_BYTES = 1024 * 1024  # of one page: what is longer belongs into a file
TEXT_BYTES = 256 * 1024  # of it that is searched: beyond, a page is found by its beginning
NAME_CHARS = 200
TAG_CHARS = 64
TAGS = 16
TOKENS = 10_000_000

_ID = re.compile(r"p[0-9a-f]{16}")
_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"})  # what a person does not see in a list


class Unusable(Exception):
    """A page cannot be kept, and why."""


@dataclass(frozen=True, slots=True)
class Page:
    id: str  # "p" and 16 hex, unique within a memory; never used twice
    kind: str
    content: bytes  # exactly what was kept: UTF-8 JSON of a part of a message, or text
    text: str  # what of it is searched
    tokens: int  # as counted, or estimated, for the agent's route
    importance: float  # 0..1
    accesses: int
    created: float  # seconds since the epoch
    used: float  # last access, same clock
    seq: int  # place in the conversation: order is kept by it
    unit: (
        str  # pages of one unit (a tool call and its results) leave and come back together; own id when alone
    )
    pinned: bool
    name: str  # "" or the name it is remembered by
    tags: tuple[str, ...]


def new_id() -> str:
    return f"p{secrets.token_hex(8)}"


def is_id(text: str) -> bool:
    return bool(_ID.fullmatch(text))


def size(page: Page) -> int:
    """Bytes that it counts for: what is kept of it, not what an index makes of that."""
    return len(page.content) + len(page.name.encode()) + sum(len(tag.encode()) for tag in page.tags)


def touched(page: Page, now: float) -> Page:
    """It was used: what is used last and often stays longest."""
    return replace(page, accesses=page.accesses + 1, used=max(now, page.used))


def cut(text: str, most: int = TEXT_BYTES) -> str:
    """The beginning of a text, at most so many bytes, never half a character."""
    raw = text.encode(errors="replace")
    return raw[:most].decode(errors="ignore") if len(raw) > most else raw.decode()


def name_of(text: str) -> str:
    """A name as it is kept, or Unusable. People read names and so do models: nothing unseen is in them."""
    return _label(text, NAME_CHARS, "name")


def tags_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Tags as they are kept: each once, in order."""
    found = sorted({_label(text, TAG_CHARS, "tag") for text in texts})
    if len(found) > TAGS:
        raise Unusable(f"{len(found)} tags, and a page has at most {TAGS}")
    if "" in found:
        raise Unusable("a tag is empty")
    return tuple(found)


def checked(page: Page) -> Page:
    """The page as it may be kept; Unusable when no bound can make it so."""
    if not is_id(page.id) or not is_id(page.unit):
        raise Unusable("an id is 'p' and 16 hexadecimal digits")
    if page.kind not in KINDS:
        raise Unusable(f"kind {page.kind[:40]!r} is none of {', '.join(KINDS)}")
    if len(page.content) > CONTENT_BYTES:
        raise Unusable(f"{len(page.content)} bytes, and a page has at most {CONTENT_BYTES}")
    if not math.isfinite(page.importance) or not 0 <= page.importance <= 1:
        raise Unusable("importance is a number from 0 to 1")
    if not (math.isfinite(page.created) and math.isfinite(page.used)):
        raise Unusable("a time is a finite number of seconds")
    whole = (page.tokens, TOKENS), (page.accesses, 2**53), (page.seq, 2**53)
    if any(not 0 <= value <= most for value, most in whole):
        raise Unusable("tokens, accesses and seq are whole numbers, 0 or more")
    return replace(page, text=cut(page.text), name=name_of(page.name), tags=tags_of(page.tags))


def _label(text: str, most: int, what: str) -> str:
    if len(text) > most:
        raise Unusable(f"a {what} of {len(text)} characters, and it has at most {most}")
    told = unicodedata.normalize("NFC", text).strip()
    if any(unicodedata.category(one) in _UNSEEN for one in told):
        raise Unusable(f"a {what} has characters that cannot be seen")
    return told
