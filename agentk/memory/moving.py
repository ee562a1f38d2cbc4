"""Memory as JSON lines: one to say whose it is, then a page a line, with where each came from. Pure.

Vectors stay: whoever takes the pages in embeds them anew, with an embedder of its own. Ids are given anew too, the same
for the same page in the same place, so that taking a file in twice keeps everything once.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentk.memory import pages
from agentk.memory.pages import Page

FORMAT = "agentk/memory/1"
LINE_BYTES = 4 * 1024 * 1024  # of one line: a page of the largest size, its text and what JSON makes of them
_FIELDS = frozenset(
    {"id", "kind", "content", "contentBase64", "text", "tokens", "importance", "accesses", "created", "used"}
    | {"seq", "unit", "pinned", "name", "tags", "origin"}
)
_ORIGIN = frozenset({"from", "page", "by", "run"})  # what provenance says
_ORIGIN_CHARS = 500


@dataclass(frozen=True)
class Place:
    """Where pages go: a Memory's uid and an agent of it."""

    memory: str
    owner: str


def head(source: str, at: float) -> dict[str, Any]:
    return {"format": FORMAT, "from": source, "at": at}


def line(page: Page, origin: Mapping[str, str]) -> dict[str, Any]:
    """A page as it is written down; `content` where it is text, `contentBase64` where it is none."""
    told: dict[str, Any] = {"id": page.id, "kind": page.kind}
    text = _plain(page.content)
    if text is None:
        told["contentBase64"] = base64.b64encode(page.content).decode()
    else:
        told["content"] = text
    if told.get("content") != page.text:
        told["text"] = page.text
    told |= {
        name: getattr(page, name) for name in ("tokens", "importance", "accesses", "created", "used", "seq")
    }
    told |= {"unit": page.unit, "pinned": page.pinned, "name": page.name, "tags": list(page.tags)}
    return {**told, "origin": dict(origin)}


def _plain(content: bytes) -> str | None:
    """As text; None where it is none, or JSON would write it longer than base64 does."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return text if len(json.dumps(text, ensure_ascii=False)) < 2 * len(text) + 16 else None


def source_of(told: Any) -> str:
    """Whose memory a file is, by its first line. Raises Unusable."""
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise pages.Unusable(f'the first line says {{"format": "{FORMAT}"}}')
    return str(told.get("from") or "")[:_ORIGIN_CHARS]


def parsed(told: Any, source: str, to: Place) -> tuple[Page, dict[str, str]]:
    """The page of one line as it goes into a place, with where it came from. Raises Unusable."""
    if not isinstance(told, dict):
        raise pages.Unusable("a line is an object")
    unknown = sorted(set(told) - _FIELDS)
    if unknown:
        raise pages.Unusable(f"unknown field {json.dumps(unknown[0][:100])}")
    old = _text(told, "id")
    content = _content(told)
    text = _text(told, "text") if "text" in told else content.decode("utf-8", "replace")
    tags = told.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise pages.Unusable("tags are texts")
    page = Page(
        id=moved_id(old, to),
        kind=_text(told, "kind"),
        content=content,
        text=text,
        tokens=_number(told, "tokens", int),
        importance=_number(told, "importance", float),
        accesses=_number(told, "accesses", int),
        created=_number(told, "created", float),
        used=_number(told, "used", float),
        seq=0,  # its place is behind all that is there; lines are in order
        unit=moved_id(_text(told, "unit"), to),
        pinned=told.get("pinned") is True,
        name=_text(told, "name") if "name" in told else "",
        tags=tuple(tags),
    )
    before = told.get("origin") or {}
    if not isinstance(before, dict):
        raise pages.Unusable("origin is an object")
    kept = {key: str(before[key])[:_ORIGIN_CHARS] for key in _ORIGIN & set(before)}
    return pages.checked(page), {"from": source, "page": old[:_ORIGIN_CHARS], **kept}


def moved_id(old: str, to: Place) -> str:
    digest = hashlib.sha256(json.dumps([to.memory, to.owner, old]).encode("utf-8", "backslashreplace"))
    return f"p{digest.hexdigest()[:16]}"


def _content(told: Mapping[str, Any]) -> bytes:
    if ("content" in told) == ("contentBase64" in told):
        raise pages.Unusable("a page has content or contentBase64")
    if "content" in told:
        return _text(told, "content").encode("utf-8", "replace")
    try:
        return base64.b64decode(_text(told, "contentBase64"), validate=True)
    except binascii.Error:
        raise pages.Unusable("contentBase64 is no base64") from None


def _text(told: Mapping[str, Any], field: str) -> str:
    value = told.get(field)
    if not isinstance(value, str):
        raise pages.Unusable(f"{field} is text")
    return value


def _number(told: Mapping[str, Any], field: str, kind: type) -> Any:
    value = told.get(field)
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        raise pages.Unusable(f"{field} is a number")
    try:
        return kind(value)
    except OverflowError:
        raise pages.Unusable(f"{field} is too large") from None
