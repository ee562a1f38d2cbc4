"""Runs code routines of a machine in jails of their own, and makes code of a prompt routine under the same name."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

from agentk.programs import machine_code, progress, toolbox
from agentk.programs.machine_cells import Cells
from agentk.sdk import client, errors, results

SECONDS = 60.0  # of one run, waiting included
CPU_SECONDS = 10
ASKS = 32  # of one routine
_KEPT_BYTES = 48 * 1024 * 1024  # of a box: for the machine, and for the interpreter of the code
_LEAST_BYTES = 8 * 1024 * 1024
OUTPUT_BYTES = 2 * 1024 * 1024
HARDEN = "harden"

_CALLED = re.compile(r"^def run\(|\Alambda\b", re.MULTILINE)
Ask = Callable[[str, List[Any]], Any]


class Failed(Exception):
    """It did not do what it was invoked for: whoever invoked it is told."""


def is_code(text: str) -> bool:
    return text.lstrip().startswith(machine_code.PREFIX)


def is_function(text: str) -> bool:
    """Whether it can be called; else it is a script, or nothing that runs."""
    try:
        machine_code.program(text)
    except machine_code.Unfit:
        return False
    language, source = machine_code.parted(text)
    return language == "javascript" or bool(_CALLED.search(source))


class Jail(NamedTuple):
    """Where code runs, and how much memory it may take there."""

    agent: client.Agent
    say: progress.Progress
    memory_bytes: int


def jail(agent: client.Agent, say: progress.Progress, box_bytes: int) -> Jail:
    """What runs away takes less than all of the box, or the box would end with it, and the machine in it."""
    return Jail(agent, say, max(_LEAST_BYTES, min(machine_code.MEMORY_BYTES, box_bytes - _KEPT_BYTES)))


def run(place: Jail, text: str, value: Any, ask: Ask) -> Any:
    """What it returns. `ask`: does for it what it asks. Raises Failed."""
    answers: List[Dict[str, Any]] = []
    for _ in range(ASKS + 1):
        told = _once(place, text, {"value": value, "answers": answers})
        if "ask" not in told:
            return told.get("result")
        what, given = str(told["ask"]), told.get("given")
        answer: Dict[str, Any] = {"ask": what, "given": given}
        try:
            if what not in machine_code.ASKS or not isinstance(given, list):
                raise Failed(f"there is no {what}")
            answer["result"] = ask(what, given)
        except (IndexError, RecursionError):
            answer["error"] = f"{what} is not given what it needs"
        except Failed as error:
            answer["error"] = str(error)
        answers.append(answer)
    raise Failed(f"it asks for more than {ASKS} things")


def check(place: Jail, text: str) -> None:
    """Whether it is a routine at all, without running it. Raises Failed."""
    _once(place, text, {"check": True})


def _once(place: Jail, text: str, told: Dict[str, Any]) -> Dict[str, Any]:
    mark = f"\x1e{secrets.token_hex(8)}"
    try:
        program = machine_code.program(text)
        bounds = {"mark": mark, "cpuSeconds": CPU_SECONDS, "memoryBytes": place.memory_bytes}
        given = json.dumps({**told, **bounds})
        ran = place.agent.exec(program, stdin=given, timeout_seconds=SECONDS, output_bytes=OUTPUT_BYTES)
    except machine_code.Unfit as error:
        raise Failed(str(error)) from None
    except errors.Disconnected:
        raise
    except errors.ApprovalDenied as error:
        raise Failed(f"{toolbox.SAID_NO} {error.message}") from None
    except errors.CallError as error:
        raise Failed(toolbox.refusal(error)) from None
    said, found = _parted(ran, mark)
    if said.strip():
        place.say.line(f"prints: {said}")
    if found is None:
        raise Failed(_why(ran))
    if "error" in found:
        raise Failed(str(found["error"]))
    return dict(found)


def _parted(ran: results.Ran, mark: str) -> Tuple[str, Any]:
    """What it printed, and what it answered."""
    said, there, rest = ran.stdout.rpartition(f"\n{mark}")
    if not there:
        return ran.stdout, None
    try:
        found = json.loads(rest)
    except (ValueError, RecursionError):
        return said, None
    return said, found if isinstance(found, dict) else None


def _why(ran: results.Ran) -> str:
    if ran.reason == "OOMKilled":
        return "it took too much memory"
    if ran.reason == "DeadlineExceeded":
        return f"it took longer than {SECONDS:g} s"
    if ran.exit_code == 128 + 24:
        return "it took too much time"
    if ran.stdout_truncated:
        return f"it printed more than {OUTPUT_BYTES // 1024**2} MiB"
    wrong = ran.stderr.strip().rpartition("\n")[2]
    return f"it ended without an answer: {wrong[:500] or ran.reason}"


def harden(
    place: Jail,
    cells: Cells,
    name: str,
    code: str,
    write: Callable[[str], str],
) -> str:
    """`code` in place of the prompt routine of this name, or what `write` makes of the prompt: where the earlier text
    is kept, before anything else, or "" when it is this code already. Nothing is changed unless it is a routine.
    Whoever is ended in the middle leaves a routine that is as before or code, and does it again. Raises Failed and
    CallError."""
    before = cells.routine(name)
    if before is None:
        raise Failed(f"there is no routine {name!r}")
    if is_code(before) and not code:
        raise Failed(f"{name} is code already")
    text = machine_code.routine(code or write(_WRITE.format(name=name, text=before)))
    if text == before:
        return ""
    check(place, text)
    kept = cells.keep_version(name, before)
    cells.remember(name, text, routine=True)
    return kept


_WRITE = """This is the routine {name}, which a model does as it is written:

<routine>
{text}
</routine>

Write it as code that does the same, for it is always the same. It is one JavaScript arrow function, or one Python \
function named run, of one value: the arguments as JSON. What it returns is JSON. It has no files and no network; it \
may call invoke(name, args), recall(name), remember(name, value) and search(query), which answer at once. Answer with \
the code alone, and nothing around it."""
