"""Texts with holes for the arguments of a call: `--max-count={max}`, `{recursive?-r}`, `{*}`. Pure.

A hole is filled with one value and nothing is read again after that, so no value can make a hole. `{{` and `}}` are
braces. What a value becomes (an argument, a part of a URL, JSON) is for whoever fills them to say.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from agentk.api import errors

ALL = "*"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}|\*")


class Hole(NamedTuple):
    """`{name}`, or with `when_true` a text that is there when the argument is true."""

    name: str
    when_true: str | None = None


Part = str | Hole
Template = tuple[Part, ...]


def parse(text: str) -> Template:
    """Raises Invalid for a brace that opens or closes nothing."""
    parts: list[Part] = []
    plain, at = "", 0
    while at < len(text):
        letter = text[at]
        if letter not in "{}":
            plain += letter
            at += 1
        elif text[at : at + 2] == letter * 2:
            plain += letter
            at += 2
        elif letter == "}":
            raise errors.Invalid("a '}' that closes nothing", hint="a brace itself is written twice: }}")
        else:
            end = text.find("}", at)
            name, asks, when_true = text[at + 1 : end].partition("?")
            if end < 0 or not _NAME.fullmatch(name) or (asks and name == ALL):
                raise errors.Invalid(
                    f"{text[at : at + 40]!r} is no {{NAME}}", hint="a brace itself is written twice: {{"
                )
            parts += [plain] if plain else []
            parts.append(Hole(name, when_true if asks else None))
            plain, at = "", end + 1
    return tuple([*parts, plain] if plain else parts)


def names(template: Template) -> frozenset[str]:
    """Of the arguments it has holes for; not `*`."""
    return frozenset(part.name for part in template if isinstance(part, Hole) and part.name != ALL)


def whole(template: Template) -> str:
    """The name of the one hole that it is; "" when it is anything else."""
    first = template[0] if len(template) == 1 else ""
    return first.name if isinstance(first, Hole) and first.when_true is None else ""


def lacks(template: Template, arguments: Mapping[str, Any]) -> bool:
    """Whether it names an argument that was not given. One that only asks whether it is true may be left out."""
    holes = [part for part in template if isinstance(part, Hole) and part.when_true is None]
    return any(hole.name != ALL and arguments.get(hole.name) is None for hole in holes)
