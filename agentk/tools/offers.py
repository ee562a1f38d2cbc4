"""What a tool offers and what it answers, as the rest of the house may see it: bounded, cleaned, and with a digest.

Names, descriptions and schemas are the words of whoever wrote the tool. They reach a model, so they are hints that
nobody believes: nothing here is followed, resolved or run. A tool whose words change after they were pinned is another
tool until a person has looked at it.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

NAME_CHARS = 128
DESCRIPTION_BYTES = 8 * 1024
SCHEMA_BYTES = 64 * 1024
SCHEMA_DEPTH = 20
OFFERS = 512  # of one Tool: what nobody can read through is no tool

_NAME = re.compile(r"[A-Za-z0-9_./-]+")
_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})  # what a person does not see, and a model does
# Marks and blanks that are drawn as nothing: sixteen of them, or 256, spell any text behind one letter.
_BLANK = frozenset(map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0))) | frozenset(
    chr(number)
    for first, end in ((0x180B, 0x1810), (0xFE00, 0xFE10), (0xE0100, 0xE01F0))
    for number in range(first, end)
)
_HINTS = frozenset({"title", "readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"})


class Unusable(Exception):
    """What is offered cannot be, and why."""


@dataclass(frozen=True)
class Offered:
    """One tool. `name` is what its server calls it; `annotations` are its own claims."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any] | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a call came to: content blocks as MCP has them."""

    content: tuple[Mapping[str, Any], ...]
    structured: Any | None = None
    is_error: bool = False
    is_json: bool = False  # its text is JSON of so many values that nobody here took it apart


@dataclass(frozen=True)
class Drift:
    """How what is offered differs from what was pinned, by name."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.gone)


def offered(
    name: Any,
    description: Any = "",
    input_schema: Any = None,
    output_schema: Any = None,
    annotations: Any = None,
) -> Offered:
    """The tool, cleaned and bounded. Raises Unusable, whose text quotes nothing but a cut name."""
    if not isinstance(name, str) or len(name) > NAME_CHARS or not _NAME.fullmatch(name):
        raise Unusable(f"a tool's name is 1 to {NAME_CHARS} letters, digits, '.', '_', '/' or '-'")
    told = _cut(cleaned(description if isinstance(description, str) else ""))
    takes = _schema(name, "inputSchema", input_schema if input_schema is not None else {"type": "object"})
    gives = None if output_schema is None else _schema(name, "outputSchema", output_schema)
    hints = annotations if isinstance(annotations, Mapping) else {}
    kept = {key: _hint(hints[key]) for key in sorted(_HINTS & hints.keys())}
    return Offered(name, told, takes, gives, kept, digest(name, told, takes, gives))


def digest(name: str, description: str, takes: Mapping[str, Any], gives: Mapping[str, Any] | None) -> str:
    """Of everything that a model is told to call it by; hints are left out, for nothing is decided on them."""
    told = {"name": name, "description": description, "inputSchema": takes, "outputSchema": gives}
    return hashlib.sha256(_canonical(told).encode()).hexdigest()


def drift(pins: Mapping[str, str], offers: Iterable[Offered]) -> Drift:
    """Safe for pins of another time: what is not pinned is `added`."""
    now = {one.name: one.digest for one in offers}
    return Drift(
        changed=tuple(sorted(name for name in now.keys() & pins.keys() if now[name] != pins[name])),
        added=tuple(sorted(now.keys() - pins.keys())),
        gone=tuple(sorted(pins.keys() - now.keys())),
    )


def cleaned(text: str) -> str:
    """Without what a person cannot see: control characters, marks of direction, tags."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c for c in text if c in "\n\t" or (unicodedata.category(c) not in _UNSEEN and c not in _BLANK)
    )


def _cut(text: str) -> str:
    raw = text.encode()
    if len(raw) <= DESCRIPTION_BYTES:
        return text
    return raw[: DESCRIPTION_BYTES - 3].decode(errors="ignore") + "…"


def _hint(value: Any) -> Any:
    return value if isinstance(value, bool) else cleaned(str(value))[:NAME_CHARS]


def _schema(name: str, where: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise Unusable(f"{where} of {name} is no object")
    try:
        kept = _kept(given, SCHEMA_DEPTH)
        size = len(_canonical(kept))
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{where} of {name}: {error}") from None
    if size > SCHEMA_BYTES:
        raise Unusable(f"{where} of {name} has {size} bytes; the most is {SCHEMA_BYTES}")
    assert isinstance(kept, dict)
    return kept


def _kept(value: Any, depth: int) -> Any:
    if depth < 0:
        raise ValueError(f"nested more than {SCHEMA_DEPTH} deep")
    if isinstance(value, str):
        return cleaned(value)
    if isinstance(value, Mapping):
        ref = value.get("$ref", "#")
        if not isinstance(ref, Mapping) and not str(ref).startswith("#"):
            raise ValueError("a $ref leads elsewhere; a schema must be whole")
        return {cleaned(str(key)): _kept(below, depth - 1) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_kept(below, depth - 1) for below in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError("not JSON")


def _canonical(told: Any) -> str:
    return json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False)
