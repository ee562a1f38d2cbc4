"""Aligned text, as kubectl draws it. No rich here: this is on the path of every listing."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, TextIO

GAP = "   "
# What a guest wrote may hold escape sequences; a cell never drives the terminal.
# Nor does one read as something else: what is invisible, or turns the direction of what follows, is made visible.
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_COLOURS = {
    "Running": "32",
    "Succeeded": "32",
    "true": "32",
    "Active": "32",
    "Starting": "36",
    "Pending": "33",
    "Suspended": "33",
    "Terminating": "33",
    "Warning": "33",
    "Failed": "31",
    "false": "33",
}
_COLOURED_COLUMNS = frozenset({"PHASE", "STATUS", "READY", "TYPE", "AVAILABLE"})


def draw(
    headers: Sequence[str], rows: Sequence[Sequence[Any]], colour: bool = False, show: bool = True
) -> str:
    """A table as lines; `show` False leaves out the headers."""
    return Columns(headers, rows, colour).text(rows, show)


class Columns:
    """Widths fixed by the first rows, so that later ones (`-w`) stay aligned."""

    def __init__(self, headers: Sequence[str], rows: Sequence[Sequence[Any]], colour: bool = False) -> None:
        self.headers = [header.upper() for header in headers]
        self._colour = colour
        texts = [self.headers, *([cell(value) for value in row] for row in rows)]
        self._widths = [max(map(len, column)) for column in zip(*texts, strict=True)]

    def text(self, rows: Sequence[Sequence[Any]], headers: bool = False) -> str:
        lines = [self._line(self.headers)] if headers else []
        lines += [self._line([cell(value) for value in row], self._colour) for row in rows]
        return "".join(line + "\n" for line in lines)

    def _line(self, cells: Sequence[str], colour: bool = False) -> str:
        padded = []
        for name, width, text in zip(self.headers, self._widths, cells, strict=True):
            code = _COLOURS.get(text) if colour and name in _COLOURED_COLUMNS else None
            shown = f"\x1b[{code}m{text}\x1b[0m" if code else text
            padded.append(shown + " " * (width - len(text)))
        return GAP.join(padded).rstrip()


def cell(value: Any) -> str:
    """One value for people: nothing is `<none>`, control characters are made visible."""
    if value is None or value == "":
        return "<none>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        value = f"{value:g}"
    return safe(str(value))


def safe(text: str) -> str:
    """Text that cannot move a terminal's cursor."""
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


def marked(text: str, told: Callable[[str], str]) -> str:
    """A text of several lines with each such letter as `told` has it."""
    return _CONTROL.sub(lambda found: found.group() if found.group() in "\n\t" else told(found.group()), text)


def wants_colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
