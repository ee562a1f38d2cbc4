"""Granted tools as Python modules: `from tools import github; github.create_issue(title="…")`.

A module for each tool that may be called, a typed function for each thing it offers; the module itself is called where
that is all there is: `from tools import calculator; calculator("6 * 7")`. What there is is asked of the gate
when it is first needed, and so is each schema: nothing is made of a tool that nobody uses. What a tool says of itself
was written by others: it becomes names and texts here, and never code. A call goes through the gate like any other,
and only what the code then prints is seen by anybody else. Runs in jails: Python 3.9, standard library only.
"""

from __future__ import annotations

import json
import keyword
import os
import re
import types
from inspect import Parameter, Signature
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from agentk.sdk import client, results

PACKAGE = "tools"
PATIENCE_SECONDS = 600.0  # for a daemon that restarts
FOUND = 8  # by one search
_PAGE, _MOST = 500, 5000  # tools
_DOC_LETTERS, _LINE_LETTERS = 2000, 200
_TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "object": "dict",
    "null": "None",
}
_DEEP = 3  # types inside types
_NO_LETTER = re.compile(r"\W", re.ASCII)


class ToolError(Exception):
    """A tool said that it failed."""


class Found(str):
    """Shown as it is."""

    def __repr__(self) -> str:
        return str(self)


class Place(NamedTuple):
    """Where a tool is found."""

    module: str
    function: str


class Shelf:
    """What may be called, by the names it has here."""

    def __init__(self, agent: client.Agent, workspace: str = "/workspace") -> None:
        self._agent, self._workspace = agent, workspace
        self._functions: Dict[Tuple[str, str], Function] = {}
        self.modules: Dict[str, Dict[str, results.Listed]] = {}
        self.places: Dict[str, Place] = {}
        self.unavailable: List[Dict[str, str]] = []
        self._list()

    def function(self, module: str, name: str) -> Function:
        """Raises KeyError, or why the gate does not tell of it."""
        if (module, name) not in self._functions:
            described = self._agent.tool_describe(self.modules[module][name].name)
            self._functions[module, name] = Function(
                self._agent, Place(module, name), described, self._workspace
            )
        return self._functions[module, name]

    def search(self, words: str) -> Found:
        """What can be called that has to do with these words, each as one would write it."""
        listed = self._agent.tool_list(words[:500], limit=FOUND).items
        places = [self.places[one.name] for one in listed if one.name in self.places]
        return self.stubs(places) if places else Found("Nothing was found: try other words.")

    def stubs(self, places: Sequence[Place]) -> Found:
        by_module: Dict[str, List[str]] = {}
        for place in places:
            by_module.setdefault(place.module, []).append(self.function(*place).stub)
        parts = [f"# from {PACKAGE} import {name}\n" + "\n".join(stubs) for name, stubs in by_module.items()]
        return Found("\n\n".join(parts))

    def _list(self) -> None:
        following: Optional[str] = None
        names: Dict[str, str] = {}  # of modules, by their Tools
        while len(self.places) < _MOST:
            page = self._agent.tool_list(limit=_PAGE, continue_=following)
            self.unavailable += page.unavailable
            for one in page.items:
                if one.tool not in names:
                    names[one.tool] = _free(one.tool, self.modules)
                module = self.modules.setdefault(names[one.tool], {})
                inner = one.name[len(one.tool) + 2 :] if one.name.startswith(f"{one.tool}__") else one.tool
                function = _free(inner, module)
                module[function] = one
                self.places[one.name] = Place(names[one.tool], function)
            following = page.continue_
            if not following:
                return


