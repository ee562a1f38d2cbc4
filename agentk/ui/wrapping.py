"""Lines of words with styles, broken to the columns there are: what a pane draws of them, row by row.

Rows are made once for each line and kept as long as it is drawn, for a pane may hold a thousand of them and be drawn
five times a second.
"""

from collections.abc import Iterable, Iterator

from rich.cells import cell_len, get_character_cell_size

from agentk.ui.pictures import Line

Row = tuple[tuple[str, str], ...]


class Rows:
    """All rows of what was drawn last."""

    def __init__(self) -> None:
        self.width = 0
        self.rows: list[Row] = []
        self._known: dict[Line, list[Row]] = {}

    def draw(self, lines: Iterable[Line], width: int) -> None:
        before = self._known if width == self.width else {}
        self.width, self.rows, self._known = width, [], {}
        for line in lines:
            made = self._known.get(line) or before.get(line) or list(wrap(line, width))
            self._known[line] = made
            self.rows += made


def wrap(line: Line, width: int) -> Iterator[Row]:
    """At least one row, none of them wider; between words where there are some."""
    row, room = list[tuple[str, str]](), max(width, 2)
    for text, style in line:
        at = 0
        while at < len(text):
            end = _fits(text, at, room)
            if end < len(text):
                space = text.rfind(" ", at, end + 1)
                if space > at:
                    end = min(space + 1, end)
                elif row and " " in text[at:]:
                    end = at  # its first word goes to the next row
            if end > at:
                row.append((text[at:end], style))
                room -= cell_len(text[at:end])
                at = end
            if at < len(text):
                yield tuple(row)
                row, room = [], max(width, 2)
    yield tuple(row)


def _fits(text: str, at: int, room: int) -> int:
    """Where what fits ends."""
    if text.isascii():
        return min(len(text), at + room)
    end = at
    while end < len(text):
        room -= get_character_cell_size(text[end])
        if room < 0:
            break
        end += 1
    return end
