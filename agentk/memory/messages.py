"""The words of three dialects as pages, and back: OpenAI's chat, its Responses, and Anthropic's messages. Pure.

What stays in a prompt is the very object that came; nothing of it is written anew. What it knows of a message is only
what paging must: who says it, what belongs together, and which text is searched. What it cannot read it leaves alone:
`read` then says None, and the request goes out as it came.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentk.memory import tokens

_MEDIA = frozenset(
    {"image_url", "input_image", "image", "input_audio", "file", "input_file", "document", "video_url"}
)
_SYSTEM = ("system", "developer")
_MARK = "cache_control"  # clients move it from message to message; it says nothing
_PLAIN = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)
_SPACED = json.JSONEncoder(ensure_ascii=False, default=str)
_SORTED = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str)
CHAIN_BYTES = 16
_QUOTED_TOKENS = 6  # who said it and where, beyond what a message of its own has


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a request."""

    kind: str
    item: Any  # as it came
    tokens: int
    quoted: int  # tokens when it is quoted
    digest: bytes
    chain: bytes  # of this message and all before it
    joins: bool  # belongs to the unit of the message before it
    media: bool
    size: int  # bytes
    short: str | None  # its text, when that is short

    @property
    def content(self) -> bytes:
        """As it is kept: JSON, without marks of a cache."""
        return _PLAIN.encode(_unmarked(self.item)).encode("utf-8", "backslashreplace")

    @property
    def text(self) -> str:
        return _text(self.item) if self.short is None else self.short


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sends, taken apart."""

    dialect: str
    first: tuple[Any, ...]  # system messages that lead: they never leave, and may change with every request
    said: tuple[Said, ...]
    fixed: int  # tokens of all that is no message: tools, system, formats
    fixed_digest: bytes
    other: Mapping[str, Any]  # all that is no message


def read(dialect: str, body: Mapping[str, Any]) -> Request | None:
    """Counted by the estimate. None for what has no conversation that could be managed."""
    field, part = _FIELDS.get(dialect, ("", None))
    items = body.get(field)
    if part is None or not isinstance(items, list) or not items or not all(_usable(one) for one in items):
        return None
    if dialect == "openai.responses" and (body.get("previous_response_id") or body.get("conversation")):
        return None  # the rest of it is at the provider
    lead = 0
    while lead < len(items) and items[lead].get("role") in _SYSTEM:
        lead += 1
    rest = {
        key: value for key, value in body.items() if key not in (field, "model", "stream", "stream_options")
    }
    said = tuple(_said(items[lead:], part))
    head = _SORTED.encode(
        [_unmarked(rest.get("tools")), _unmarked(rest.get("system")), _unmarked(items[:lead])]
    )
    first, fixed_digest = tuple(items[:lead]), digest(head.encode("utf-8", "replace"))
    return Request(dialect, first, said, _fixed(rest, first, tokens.ESTIMATE), fixed_digest, rest)


def weighed(request: Request, fresh: int, counter: tokens.Counter) -> Request:
    """Counted by another counter: what is fixed, and the newest messages. What is older was counted when it came."""
    fixed = _fixed(request.other, request.first, counter)
    kept = len(request.said) - fresh
    said = (*request.said[:kept], *(_weighed(one, counter) for one in request.said[kept:]))
    return replace(request, fixed=fixed, said=said)


def uncounted(request: Request, fresh: int, form: tokens.Form) -> list[bytes]:
    """Everything that `weighed` counts."""
    items = (*request.first, *(one.item for one in request.said[len(request.said) - fresh :]))
    return [
        _PLAIN.encode(request.other).encode("utf-8", "replace"),
        *(counted(one, form)[0] for one in items),
    ]


def _fixed(rest: Mapping[str, Any], first: Sequence[Any], counter: tokens.Counter) -> int:
    other = (_SPACED if counter.form == "spaced" else _PLAIN).encode(rest).encode("utf-8", "replace")
    return tokens.REQUEST_TOKENS + counter.count(other) + sum(weight(item, counter) for item in first)


def _weighed(said: Said, counter: tokens.Counter) -> Said:
    if said.item is None:  # it is not at hand, and is not sent: its size stays
        return said
    size = weight(said.item, counter)
    if counter.form == "words":
        return replace(said, tokens=size, quoted=size + _QUOTED_TOKENS)
    return replace(said, tokens=size)


def written(dialect: str, body: Mapping[str, Any], items: Sequence[Any]) -> dict[str, Any]:
    """The body with other messages."""
    return {**body, _FIELDS[dialect][0]: list(items)}


def spoken(text: str) -> dict[str, Any]:
    """A message of ours, which all three dialects read alike. It is told as a user's: as a system's it would be more
    than what it quotes, and some translate system messages to where the cached part of a prompt begins."""
    return {"role": "user", "content": text}


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=CHAIN_BYTES).digest()


def marks(value: Any) -> Iterator[Any]:
    """What a client told a provider's cache. What a tool is called with is the tool's own, whatever it says."""
    if isinstance(value, Mapping):
        if value.get(_MARK) is not None:
            yield value[_MARK]
        for key, below in value.items():
            if key not in (_MARK, "input", "input_schema"):
                yield from marks(below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from marks(below)


def _said(items: Sequence[Any], part: "Callable[[Any, _Unit], _Part]") -> Iterator[Said]:
    chain, unit = b"", _Unit()
    for item in items:
        told, facts = part(item, unit), _facts(item)
        chain = digest(chain + facts.digest)
        yield Said(
            kind=told.kind,
            item=item,
            tokens=facts.tokens,
            quoted=facts.quoted,
            digest=facts.digest,
            chain=chain,
            joins=told.joins,
            media=facts.media,
            size=facts.size,
            short=facts.short,
        )


@dataclass(frozen=True, slots=True)
class _Facts:
    digest: bytes
    tokens: int
    quoted: int
    media: bool
    size: int  # bytes
    short: str | None


# Clients say all they said before with every turn; what was found out of a message is found out once.
_KNOWN: dict[bytes, _Facts] = {}
_KNOWN_MOST = 20_000
_SHORT = 500  # characters of a text that is remembered with it


def _facts(item: Any) -> _Facts:
    content = _PLAIN.encode(item).encode("utf-8", "backslashreplace")
    key = digest(content)
    facts = _KNOWN.get(key)
    if facts is None:
        clean, text = _unmarked(item), _text(item)
        if len(_KNOWN) >= _KNOWN_MOST:
            _KNOWN.clear()
        facts = _KNOWN[key] = _Facts(
            digest=digest(_SORTED.encode(clean).encode("utf-8", "backslashreplace")),
            tokens=weight(clean, tokens.ESTIMATE),
            quoted=tokens.estimate(quoted("assistant", 10**9, text).encode("utf-8", "backslashreplace")),
            media=_has_media(item),
            size=len(content),
            short=text if len(text) <= _SHORT else None,
        )
    return facts


def quoted(kind: str, seq: int, text: str) -> str:
    """A message as it is quoted, and counted: as a part of a JSON string."""
    return _PLAIN.encode(f"{kind} ({seq}): {text}\n--\n")


@dataclass(frozen=True, slots=True)
class _Part:
    kind: str
    joins: bool


@dataclass(slots=True)
class _Unit:
    """What the message before was: open while results of its calls may come, waiting while an answer may."""

    calls: bool = False
    answer: bool = False
    begun: bool = False

    def take(self, kind: str, calls: bool) -> _Part:
        """The unit rules: a call with its results; a user's message with the plain answer to it."""
        if kind == "tool":
            joins = self.calls
        elif kind == "assistant" and not calls:
            joins = self.answer
        else:
            joins = False
        self.answer = kind == "user"
        self.calls = (kind == "assistant" and calls) or (kind == "tool" and self.calls)
        return _Part(kind, joins)


