"""Text to objects that know where they were written: YAML or JSON, many documents, `kind: List` flattened.

Built from the parser's events, never with a loader: what a hostile file can cost is bounded by the limits below,
and every value keeps its line and column. Scalars follow YAML 1.2 (`NO`, `on` and dates stay text), because a
country code that turns into a boolean is nobody's wish.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from agentk.api import errors

MAX_BYTES = 4 * 1024 * 1024  # of one file
MAX_DEPTH = 64
MAX_VALUES = 500_000  # of one file, what aliases stand for counted each time
MAX_TEXT = 16 * 1024 * 1024  # letters of all values, counted in the same way
MAX_ANCHORS = 1000
MAX_PROBLEMS = 50  # told of one file; a broken generator breaks every line

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_OCTAL_LOOK = re.compile(r"[-+]?0[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# JSON writes an emoji as two escapes, YAML as one.
_SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")

# A value's place and its children's: (line, column, None | items | {key: (line, column, mark of the value)}).
# Plain tuples: a file may have half a million of them.
_Mark = tuple[int, int, Any]
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Manifest:
    """One object as it was written."""

    obj: dict[str, Any]
    source: str  # file name, or what to call the text in messages
    mark: _Mark = (0, 0, None)

    def position(self, path: Path = (), *, key: bool = False) -> tuple[int, int]:
        """Line and column, from 1, of the value at a path (of its key with `key`), or of the nearest one around it."""
        line, column, children = self.mark
        for at, step in enumerate(path):
            if isinstance(children, dict) and step in children:
                key_line, key_column, mark = children[step]
                if key and at == len(path) - 1:
                    return key_line, key_column
            elif isinstance(children, list) and isinstance(step, int) and step < len(children):
                mark = children[step]
            else:
                break
            line, column, children = mark
        return line, column


def parse(text: str | bytes, source: str) -> list[Manifest]:
    """The objects of one YAML or JSON text, in order; empty documents are skipped. Raises Invalid."""
    builder = _Builder(source)
    found: list[Manifest] = []
    for value, mark in builder.documents(_decoded(text, source)):
        if value is not None:
            found += _flattened(value, mark, source, builder)
    builder.raise_problems()
    return found


def _flattened(value: Any, mark: _Mark, source: str, builder: "_Builder") -> Iterator[Manifest]:
    if not isinstance(value, dict):
        builder.problem(mark, f"expected an object with apiVersion and kind, found {told(value)}")
        return
    kind, items = value.get("kind"), value.get("items")
    if not (isinstance(kind, str) and kind.endswith("List") and isinstance(items, list)):
        yield Manifest(value, source, mark)
        return
    item_marks = mark[2]["items"][2][2]
    for item, item_mark in zip(items, item_marks, strict=True):
        if isinstance(item, dict) and kind != "List":  # an AgentList leaves out what all its items are
            item.setdefault("apiVersion", value.get("apiVersion"))
            item.setdefault("kind", kind.removesuffix("List"))
        yield from _flattened(item, item_mark, source, builder)


def told(value: Any) -> str:
    """What sort of value it is, for people; never the value itself."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object"


@dataclass(slots=True)
class _Open:
    """A list or object whose end has not been reached."""

    value: Any
    children: Any
    line: int
    column: int
    anchor: str | None
    key: tuple[str, int, int] | None = None  # waits for its value
    skip: bool = False  # the key was refused: its value is read and dropped
    values: int = 1
    letters: int = 0
    height: int = 1


@dataclass(frozen=True, slots=True)
class _Done:
    """A whole value and what it costs to have it once more."""

    value: Any
    mark: _Mark
    values: int = 1
    letters: int = 0
    height: int = 0


