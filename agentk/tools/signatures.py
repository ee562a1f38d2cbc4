"""Python functions as tools: their signatures as JSON Schema, and one of them called. Runs in a jail, as a program.

Its own text is what is run (`pythons.RUN`), so it imports nothing of ours and knows only the standard library of Python
3.9. Everything it reads from the functions is their author's; the daemon bounds what it writes. What functions print
goes to standard error: standard output has the one answer.
"""

import collections.abc
import dataclasses
import enum
import importlib
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import re
import sys
import types
import typing
from typing import Any

KEY = "idempotency_key"  # a parameter; of a Tool that is idempotent by key
_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_LISTS = (
    list,
    tuple,
    set,
    frozenset,
    collections.abc.Sequence,
    collections.abc.Iterable,
    collections.abc.Set,
)
_MAPS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_PARAMETER = re.compile(r"^\s*:param\s+(?:[\w\[\], |.]+\s+)?(\w+)\s*:\s*(.*)$")
_ARGUMENT = re.compile(r"^(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_SECTION = re.compile(
    r"^\s*(Args|Arguments|Parameters|Returns|Return|Raises|Yields|Examples?|Notes?)\s*:\s*$"
)
_DEPTH = 8


class _Text(importlib.abc.Loader):
    """One module whose text is given."""

    def __init__(self, file: str, text: str) -> None:
        self._file, self._text = file, text

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        exec(compile(self._text, self._file, "exec"), module.__dict__)


class _Files(importlib.abc.MetaPathFinder):
    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        base = fullname.replace(".", "/")
        for file, package in ((f"{base}/__init__.py", True), (f"{base}.py", False)):
            if file in self._files:
                loader = _Text(file, self._files[file])
                return importlib.machinery.ModuleSpec(fullname, loader, origin=file, is_package=package)
        return None


def schema(hint: Any, depth: int = 0) -> dict[str, Any]:
    """Of values of a type, as far as JSON has it; {} for any."""
    if depth > _DEPTH or hint is Any or hint is inspect.Parameter.empty:
        return {}
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        told = [one for one in inside[1:] if isinstance(one, str)]
        return {**schema(inside[0], depth + 1), **({"description": told[0]} if told else {})}
    if origin is typing.Literal:
        return {"enum": list(inside)}
    if origin is typing.Union or origin is getattr(types, "UnionType", typing.Union):
        return {"anyOf": [schema(one, depth + 1) for one in inside]}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [one.value for one in hint]}
    if origin in _LISTS or hint in _LISTS:
        items = [one for one in inside if one is not ...]
        below = schema(items[0], depth + 1) if len(set(items)) == 1 else {}
        return {"type": "array", "items": below}
    if origin in _MAPS or hint in _MAPS:
        below = schema(inside[1], depth + 1) if len(inside) == 2 else {}
        return {"type": "object", "additionalProperties": below or True}
    return _fields(hint, depth)


def _fields(hint: Any, depth: int) -> dict[str, Any]:
    """Of a dataclass or a TypedDict."""
    if dataclasses.is_dataclass(hint):
        missing = dataclasses.MISSING
        needed = [
            one.name
            for one in dataclasses.fields(hint)
            if one.default is missing and one.default_factory is missing
        ]
    elif hasattr(hint, "__required_keys__"):
        needed = sorted(hint.__required_keys__)
    else:
        return {}
    hints = typing.get_type_hints(hint, include_extras=True)
    return {
        "type": "object",
        "properties": {name: schema(one, depth + 1) for name, one in hints.items()},
        "required": needed,
        "additionalProperties": False,
    }


def described(name: str, function: Any, keyed: bool = False) -> dict[str, Any]:
    """Name, description and schemas of one function. `keyed`: KEY is agentk's to give, and no model is told of it."""
    signature = inspect.signature(function)
    hints = typing.get_type_hints(function, include_extras=True)
    about, arguments = docstring(inspect.getdoc(function) or "")
    properties: dict[str, Any] = {}
    needed: list[str] = []
    more = False
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise TypeError(f"{name}: arguments are given by name, and {parameter.name} cannot be")
        if parameter.kind is parameter.VAR_KEYWORD:
            more = True
            continue
        if keyed and parameter.name == KEY:
            continue
        made = schema(hints.get(parameter.name, parameter.annotation))
        if parameter.name in arguments:
            made.setdefault("description", arguments[parameter.name])
        if parameter.default is parameter.empty:
            needed.append(parameter.name)
        elif isinstance(parameter.default, (str, int, float, bool)):
            made["default"] = parameter.default
        properties[parameter.name] = made
    told: dict[str, Any] = {"name": name, "description": about}
    told["inputSchema"] = {"type": "object", "properties": properties, "additionalProperties": more}
    if needed:
        told["inputSchema"]["required"] = needed
    gives = schema(hints.get("return", Any))
    if gives.get("type") == "object" and "properties" in gives:
        told["outputSchema"] = gives
    return told


