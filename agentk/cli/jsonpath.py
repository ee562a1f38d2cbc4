"""kubectl's JSONPath: a template of plain text and `{…}` expressions, read once, rendered often.

Known: `.a.b`, `['a','b']`, `[0]`, `[-1]`, `[1:3]`, `[*]`, `..name`, `[?(@.x=="y")]`, `{range …}…{end}`,
`{"\\n"}`, `$` and `@`. A key that is not there gives nothing, as kubectl does.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from agentk.cli import usage

Step = Callable[[Sequence[Any]], list[Any]]

_NAME = re.compile(r"(?:\\.|[^\\.\[\]{}()\s'\"=!<>,|])+")
_QUOTED = re.compile(r"'((?:\\.|[^'\\])*)'|\"((?:\\.|[^\"\\])*)\"")
_INDEX = re.compile(r"(-?\d*)(:)?(-?\d*)(?::(-?\d+))?$")
_FILTER = re.compile(r"(@[^=!<>~]*?)\s*(?:(==|!=|<=|>=|<|>)\s*(.+))?$", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Path:
    steps: tuple[Step, ...]
    from_root: bool = False

    def find(self, value: Any, root: Any) -> list[Any]:
        values = [root if self.from_root else value]
        for step in self.steps:
            values = step(values)
        return values


@dataclass(frozen=True)
class Loop:
    path: Path
    body: tuple["Node", ...]


Node = Text | Path | Loop


@dataclass(frozen=True)
class Template:
    nodes: tuple[Node, ...]

    def render(self, obj: Any) -> str:
        return "".join(_render(self.nodes, obj, obj))


def parse(template: str) -> Template:
    """Read a template; Usage says what is wrong and where."""
    nodes, rest = _nodes(_pieces(template), template)
    if rest:
        raise _bad(template, "{end} without a {range}")
    return Template(nodes)


def find(path: str, obj: Any) -> list[Any]:
    """Every value at one path. The braces and the first dot may be left out: `status.phase`."""
    return compile_path(path).find(obj, obj)


def compile_path(path: str) -> Path:
    text = path.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1].strip()
    if text and text[0] not in ".[$@":
        text = "." + text
    if not text:
        raise _bad(path, "it is empty")
    return _path(text, path)


def words(value: Any) -> str:
    """A value as kubectl prints it: strings bare, the rest as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _render(nodes: Iterable[Node], value: Any, root: Any) -> Iterable[str]:
    for node in nodes:
        if isinstance(node, Text):
            yield node.text
        elif isinstance(node, Path):
            yield " ".join(words(found) for found in node.find(value, root))
        else:
            for item in node.path.find(value, root):
                yield from _render(node.body, item, root)


def _pieces(template: str) -> list[tuple[bool, str]]:
    """(is expression, text) in order; braces inside quotes do not count."""
    pieces: list[tuple[bool, str]] = []
    position = 0
    while position < len(template):
        opened = template.find("{", position)
        if opened < 0:
            pieces.append((False, template[position:]))
            break
        if opened > position:
            pieces.append((False, template[position:opened]))
        closed = opened + 1
        while closed < len(template) and template[closed] != "}":
            quoted = _QUOTED.match(template, closed)
            closed = quoted.end() if quoted else closed + 1
        if closed >= len(template):
            raise _bad(template, f"the {{ at character {opened + 1} is never closed")
        pieces.append((True, template[opened + 1 : closed].strip()))
        position = closed + 1
    return pieces


def _nodes(pieces: list[tuple[bool, str]], template: str) -> tuple[tuple[Node, ...], list[tuple[bool, str]]]:
    """Nodes up to an {end} or the end of the template; what follows that {end}, with it, is handed back."""
    nodes: list[Node] = []
    while pieces:
        is_expression, text = pieces[0]
        if is_expression and text == "end":
            break
        pieces = pieces[1:]
        if not is_expression:
            nodes.append(Text(text))
        elif quoted := _QUOTED.fullmatch(text):
            nodes.append(Text(_unescape(quoted.group(1) or quoted.group(2) or "")))
        elif text == "range" or text.startswith(("range ", "range.")):
            body, pieces = _nodes(pieces, template)
            if not pieces:
                raise _bad(template, "{range} without an {end}")
            pieces = pieces[1:]
            nodes.append(Loop(_path(text[len("range") :].strip(), template), body))
        else:
            nodes.append(_path(text, template))
    return tuple(nodes), pieces


def _path(text: str, template: str) -> Path:
    if text[:1] not in (".", "[", "$", "@"):
        raise _bad(template, f"{{{text}}} is not an expression", "a path starts with a dot: {.metadata.name}")
    position = 1 if text[0] in "$@" else 0
    steps: list[Step] = []
    while position < len(text):
        step, position = _step(text, position, template)
        if step:
            steps.append(step)
    return Path(tuple(steps), from_root=text[0] == "$")