class Function:
    """One tool, to be called as a function."""

    def __init__(
        self, agent: client.Agent, place: Place, described: results.Described, workspace: str
    ) -> None:
        self._agent, self._described, self._workspace = agent, described, workspace
        self.__name__ = self.__qualname__ = place.function
        self.__module__ = f"{PACKAGE}.{place.module}"
        self.__signature__, self._properties = _signature(described.input_schema)
        doc = _plain(described.description)[:_DOC_LETTERS]
        self.__doc__ = doc
        returned = _type(_returned(described)) if described.output_schema else "str"
        self.stub = _stub(self.__signature__, place, returned, doc, described.input_schema, self._properties)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            bound = self.__signature__.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{error}: it is {self.stub.partition(chr(10))[0]}") from None
        arguments: Dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if self.__signature__.parameters[name].kind is Parameter.VAR_KEYWORD:
                arguments.update(value)
            elif value is not None or self.__signature__.parameters[name].default is Parameter.empty:
                arguments[self._properties[name]] = value  # None is what is left out
        try:
            answered = self._agent.tool_call(self._described.name, arguments)
            return value_of(answered, self._described, self._workspace)
        except Exception as error:  # noqa: BLE001 (it is told without our own frames)
            raise error.with_traceback(None) from None

    def __repr__(self) -> str:
        return self.stub