def _chat(item: Mapping[str, Any], unit: _Unit) -> _Part:
    role = item.get("role")
    if role in ("tool", "function"):
        return unit.take("tool", False)
    if role == "assistant":
        return unit.take("assistant", bool(item.get("tool_calls") or item.get("function_call")))
    return unit.take("system" if role in _SYSTEM else "user", False)


def _anthropic(item: Mapping[str, Any], unit: _Unit) -> _Part:
    blocks = item.get("content")
    kinds = {b.get("type") for b in blocks if isinstance(b, Mapping)} if isinstance(blocks, list) else set()
    if item.get("role") == "assistant":
        return unit.take("assistant", "tool_use" in kinds)
    # A user's message with results belongs to the calls before it, whatever else it says.
    return unit.take("tool" if "tool_result" in kinds else "user", False)


def _responses(item: Mapping[str, Any], unit: _Unit) -> _Part:
    kind = str(item.get("type") or "message")
    if kind.endswith("_output"):
        return unit.take("tool", False)
    if kind == "message" and "role" in item:
        role = item["role"]
        if role == "assistant":
            opened = unit.begun  # by a reasoning item, which must not be parted from what follows it
            part = unit.take("assistant", False)
            unit.begun = False
            return _Part("assistant", part.joins or opened)
        unit.begun = False
        return unit.take("system" if role in _SYSTEM else "user", False)
    # Reasoning and calls: one unit until something else is said. Several calls stand beside each other.
    joins = unit.begun or unit.calls
    unit.take("assistant", True)
    unit.begun = kind == "reasoning" or unit.begun
    return _Part("assistant", joins)


