"""What a program is doing, for whoever reads its log: a line for each thing that happens, and plain text alone."""

from __future__ import annotations

import json
import threading
from typing import Any, Dict, Sequence, TextIO

_LINE_LETTERS = 300
_VALUE_LETTERS = 60
_ANSWER_LETTERS = 20_000


class Progress:
    """Safe for threads."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._turn = threading.Lock()

    def line(self, text: str, depth: int = 0) -> None:
        self._write("  " * depth + short(text, _LINE_LETTERS))

    def step(self, number: int, names: Sequence[str], text: str) -> None:
        """What the model asks for, before that is done, for it may take long: and what it said with it."""
        counted = ", ".join(
            name if names.count(name) == 1 else f"{name} x{names.count(name)}"
            for name in dict.fromkeys(names)
        )
        self.line(f"step {number}: calls {counted}" + (f": {text}" if text.strip() else ""))

    def called(self, number: int, name: str, arguments: Dict[str, Any], what: str) -> None:
        given = ", ".join(f"{key}={_shown(value)}" for key, value in arguments.items())
        self.line(f"step {number}: {name}({short(given, _LINE_LETTERS // 2)}) -> {what}")

    def tell(self, text: str) -> None:
        """What is said to whoever reads along, line by line."""
        for line in text[:_ANSWER_LETTERS].splitlines():
            self._write(_plain(line))

    def answer(self, steps: int, text: str) -> None:
        self._write(f"answer after {steps} step{'' if steps == 1 else 's'}:")
        for line in text[:_ANSWER_LETTERS].strip().splitlines():
            self._write(f"  {_plain(line)}")
        if len(text) > _ANSWER_LETTERS:
            self._write(f"  … {len(text) - _ANSWER_LETTERS} more letters")

    def _write(self, text: str) -> None:
        with self._turn:
            try:
                print(text, file=self._out, flush=True)
            except (OSError, UnicodeError):
                pass  # nobody reads along: no reason to stop


def short(text: str, letters: int) -> str:
    """On one line, and no longer than this."""
    text = " ".join(_plain(text[: 4 * letters]).split())
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def size(text: str) -> str:
    """How much of it there is, or the text itself when that is as short."""
    text = text.strip()
    lines = text.count("\n") + 1
    if lines == 1 and len(text) <= _VALUE_LETTERS * 2:
        return text or "nothing"
    return f"{lines} line{'' if lines == 1 else 's'}, {len(text)} letters"


def _shown(value: Any) -> str:
    return short(json.dumps(value, ensure_ascii=False), _VALUE_LETTERS)


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