class Module(types.ModuleType):
    """A tool; one that offers nothing but itself is called itself."""

    def __init__(self, shelf: Shelf, name: str) -> None:
        super().__init__(f"{PACKAGE}.{name}")
        self._shelf, self._name = shelf, name

    def __getattr__(self, name: str) -> Any:
        if name not in self._shelf.modules[self._name]:
            there = ", ".join(sorted(self._shelf.modules[self._name])[:50])
            raise AttributeError(f"{self.__name__} has no {name!r}: it has {there}")
        return self._shelf.function(self._name, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._name not in self._shelf.modules[self._name]:
            raise TypeError(f"{self!r} is not called: its functions are")
        return self._shelf.function(self._name, self._name)(*args, **kwargs)

    def __dir__(self) -> List[str]:
        return sorted(self._shelf.modules[self._name])

    def __repr__(self) -> str:
        return f"<module {self.__name__}: {', '.join(dir(self)[:50])}>"


class Package(types.ModuleType):
    """All of it."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(PACKAGE)
        self._shelf = shelf
        self.ToolError, self.search = ToolError, shelf.search

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self._shelf.modules:
            there = ", ".join(sorted(self._shelf.modules)[:50]) or "none"
            raise AttributeError(f"there is no tool {name!r}: there is {there}")
        made = Module(self._shelf, name)
        setattr(self, name, made)
        return made

    def __dir__(self) -> List[str]:
        return ["ToolError", "search", *sorted(self._shelf.modules)]


def package(workspace: str) -> Package:
    """As of now, over a connection of its own. Raises Disconnected, and Denied when tools may not be listed."""
    return Package(Shelf(client.connect(patience_seconds=PATIENCE_SECONDS), workspace))


def value_of(answered: results.Answered, described: results.Described, workspace: str) -> Any:
    """What a tool answered as a value. Raises ToolError when it says that it failed."""
    if answered.is_error:
        raise ToolError(str(answered) or "the tool failed, and did not say why")
    if answered.file is not None:
        return _from_file(answered, described, workspace)
    if answered.structured is not None:
        return _unwrapped(answered.structured, described)
    return (
        str(answered)
        if all(one.get("type") == "text" for one in answered.content)
        else list(answered.content)
    )


def _from_file(answered: results.Answered, described: results.Described, workspace: str) -> Any:
    """It was too long for an answer, which is nothing to code."""
    about = answered.file or {}
    path = os.path.join(workspace, str(about.get("path", "")))
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    if not path.endswith(".json"):
        return text
    try:
        return _unwrapped(json.loads(text), described)
    except ValueError:
        raise ToolError(f"it answered too much: {str(answered)[:_LINE_LETTERS]}") from None


def _unwrapped(value: Any, described: results.Described) -> Any:
    return (
        value["result"] if _is_wrapped(described) and isinstance(value, dict) and "result" in value else value
    )


def _is_wrapped(described: results.Described) -> bool:
    """Servers put what is no object into one."""
    properties = (described.output_schema or {}).get("properties")
    return isinstance(properties, dict) and list(properties) == ["result"]


def _returned(described: results.Described) -> Any:
    schema = described.output_schema or {}
    return schema["properties"]["result"] if _is_wrapped(described) else schema


def _signature(schema: Mapping[str, Any]) -> Tuple[Signature, Dict[str, str]]:
    """How it is called, and the property that each parameter is."""
    properties = _dict(schema.get("properties"))
    required = schema.get("required")
    needed = [name for name in properties if isinstance(required, list) and name in required]
    names: Dict[str, str] = {}
    made = []
    for name in [*needed, *(one for one in properties if one not in needed)]:
        here = _free(name, names)
        names[here] = name
        default = Parameter.empty if name in needed else None
        made.append(Parameter(here, Parameter.POSITIONAL_OR_KEYWORD, default=default))
    if not properties and schema.get("additionalProperties") is not False:
        made.append(Parameter(_free("more", names), Parameter.VAR_KEYWORD))
    return Signature(made), names


def _stub(
    signature: Signature,
    place: Place,
    returned: str,
    doc: str,
    schema: Mapping[str, Any],
    names: Dict[str, str],
) -> str:
    """As a person would write it down."""
    properties = _dict(schema.get("properties"))
    shown, said = [], []
    for name, one in signature.parameters.items():
        if one.kind is Parameter.VAR_KEYWORD:
            shown.append(f"**{name}")
            continue
        about = _dict(properties.get(names[name]))
        default = "" if one.default is Parameter.empty else f" = {_default(about)}"
        shown.append(f"{name}: {_type(about)}{default}")
        if told := _plain(str(about.get("description") or "")):
            said.append(f"    {name}: {told[:_LINE_LETTERS]}")
    text = "\n".join([doc or "No description.", *said])
    called = place.module if place.module == place.function else f"{place.module}.{place.function}"
    return f'def {called}({", ".join(shown)}) -> {returned}:\n    """{text}"""'


def _default(about: Mapping[str, Any]) -> str:
    text = repr(about.get("default"))
    return text if len(text) <= 60 else "..."


def _type(schema: Any, depth: int = 0) -> str:
    schema = _dict(schema)
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return f"Literal[{', '.join(_plain(repr(one))[:60] for one in schema['enum'][:20])}]"
    kind, several = schema.get("type"), schema.get("anyOf") or schema.get("oneOf")
    if depth < _DEEP and isinstance(several, list) and several:
        return " | ".join(dict.fromkeys(_type(one, depth + 1) for one in several[:8]))
    if isinstance(kind, list):
        return " | ".join(_TYPES.get(str(one), "list" if one == "array" else "Any") for one in kind[:8])
    if kind == "array":
        return (
            f"list[{_type(schema.get('items'), depth + 1)}]"
            if depth < _DEEP and schema.get("items")
            else "list"
        )
    if kind in ("object", None) and depth < _DEEP and _dict(schema.get("properties")):
        fields = list(_dict(schema["properties"]).items())[:20]
        inside = ", ".join(f"{_plain(repr(name))[:60]}: {_type(one, depth + 1)}" for name, one in fields)
        return f"dict[{{{inside}}}]"
    return _TYPES.get(str(kind), "Any")


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """A name that Python takes and nobody has."""
    plain = _NO_LETTER.sub("_", name)[:100].lstrip("_") or "_"
    plain = f"_{plain}" if plain[0].isdigit() else plain
    plain = f"{plain}_" if keyword.iskeyword(plain) else plain
    here, count = plain, 1
    while here in taken:
        count += 1
        here = f"{plain}_{count}"
    return here


def _plain(text: str) -> str:
    """On one line, and no end of the text around it."""
    return " ".join(text.split()).replace('"""', "'''")