_FIELDS: dict[str, tuple[str, Callable[[Any, _Unit], _Part] | None]] = {
    "openai.chat": ("messages", _chat),
    "openai.responses": ("input", _responses),
    "anthropic.messages": ("messages", _anthropic),
}


def _usable(item: Any) -> bool:
    return isinstance(item, Mapping) and item.get("type") != "item_reference"


def _unmarked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _unmarked(below) for key, below in value.items() if key != _MARK}
    return [_unmarked(below) for below in value] if isinstance(value, list) else value


def weight(item: Any, counter: tokens.Counter) -> int:
    """Tokens of one message; a picture has what pictures have, whatever its bytes are."""
    told, pictures = counted(item, counter.form)
    return counter.count(told) + tokens.MESSAGE_TOKENS + pictures * tokens.IMAGE_TOKENS


def counted(item: Any, form: tokens.Form) -> tuple[bytes, int]:
    """What of a message is counted, and how many pictures beside it."""
    if form == "words":
        words = list[str]()
        pictures = sum(_spelled(item, words))
        return "\n".join(words).encode("utf-8", "replace"), pictures
    pictures = 0

    def plain(value: Any) -> Any:
        nonlocal pictures
        if isinstance(value, Mapping):
            if value.get("type") in _MEDIA:
                pictures += 1
                return None
            return {key: plain(below) for key, below in value.items()}
        return [plain(below) for below in value] if isinstance(value, list) else value

    if form == "spaced":
        return _SPACED.encode(item).encode("utf-8", "backslashreplace"), 0
    return _PLAIN.encode(plain(item)).encode("utf-8", "backslashreplace"), pictures


def _spelled(value: Any, words: list[str]) -> Iterator[int]:
    """The words of a message in their order, with the names of what is a tool's own; and its pictures. A part of a
    message, and a call, has a word more for what a provider writes around it."""
    if isinstance(value, Mapping):
        if isinstance(value.get("type"), str) and value["type"] in _MEDIA:
            yield 1
            return
        words.append(" .")
        for key, below in value.items():
            if key == "input" and isinstance(below, Mapping):
                words.append(_PLAIN.encode(below))
            elif key not in ("type", _MARK):
                yield from _spelled(below, words)
    elif isinstance(value, list):
        for below in value:
            yield from _spelled(below, words)
    elif value is not None:
        words.append(str(value))


def _has_media(value: Any) -> bool:
    if isinstance(value, Mapping):
        kind = value.get("type")
        return (isinstance(kind, str) and kind in _MEDIA) or any(
            _has_media(below) for below in value.values()
        )
    return isinstance(value, list) and any(_has_media(below) for below in value)


# What of a message is words, in whichever dialect.
_WORDS = ("content", "text", "output", "arguments", "input", "name", "thinking", "refusal", "summary")
_BELOW = ("tool_calls", "function", "function_call")


def _text(item: Mapping[str, Any]) -> str:
    return "\n".join(part for part in _texts(item) if part)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        if isinstance(value.get("type"), str) and value["type"] in _MEDIA:
            yield f"[{value['type']}]"
            return
        for key in (*_WORDS, *_BELOW):
            below = value.get(key)
            if key == "input" and isinstance(below, Mapping):
                yield _PLAIN.encode(below)  # of a tool: all of it
            elif below is not None:
                yield from _texts(below)
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        for below in value:
            yield from _texts(below)