def _step(text: str, position: int, template: str) -> tuple[Step | None, int]:
    if text.startswith("..", position):
        name = _NAME.match(text, position + 2)
        if not name:
            raise _bad(template, "'..' needs a name after it: {..name}")
        return _deep(_unescape(name.group())), name.end()
    if text[position] == ".":
        if position + 1 == len(text) or text[position + 1] == "[":
            return None, position + 1
        name = _NAME.match(text, position + 1)
        if not name:
            raise _bad(template, f"no name after the dot in {text!r}")
        return (_every if name.group() == "*" else _field([_unescape(name.group())])), name.end()
    if text[position] == "[":
        closed = _closing(text, position, template)
        return _bracket(text[position + 1 : closed].strip(), template), closed + 1
    raise _bad(template, f"{text[position]!r} is not understood in {text!r}")


def _closing(text: str, opened: int, template: str) -> int:
    depth, position = 0, opened
    while position < len(text):
        if quoted := _QUOTED.match(text, position):
            position = quoted.end()
            continue
        depth += {"[": 1, "]": -1}.get(text[position], 0)
        if depth == 0:
            return position
        position += 1
    raise _bad(template, f"the [ in {text!r} is never closed")


def _bracket(inside: str, template: str) -> Step:
    if inside == "*":
        return _every
    if inside.startswith("?(") and inside.endswith(")"):
        return _filter(inside[2:-1].strip(), template)
    if names := [quoted.group(1) or quoted.group(2) or "" for quoted in _QUOTED.finditer(inside)]:
        return _field([_unescape(name) for name in names])
    parts = [_INDEX.match(part.strip()) for part in inside.split(",")]
    if not inside or not all(part and part.group() for part in parts):
        raise _bad(template, f"[{inside}] is neither a number, a range, ['name'], [*] nor [?(…)]")
    return _indices([part for part in parts if part])


def _every(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if isinstance(value, dict):
            found.extend(value.values())
        elif isinstance(value, list):
            found.extend(value)
    return found


def _field(names: Sequence[str]) -> Step:
    def step(values: Sequence[Any]) -> list[Any]:
        return [value[name] for value in values if isinstance(value, dict) for name in names if name in value]

    return step


def _deep(name: str) -> Step:
    def walk(value: Any) -> Iterable[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]
        for inner in _every([value]):
            yield from walk(inner)

    return lambda values: [found for value in values for found in walk(value)]


def _indices(parts: Sequence[re.Match[str]]) -> Step:
    def pick(value: list[Any], part: re.Match[str]) -> list[Any]:
        first, colon, last, stride = part.groups()
        if not colon:
            index = int(first)
            return [value[index]] if -len(value) <= index < len(value) else []
        bounds = slice(int(first) if first else None, int(last) if last else None, int(stride or 1) or None)
        return value[bounds]

    def step(values: Sequence[Any]) -> list[Any]:
        return [
            found
            for value in values
            if isinstance(value, list)
            for part in parts
            for found in pick(value, part)
        ]

    return step


def _filter(condition: str, template: str) -> Step:
    match = _FILTER.fullmatch(condition)
    if not match:
        raise _bad(template, f"?({condition}) is not a condition", 'for example [?(@.type=="Ready")]')
    path, operator, wanted = match.groups()
    left = _path(path.strip(), template)
    right = _operand(wanted.strip(), template) if operator else None

    def keeps(item: Any) -> bool:
        found = left.find(item, item)
        if right is None:
            return bool(found)
        return any(_compare(value, operator, other) for value in found for other in right.find(item, item))

    return lambda values: [
        item for value in values if isinstance(value, (list, dict)) for item in _every([value]) if keeps(item)
    ]


def _operand(text: str, template: str) -> Path:
    if text.startswith(("@", "$")):
        return _path(text, template)
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        constant: Any = _unescape(quoted.group(1) or quoted.group(2) or "")
    else:
        try:
            constant = json.loads(text)
        except ValueError:
            hint = f'put text in quotes: "{text}"'
            raise _bad(template, f"{text!r} is neither a number nor quoted text", hint) from None
    return Path((lambda _values: [constant],))


def _compare(left: Any, operator: str, right: Any) -> bool:
    if operator == "==":
        return bool(left == right)
    if operator == "!=":
        return bool(left != right)
    numbers = all(isinstance(side, (int, float)) for side in (left, right))
    if not numbers and not (isinstance(left, str) and isinstance(right, str)):
        return False
    return bool({"<": left < right, ">": left > right, "<=": left <= right, ">=": left >= right}[operator])


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match.group(1), match.group(1)), text)


def _bad(template: str, message: str, hint: str = "") -> usage.Usage:
    return usage.Usage(
        f"jsonpath {template!r}: {message}", hint=hint or "quote it for your shell: '{.metadata.name}'"
    )
