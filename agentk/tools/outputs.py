"""What came of a program, as the answer of a tool: by its exit code, and as text, lines or JSON. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentk.sdk import wire
from agentk.tools import speaking
from agentk.tools.offers import Outcome

_SAID_BYTES = 8 * 1024  # of what a program that failed said


@dataclass(frozen=True)
class Ran:
    """A program that has ended."""

    exit_code: int  # as a shell has it
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False
    why: str = ""  # DeadlineExceeded, OOMKilled …; "" when it ended by itself
    seconds: float = 0.0  # that it was given; 0: nobody says


def outcome(command: Mapping[str, Any], ran: Ran) -> Outcome:
    """Never raises, whatever the program wrote."""
    rule: Mapping[str, Any] = next(
        (one for one in command.get("exitCodes") or () if one["code"] == ran.exit_code), {}
    )
    means = rule.get("means") or ("Ok" if ran.exit_code == 0 else "Error")
    if ran.why or means != "Ok":
        return failed(ran, str(rule.get("message") or ""))
    told = ran.stdout.decode("utf-8", "replace")
    said = [str(rule["message"])] if rule.get("message") else []
    if ran.truncated:
        said.append("the middle of what the program wrote is left out: it wrote more than is taken")
    match command.get("output", "Text"):
        case "Json":
            return _json(told, said, ran.truncated)
        case "Lines":
            few = told.count("\n") <= wire.VALUES
            return made(told, said, structured={"lines": told.splitlines()} if few else None)
    return made(told or _end(ran.stderr), said)  # git push, for one, says on stderr alone what it did


def made(told: str, said: list[str] | None = None, *, structured: Any = None, wrong: bool = False) -> Outcome:
    """A text, and what else is to be said of it."""
    texts = [*(said or ()), told] if told or not said else said
    return Outcome(tuple({"type": "text", "text": one} for one in texts), structured, wrong)


def many(told: str, wrong: bool = False) -> Outcome:
    """JSON as it was written: programs read it, nobody here does."""
    return Outcome(({"type": "text", "text": told},), None, wrong, is_json=True)


def failed(ran: Ran, message: str = "") -> Outcome:
    why = message or {
        "": f"it ended with exit code {ran.exit_code}",
        "DeadlineExceeded": f"it took longer than it may{_limit(ran.seconds)}",
        "OOMKilled": "it needed more memory than it may",
        "PidsExceeded": "it made more processes than it may",
        "Cancelled": "it was ended",
    }.get(ran.why, ran.why)
    pieces = [_end(ran.stderr), _end(ran.stdout)]
    return made("\n".join(piece for piece in pieces if piece), [why], wrong=True)


def _limit(seconds: float) -> str:
    return f": {seconds:g} s" if seconds else ""


def _json(told: str, said: list[str], truncated: bool) -> Outcome:
    try:
        structured = speaking.parsed(told)
    except speaking.TooMany:
        return many(told.strip())
    except ValueError:
        why = "it wrote more than is taken" if truncated else "it wrote something that is no JSON"
        return made(told[:_SAID_BYTES], [why], wrong=True)
    return made(told.strip(), said, structured=structured)


def _end(data: bytes) -> str:
    text = data.decode("utf-8", "replace").strip()
    return text if len(text) <= _SAID_BYTES else f"…{text[-_SAID_BYTES:]}"
