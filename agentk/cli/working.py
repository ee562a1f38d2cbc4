"""How long work looks while it goes on: one line that changes on a terminal, its steps elsewhere. On stderr."""

import re
import shutil
import sys
import time

from agentk.cli import columns

_QUIET_SECONDS = 1.0
_REDRAW_SECONDS = 0.1
_STEP = re.compile(r"(STEP \d|Trying to pull|COMMIT|pulling |importing |I: )")


class Working:
    """`told` hears what the work says, line by line; `verbose` shows all of it."""

    def __init__(self, what: str, *, verbose: bool) -> None:
        self._what, self._verbose = what, verbose
        self._live = sys.stderr.isatty() and not verbose
        self._began, self._drawn, self._shown = time.monotonic(), 0.0, False

    def told(self, line: str) -> None:
        if self._live:
            self._draw(line)
        elif line.strip() and (self._verbose or _STEP.match(line)):
            print(columns.safe(line), file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """For people to read also afterwards."""
        self.clear()
        print(columns.safe(text), file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Nothing is left of the changing line. Repeatable."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False

    def _draw(self, line: str) -> None:
        now = time.monotonic()
        if not line.strip() or now - self._began < _QUIET_SECONDS or now - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn, self._shown = now, True
        text = f"{self._what}, {now - self._began:.0f} s: {columns.safe(line.strip())}"
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)