class _Builder:
    """Builds values from events. Every step costs a bounded amount, whatever the text says."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._open: list[_Open] = []
        self._anchors: dict[str, _Done] = {}
        self._opening: set[str] = set()
        self._values = 0
        self._letters = 0
        self._problems: list[errors.Cause] = []
        self._root: _Done | None = None
        self._text = ""

    def documents(self, text: str) -> Iterator[tuple[Any, _Mark]]:
        self._text = text
        try:
            for event in yaml.parse(text, Loader=_LOADER):
                if isinstance(event, yaml.DocumentStartEvent):
                    self._anchors, self._opening, self._root = {}, set(), None
                elif isinstance(event, yaml.DocumentEndEvent):
                    if self._root:
                        yield self._root.value, self._root.mark
                else:
                    self._take(event)
        except yaml.YAMLError as error:
            raise self._syntax(error) from None

    def problem(self, at: tuple[int, int, Any], message: str, hint: str = "") -> None:
        """Note a problem and go on, so that all are told at once."""
        if len(self._problems) < MAX_PROBLEMS:
            cause = errors.Cause("", message, at[0], at[1], hint, self._source, "FieldValueInvalid")
            self._problems.append(cause)

    def raise_problems(self) -> None:
        if not self._problems:
            return
        if len(self._problems) == 1:
            only = self._problems[0]
            raise self._refused((only.line, only.column, None), only.message, only.hint)
        raise errors.Invalid(f"{len(self._problems)} problems", file=self._source, causes=self._problems)

    def _take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            at = _at(event)
            value = self._resolved(event, at)
            letters = len(value) if isinstance(value, str) else 0
            self._finish(_Done(value, at, 1, letters), event.anchor, event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            self._start(event)
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            done = self._open.pop()
            mark = (done.line, done.column, done.children)
            if done.anchor:
                self._opening.discard(done.anchor)
            self._finish(_Done(done.value, mark, done.values, done.letters, done.height), done.anchor, None)

    def _start(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        at = _at(event)
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", _CORE + ("map" if mapping else "seq")):
            self._foreign_tag(at, event.tag)
        if len(self._open) >= MAX_DEPTH:
            raise self._refused(at, f"nested deeper than {MAX_DEPTH} levels")
        self._count(at, 1, 0)
        if event.anchor:
            self._opening.add(event.anchor)
        self._open.append(_Open({} if mapping else [], {} if mapping else [], at[0], at[1], event.anchor))

    def _alias(self, event: yaml.AliasEvent) -> None:
        at = _at(event)
        name = event.anchor or ""
        named = self._anchors.get(name)
        if name in self._opening:
            raise self._refused(at, f"alias *{_short(name)} is inside what it stands for")
        if not named:
            raise self._refused(at, f"alias *{_short(name)} has no anchor before it")
        if len(self._open) + named.height > MAX_DEPTH:
            raise self._refused(at, f"nested deeper than {MAX_DEPTH} levels by alias *{_short(name)}")
        self._count(at, named.values, named.letters)
        copied = _Done(_copy(named.value), named.mark, named.values, named.letters, named.height)
        self._finish(copied, None, None, at)

    def _finish(
        self, done: _Done, anchor: str | None, scalar: yaml.ScalarEvent | None, at: _Mark | None = None
    ) -> None:
        """A value is whole: count it, remember its anchor, put it where it belongs."""
        if scalar:
            self._count(done.mark, 1, done.letters)
        if anchor:
            if len(self._anchors) >= MAX_ANCHORS:
                raise self._refused(done.mark, f"more than {MAX_ANCHORS} anchors in one document")
            self._anchors[anchor] = done
        if not self._open:
            self._root = done
            return
        around = self._open[-1]
        around.values += done.values
        around.letters += done.letters
        around.height = max(around.height, done.height + 1)
        if isinstance(around.value, list):
            around.value.append(done.value)
            around.children.append(done.mark)
        elif around.key is None and not around.skip:
            self._key(around, done, scalar, at or done.mark)
        else:
            if around.key:
                key, line, column = around.key
                around.value[key] = done.value
                around.children[key] = (line, column, done.mark)
            around.key, around.skip = None, False

    def _key(self, around: _Open, done: _Done, scalar: yaml.ScalarEvent | None, at: _Mark) -> None:
        key = done.value
        around.skip = True
        if not isinstance(key, str):
            quoted = f', write "{scalar.value[:40]}"' if scalar and scalar.value else ""
            self.problem(at, f"keys must be text, found {told(key)}", f"quote it{quoted}" if quoted else "")
        elif key == "<<" and scalar and not scalar.style:
            self.problem(
                at, "merge keys (<<) are not supported", "write the fields out, or use an alias for one value"
            )
        elif key in around.value:
            first = around.children[key]
            self.problem(at, f'duplicate key "{_short(key)}"', f"first given on line {first[0]}")
        else:
            around.key, around.skip = (key, at[0], at[1]), False

    def _count(self, at: _Mark, values: int, letters: int) -> None:
        self._values += values
        self._letters += letters
        if self._values > MAX_VALUES:
            raise self._refused(at, f"more than {MAX_VALUES} values, aliases counted as what they stand for")
        if self._letters > MAX_TEXT:
            raise self._refused(
                at, f"more than {MAX_TEXT // 2**20} MiB of text, aliases counted as what they stand for"
            )

    def _resolved(self, event: yaml.ScalarEvent, at: _Mark) -> Any:
        text, tag = event.value, event.tag
        if tag in ("!", _CORE + "str") or (tag is None and not event.implicit[0]):
            return text
        if tag is not None and tag not in [_CORE + name for name in ("null", "bool", "int", "float")]:
            self._foreign_tag(at, tag)
            return text
        if text in _NULLS:
            return None
        if text in _BOOLS:
            return _BOOLS[text]
        return self._number(text, at)

    def _number(self, text: str, at: _Mark) -> Any:
        if text[0] not in "-+.0123456789":
            return text
        # The value is not quoted in any of these: it may be a Secret's.
        if _OCTAL_LOOK.fullmatch(text):
            hint = "quote it for text, write 0o… for an octal number"
            self.problem(at, "a number that starts with 0 is read in two ways by YAML 1.1 and 1.2", hint)
            return text
        if _NO_NUMBER.fullmatch(text):
            self.problem(at, "infinity and NaN are no numbers that JSON can hold", "quote it if it is text")
            return text
        if _INT.fullmatch(text):
            value = int(text, 0) if len(text) <= 24 else 2**64
            if not -(2**63) <= value < 2**63:
                self.problem(at, "a number of more than 64 bits", "quote it if it is text")
                return text
            return value
        if len(text) <= 400 and _FLOAT.fullmatch(text):
            number = float(text)
            if abs(number) == float("inf"):
                self.problem(at, "too large a number", "quote it if it is text")
                return text
            return number
        return text

    def _foreign_tag(self, at: _Mark, tag: str) -> None:
        shown = tag.replace(_CORE, "!!")
        self.problem(
            at, f"tag {_short(shown)} is not supported", "only plain objects, lists, texts and numbers are"
        )

    def _syntax(self, error: yaml.YAMLError) -> errors.Invalid:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        context = getattr(error, "context", None)
        hint = ""
        if mark and self._text[mark.index : mark.index + 1] == "\t":
            hint = "indent with spaces, not tabs"
        elif "mapping values are not allowed" in str(what):
            hint = "is the indentation right, and is text with ': ' quoted?"
        message = f"not valid YAML: {what}" + (f" {context}" if context else "")
        at = (mark.line + 1, mark.column + 1, None) if mark else (0, 0, None)
        return self._refused(at, message[:300], hint)

    def _refused(self, at: _Mark, message: str, hint: str = "") -> errors.Invalid:
        return errors.Invalid(message, hint=hint, file=self._source, line=at[0], column=at[1])


def _decoded(text: str | bytes, source: str) -> str:
    if len(text) > MAX_BYTES:
        raise errors.Invalid(f"{len(text)} bytes: at most {MAX_BYTES // 2**20} MiB in one file", file=source)
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        decoded.encode()  # a lone surrogate would surface much later, in somebody else's hands
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        raise errors.Invalid(f"not UTF-8 text (at byte {start})", file=source) from None
    if decoded.lstrip()[:1] in ("{", "[") and "\\u" in decoded:
        return _SURROGATES.sub(_joined, decoded)
    return decoded


def _joined(found: re.Match[str]) -> str:
    high, low = int(found[2], 16), int(found[3], 16)
    return f"{found[1]}\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(held) for key, held in value.items()}
    return [_copy(held) for held in value] if isinstance(value, list) else value


def _at(event: yaml.Event) -> _Mark:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1, None) if mark else (0, 0, None)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "…"