def docstring(text: str) -> tuple[str, dict[str, str]]:
    """What it is for, and what each argument is: after `Args:`, or as `:param name: …`."""
    about: list[str] = []
    arguments: dict[str, str] = {}
    section, last = "", ""
    for line in text.splitlines():
        found = _PARAMETER.match(line)
        if found:
            section, last = "Args", found.group(1)
            arguments[last] = found.group(2).strip()
            continue
        if line.strip().startswith(":"):
            section, last = "other", ""
            continue
        begins = _SECTION.match(line)
        if begins:
            section, last = begins.group(1), ""
        elif not section:
            about.append(line)
        elif section in ("Args", "Arguments", "Parameters"):
            found = _ARGUMENT.match(line)
            if found and (not last or len(found.group(1)) <= 8):
                last = found.group(2)
                arguments[last] = found.group(3).strip()
            elif last and line.strip():
                arguments[last] += " " + line.strip()
    return "\n".join(about).strip(), arguments


def fitted(hint: Any, value: Any) -> Any:
    """A value of JSON as what the function expects: members of enumerations, dataclasses, sets and tuples."""
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        hints = typing.get_type_hints(hint, include_extras=True)
        return hint(**{name: fitted(hints.get(name, Any), one) for name, one in value.items()})
    origin = typing.get_origin(hint) or hint
    if isinstance(value, list) and origin in (list, tuple, set, frozenset):
        inside = typing.get_args(hint)
        made = [fitted(inside[0], one) for one in value] if inside else value
        return origin(made) if origin is not list else made
    return value


def called(function: Any, arguments: dict[str, Any], key: str = "") -> Any:
    if key and KEY in inspect.signature(function).parameters:
        arguments = {**arguments, KEY: key}
    hints = typing.get_type_hints(function, include_extras=True)
    result = function(**{name: fitted(hints.get(name, Any), value) for name, value in arguments.items()})
    if inspect.isawaitable(result):
        import asyncio  # takes as long as all the rest, and few functions need it

        result = asyncio.run(_awaited(result))
    return result


async def _awaited(result: Any) -> Any:
    return await result


def plain(value: Any) -> Any:
    """What json.dumps does not know by itself."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if isinstance(value, collections.abc.Mapping):
        return dict(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} is nothing that JSON has")


def named(function: str) -> Any:
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)


def answer(order: dict[str, Any]) -> dict[str, Any]:
    """What is asked for, or why it cannot be had."""
    if order.get("files"):
        sys.meta_path.insert(0, _Files(order["files"]))
    if order.get("path"):
        sys.path.insert(0, order["path"])
    try:
        if "call" in order:
            return {"result": called(named(order["call"]), order["arguments"], order.get("key", ""))}
        names, keyed = order["functions"], order.get("keyed", False)
        return {"offers": [described(one.rpartition(":")[2], named(one), keyed) for one in names]}
    except Exception as error:  # noqa: BLE001 — whatever a function raises is its answer
        import traceback

        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}{_place(error, order)}"}


def _place(error: Exception, order: dict[str, Any]) -> str:
    """The line of the tool's own files that it comes from, if one of them is to blame."""
    import traceback

    files, path = order.get("files") or {}, order.get("path")
    lines = traceback.extract_tb(error.__traceback__)
    own = [one for one in lines if one.filename in files or (path and one.filename.startswith(f"{path}/"))]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def main() -> None:
    order = json.loads(sys.stdin.buffer.read())
    sys.stdout.flush()
    out = os.dup(1)
    os.dup2(2, 1)
    told = answer(order)
    try:
        text = json.dumps(told, default=plain, ensure_ascii=True)
    except (TypeError, ValueError, RecursionError) as error:
        text = json.dumps({"error": f"its result cannot be told: {error}"})
    sys.stdout.flush()
    with open(out, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()
