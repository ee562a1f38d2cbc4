"""The split screen of `agentk attach`: panes of what the state holds, and a line to type into.

The only file that knows Textual. Words of agents reach the terminal as rows of plain segments, so nothing in them is
markup; panes are drawn a few times a second at most, however much comes.
"""

import time
from collections.abc import Callable, Iterator
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Input

from agentk.ui import orders, pictures, state, wrapping
from agentk.ui.doing import Doing
from agentk.ui.reading import Reading

DRAW_SECONDS = 0.2
TYPED_LETTERS = 8000
_LEAST_COLUMNS = 6
NARROW_COLUMNS, NARROW_ROWS = 60, 16

_TITLES = {
    state.CONVERSATION: "Conversation",
    state.TREE: "Call tree",
    state.ACTIONS: "Actions",
    state.STATE: "State",
}


class Pane(ScrollView):
    """Stays at its end until somebody scrolls; G goes back there."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("G", "scroll_end", "End", show=False)]

    def __init__(self, part: str, sticks: bool) -> None:
        super().__init__(id=part)
        self.border_title = _TITLES[part]
        self.can_focus = True
        self._sticks = sticks
        self._lines: list[pictures.Line] = []
        self._rows = wrapping.Rows()

    @property
    def text(self) -> str:
        """All of it, also what is scrolled away."""
        return pictures.plainly(iter(self._lines))

    @property
    def is_drawn(self) -> bool:
        """Not where it is hidden, or so narrow that a line would have a row for each letter."""
        return self.size.width >= _LEAST_COLUMNS

    def draw(self, lines: Iterator[pictures.Line]) -> None:
        self._lines = list(lines)
        self._lay()

    def on_resize(self) -> None:
        self._lay()

    def render_line(self, y: int) -> Strip:
        at, width = self.scroll_offset.y + y, self.size.width
        row = self._rows.rows[at] if at < len(self._rows.rows) else ()
        segments = [Segment(text, Style.parse(style)) for text, style in row]
        return (
            Strip(segments)
            .apply_style(self.rich_style)
            .extend_cell_length(width, self.rich_style)
            .crop(0, width)
        )

    def _lay(self) -> None:
        if not self.is_drawn:
            return
        ends = self._sticks and self.scroll_target_y >= self.max_scroll_y
        width = max(1, self.scrollable_content_region.width)
        self._rows.draw(self._lines, width)
        self.virtual_size = Size(width, len(self._rows.rows))
        if ends:
            self.scroll_to(y=self.max_scroll_y, animate=False)
        self.refresh()


class Screen(App[int]):
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "leave", "Leave", show=False, priority=True),
        Binding("ctrl+q", "leave", "Leave", show=False, priority=True),
        Binding("tab", "turn(1)", "Next", show=False, priority=True),
        Binding("shift+tab", "turn(-1)", "Previous", show=False, priority=True),
    ]
    CSS = """
    #left { width: 1fr; } #right { width: 1fr; }
    #conversation { height: 3fr; } #tree { height: 2fr; } #actions { height: 1fr; } #state { height: 1fr; }
    Pane { border: round $surface-lighten-2; scrollbar-size-vertical: 1; overflow-x: hidden; overflow-y: scroll; }
    Pane:focus { border: round $accent; }
    .narrow Vertical, .narrow Pane { display: none; }
    .narrow Vertical.only, .narrow Pane.only { display: block; height: 1fr; }
    Input { border: round $surface-lighten-2; height: 3; } Input:focus { border: round $accent; }
    """

    def __init__(self, seen: state.State, reading: Reading, doing: Doing) -> None:
        super().__init__()
        self._seen, self._reading, self._doing = seen, reading, doing
        self._drawn = dict.fromkeys(state.PARTS, -1)
        self._second = 0

    def compose(self) -> ComposeResult:
        with Horizontal():
            with Vertical(id="left"):
                yield Pane(state.CONVERSATION, sticks=True)
                yield Pane(state.TREE, sticks=True)
            with Vertical(id="right"):
                yield Pane(state.ACTIONS, sticks=True)
                yield Pane(state.STATE, sticks=False)
        yield Input(placeholder="a line for the agent, or /help", max_length=TYPED_LETTERS)

    def on_mount(self) -> None:
        self._only(self.query_one(f"#{state.CONVERSATION}", Pane))
        self.query_one(Input).focus()
        self._reading.start()
        self.set_interval(DRAW_SECONDS, self.draw)

    def on_unmount(self) -> None:
        self._reading.close()
        self._doing.close()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        typed, event.input.value = event.value, ""
        if typed.strip() == orders.QUIT:
            self.action_leave()
        else:
            self._doing.do(typed)

    def on_resize(self, event: events.Resize) -> None:
        """Where there is no room for four panes there is one, and Tab turns to the next."""
        narrow = event.size.width < NARROW_COLUMNS or event.size.height < NARROW_ROWS
        self.screen.set_class(narrow, "narrow")

    def action_turn(self, by: int) -> None:
        """From pane to pane and to the line; of a pane that was not shown it makes the one that is."""
        stops: list[Pane | Input] = [*self.query(Pane), self.query_one(Input)]
        now = next((at for at, one in enumerate(stops) if one is self.focused), len(stops) - 1)
        to = stops[(now + by) % len(stops)]
        if isinstance(to, Pane):
            self._only(to)
        to.focus()

    def _only(self, shown: Pane) -> None:
        for pane in self.query(Pane):
            pane.set_class(pane is shown, "only")
        for column in self.query(Vertical):
            column.set_class(column is shown.parent, "only")

    def action_leave(self) -> None:
        self.exit(0)

    def draw(self) -> None:
        """What has changed since it was drawn; calls that go on, once a second."""
        panes = {pane.id: pane for pane in self.query(Pane)}
        if not {*state.PARTS} <= {*panes}:
            return  # it is being taken down
        now, second = time.time(), int(time.monotonic())
        with self._seen.lock:
            going = second != self._second and any(one.goes_on for one in self._seen.actions.stream())
            width = panes[state.STATE].size.width
            pictured: dict[str, Callable[[], Iterator[pictures.Line]]] = {
                state.CONVERSATION: lambda: pictures.conversation(self._seen),
                state.TREE: lambda: pictures.tree(self._seen, now),
                state.ACTIONS: lambda: pictures.actions(self._seen, now),
                state.STATE: lambda: pictures.standing(self._seen, width),
            }
            for part, changes in self._seen.changes.items():
                if not panes[part].is_drawn:
                    continue
                if changes != self._drawn[part] or (going and part in (state.TREE, state.ACTIONS)):
                    self._drawn[part] = changes
                    panes[part].draw(pictured[part]())
        self._second = second
