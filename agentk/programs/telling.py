"""What a program was told by its manifest, and the words in which it tells its model."""

from __future__ import annotations

import json
from typing import Any, Dict, NamedTuple, Optional, Sequence

FILE = "program.json"  # in the directory it starts in, which only agentk writes
STEPS = 50
BURST = 4
WINDOW = 8000


class Told(NamedTuple):
    role: str = ""
    goal: str = ""
    backstory: str = ""
    instructions: str = ""
    context: Sequence[Dict[str, str]] = ()
    output: Optional[Dict[str, Any]] = None
    steps: int = STEPS
    burst: int = BURST
    window: int = WINDOW  # tokens of what a model is shown
    memory: int = 512 * 1024 * 1024  # bytes that its box has
    saves: Sequence[str] = ()  # names of Skills it may keep


def read(path: str = FILE) -> Told:
    """Raises OSError or ValueError when it is not there."""
    with open(path, encoding="utf-8") as file:
        told = json.load(file)
    return Told(**{name: told[name] for name in Told._fields if name in told})


def system(told: Told, how: Sequence[str]) -> str:
    """Who the model is and how it works: the same from the first step to the last, so that providers can cache it."""
    said = [f"You are {told.role.rstrip('.')}." if told.role else "", told.backstory]
    said += [f"Your goal: {told.goal}" if told.goal else "", told.instructions, *how]
    if told.output is not None:
        schema = json.dumps(told.output, ensure_ascii=False)
        said.append(f"Your answer is JSON, and nothing around it, that fits this JSON Schema:\n{schema}")
    said += [f'<text name="{one["name"]}">\n{one["text"]}\n</text>' for one in told.context]
    return "\n\n".join(part for part in said if part)


def task(told: Told, given: Any, attempt: int) -> str:
    """The first message; "" when there is nothing to do."""
    if given is None:
        work = told.goal or ("Do what your instructions say." if told.instructions else "")
    else:
        work = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, indent=2)
    if work and attempt > 1:
        work += f"\n\n{_ANEW.format(attempt=attempt)}"
    return work


def again(told: Told, wrong: str) -> str:
    """Why an answer was not taken."""
    how = " Answer with the JSON alone." if told.output is not None else ""
    return f"This answer was not taken: {wrong}.{how}"


_ANEW = """(This is attempt {attempt}: an earlier one ended before it had an answer. What its tools did has happened. \
Look before you do anything a second time.)"""
