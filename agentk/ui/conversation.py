"""What an agent's log tells of its conversation: what is said, thought and done, and the frames of a machine as a tree.

Fed line by line. A log is written by the agent, so it is believed as far as what the agent says of itself: it is
never asked whether something was allowed or done, the journal is. Bounded in lines, in frames and in depth.
"""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from agentk.ui import plain

LINES = 1000
FRAMES = 300
DEPTH = 24  # frames deeper than it are drawn there

SAID, YOU, THINKS, DOES, INTO, BACK, FAILED, TELLS, WRONG = (
    *("said", "you", "thinks", "does", "into", "back", "failed", "tells", "wrong"),
)

_INDENT = re.compile(r"( *)(.*)", re.DOTALL)
_INTO = re.compile(r"> ([^(]{1,200})\((.*)\)", re.DOTALL)
_BACK = re.compile(r"< (.{1,200}?)(?: (failed))?: (.*)", re.DOTALL)
_DOES = re.compile(
    r"(?:(?:remember|recall|search|forget|perceive|act|wait|exec) \{.* -> |step \d+: ).*", re.DOTALL
)
_TELLS = re.compile(r"(?:begins|attempt \d+|folds|folds without its model|does not fold|prints): ", re.DOTALL)
_ENDS = re.compile(
    r"(?:ends after \d+ step|ends: |answer after \d+ step|.{1,200} is (?:code from now on|this code already))"
)
_STEP = re.compile(
    r"step (\d{1,9}) in (.{1,200}): (\d{1,9}) of (\d{1,9}) tokens: "
    r"tools (\d{1,9}), system (\d{1,9}), recap (\d{1,9}), work (\d{1,9})"
)
PROGRAMS = frozenset({"machine", "react", "code"})


@dataclass(frozen=True)
class Entry:
    kind: str
    text: str
    depth: int = 0


@dataclass
class Frame:
    """One routine that was invoked."""

    name: str
    given: str
    depth: int
    steps: int = 0
    state: str = ""  # "" while it runs, else BACK or FAILED
    value: str = ""


@dataclass(frozen=True)
class Context:
    """C: what the model is shown, in tokens, by parts."""

    parts: Mapping[str, int]
    budget: int
    where: str = ""

    @property
    def used(self) -> int:
        return sum(self.parts.values())


@dataclass
class Conversation:
    program: str = ""
    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=LINES))
    frames: deque[Frame] = field(default_factory=lambda: deque(maxlen=FRAMES))
    left_out: int = 0
    context: Context | None = None
    _open: list[Frame] = field(default_factory=list)

    def heard(self, line: str) -> None:
        """One line of the log."""
        step = _STEP.fullmatch(line.strip()) if self.program == "machine" and len(line) < 1000 else None
        if step is None:
            self.add(self._read(line))
            return
        number, name, _, budget, *parts = step.groups()
        names = ("tools", "system", "recap", "work")
        told = dict(zip(names, map(int, parts), strict=True))
        self.context = Context(told, int(budget), f"step {number} in {plain.word(name)}")
        if self._open:
            self._open[-1].steps += 1

    def add(self, entry: Entry) -> None:
        if len(self.entries) == LINES:
            self.left_out += 1
        self.entries.append(entry)

    def begins(self, attempt: int) -> None:
        """Another attempt: it knows nothing of the frames of the one before."""
        for frame in self._open:
            frame.state, frame.value = FAILED, "ended with its attempt"
        self._open.clear()
        self.context = None
        self.add(Entry(TELLS, f"attempt {attempt}"))

    def _read(self, line: str) -> Entry:
        if self.program not in PROGRAMS:
            return Entry(SAID, plain.line(line))
        indented = _INDENT.match(line)
        assert indented is not None
        depth, text = min(len(indented[1]) // 2, DEPTH), indented[2][:4000]
        if self.program == "machine":
            if entered := _INTO.fullmatch(text):
                return self._into(entered[1], entered[2], depth)
            if left := _BACK.fullmatch(text):
                return self._back(left[1], left[3], bool(left[2]), depth)
        if text.startswith("thinks: "):
            return Entry(THINKS, plain.line(text.removeprefix("thinks: ")), depth)
        if _TELLS.match(text) or _ENDS.match(text):
            return Entry(TELLS, plain.line(text), depth)
        if _DOES.fullmatch(text):
            return Entry(DOES, plain.line(text), depth)
        return Entry(SAID, plain.line(line))

    def _into(self, name: str, given: str, depth: int) -> Entry:
        frame = Frame(plain.word(name), plain.line(given, 120), depth)
        while self._open and self._open[-1].depth >= depth:
            self._open.pop()
        self._open.append(frame)
        self.frames.append(frame)
        return Entry(INTO, f"{frame.name}({frame.given})", depth)

    def _back(self, name: str, value: str, failed: bool, depth: int) -> Entry:
        while self._open and self._open[-1].depth > depth:
            self._open.pop()
        kind = FAILED if failed else BACK
        shown = plain.line(value, 200)
        if self._open and (frame := self._open[-1]).depth == depth:
            self._open.pop()
            frame.state, frame.value = kind, shown
        return Entry(kind, f"{plain.word(name)}: {shown}", depth)
