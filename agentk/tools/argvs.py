"""A command's arguments and standard input, of a template and the arguments of a call. Pure.

There is no shell, so no value is ever more than one argument. One that would be read as an option where the template
has no option before it is refused: `{file}` may not become `--output=/etc/x`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentk.api import errors, templates
from agentk.api.templates import Hole

ARGUMENTS_BYTES = 1024 * 1024  # all of them; Linux takes 2 MiB with the environment
ARGUMENT_BYTES = 128 * 1024 - 1
_ENDS_OPTIONS = "--"

Given = Mapping[str, Any]


def argv(items: Sequence[str], given: Given) -> list[str]:
    """Raises BadRequest naming the argument."""
    made: list[str] = []
    options = True
    for item in items:
        template = templates.parse(item)
        for word in _words(template, given):
            if (
                options
                and word.startswith("-")
                and isinstance(template[0], Hole)
                and not template[0].when_true
            ):
                raise _refused(
                    template[0].name, "begins with '-', which the program would take for an option"
                )
            if len(word.encode()) > ARGUMENT_BYTES:
                raise errors.TooLarge(
                    "an argument of a program has at most 128 KiB", field="params.arguments"
                )
            made.append(word)
        options = options and item != _ENDS_OPTIONS
    if sum(len(word) for word in made) > ARGUMENTS_BYTES:
        raise errors.TooLarge("the arguments of a program have at most 1 MiB", field="params.arguments")
    return made


def stdin(text: str, given: Given) -> bytes:
    """What the program reads; nothing where it names an argument not given."""
    template = templates.parse(text)
    return b"" if templates.lacks(template, given) else filled(template, given).encode()


def filled(template: templates.Template, given: Given) -> str:
    return "".join(part if isinstance(part, str) else _hole(part, given) for part in template)


def text(name: str, value: Any) -> str:
    """A value as one word."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _refused(name, "is not valid Unicode") from None
    return value


def _words(template: templates.Template, given: Given) -> Iterator[str]:
    if templates.lacks(template, given):
        return
    name = templates.whole(template)
    if name and name != templates.ALL and isinstance(given[name], list):
        words = [text(name, value) for value in given[name]]
    else:
        word = filled(template, given)
        only_when_true = all(isinstance(part, Hole) and part.when_true is not None for part in template)
        words = [] if template and only_when_true and not word else [word]
    for word in words:
        if "\0" in word:
            raise _refused(name, "holds a NUL, which no argument can")
        yield word


def _hole(hole: Hole, given: Given) -> str:
    if hole.name == templates.ALL:
        return text(hole.name, dict(given))
    if hole.when_true is not None:
        return hole.when_true if given.get(hole.name) is True else ""
    return text(hole.name, given[hole.name])


def _refused(name: str, why: str) -> errors.BadRequest:
    field = f"params.arguments.{name}" if name else "params.arguments"
    return errors.BadRequest(f"{name or 'an argument'} {why}", field=field)
