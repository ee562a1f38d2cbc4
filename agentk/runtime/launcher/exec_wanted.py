"""What the launcher believes of a command that the daemon wants run beside a box. Pure; refuses by naming the field.

The box is known and was checked; a command can only be narrower than it: no limit above the agent's, no variable that
tells who the agent is, and every size bounded, for what waits here waits in the memory of a process that all boxes
hang on.
"""

import base64
import binascii
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime.launcher import checking, wire

STDIN_MAX_BYTES = wire.STDIN_MAX_BYTES
OUTPUT_BYTES = 1024 * 1024  # of each stream, when nothing is said
OUTPUT_MAX_BYTES = wire.OUTPUT_MAX_BYTES
WINDOW_MAX_BYTES = 1 << 30  # the most that may be allowed ahead to one that streams
_TIMEOUT_MAX_SECONDS = 24 * 3600.0
_OPEN_FILES = 1024  # what a box has when its limits say nothing
_EXEC_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_RESERVED = "AGENTK_"  # who the agent is and where its gate is: control says so, once a box
# What the agent's group holds; the rest of Limits is not a command's to ask for.
_LOWERED = ("cpu_millis", "memory_bytes", "pids", "open_files")


@dataclass(frozen=True)
class Wanted:
    """One command."""

    argv: Sequence[str]
    seconds: float
    stdin: bytes = b""  # nothing: /dev/null
    env: Mapping[str, str] = field(default_factory=dict)  # over the box's
    cwd: str = ""  # "" for the box's
    limits: words.Limits = field(default_factory=words.Limits)
    output_bytes: int | None = None  # of each stream; None: the default, or all when it streams
    exec_id: str = ""
    streams: bool = False

    @property
    def bound(self) -> int | None:
        """Of what it may say, a stream."""
        return OUTPUT_BYTES if self.output_bytes is None and not self.streams else self.output_bytes

    @property
    def kept_bytes(self) -> int:
        """The most that is kept of what it says."""
        return 0 if self.streams else 2 * (self.bound or 0)


def read(message: wire.Message) -> Wanted:
    """Raises BadRequest or Invalid."""
    argv = message.get("argv")
    if not isinstance(argv, list):
        raise errors.BadRequest("exec needs argv and timeout_seconds")
    checking.check_argv(argv)
    streams = message.get("stream", False)
    if not isinstance(streams, bool):
        raise _bad("stream", "must be true or false")
    exec_id = check_exec_id(message["exec_id"]) if message.get("exec_id") else ""
    if streams and not exec_id:
        raise _bad("exec_id", "is needed to stream")
    cwd = message.get("cwd") or ""
    if cwd != "":
        checking.check_inside(cwd, "cwd")
    return Wanted(
        argv=tuple(argv),
        seconds=read_seconds(message.get("timeout_seconds")),
        stdin=_stdin(message.get("stdin")),
        env=read_env(message.get("env")),
        cwd=cwd,
        limits=_limits(message.get("limits")),
        output_bytes=_output_bytes(message.get("output_bytes")),
        exec_id=exec_id,
        streams=streams,
    )


def check_exec_id(exec_id: object) -> str:
    """Names one command of a box among those that run."""
    if not isinstance(exec_id, str) or not _EXEC_ID.fullmatch(exec_id):
        raise _bad("exec_id", "is not the id of a command")
    return exec_id


def check_window(more: object) -> int:
    """How many bytes more may be sent to one that streams."""
    if not isinstance(more, int) or isinstance(more, bool) or not 0 < more <= WINDOW_MAX_BYTES:
        raise _bad("bytes", f"must be a number of 1 to {WINDOW_MAX_BYTES}")
    return more


def check_lower(wanted: words.Limits, agents: words.Limits) -> None:
    """Raises Invalid for a limit above the agent's."""
    for name in _LOWERED:
        asked, bound = getattr(wanted, name), getattr(agents, name)
        if name == "open_files":
            bound = bound or _OPEN_FILES
        if asked is not None and bound is not None and asked > bound:
            raise _bad(f"limits.{name}", f"{asked} is above the agent's own {bound}")


def read_seconds(told: object) -> float:
    """How long it may take."""
    if not isinstance(told, int | float) or isinstance(told, bool) or not math.isfinite(told):
        raise errors.BadRequest("exec needs argv and timeout_seconds")
    return float(max(0, min(told, _TIMEOUT_MAX_SECONDS)))


def _stdin(told: object) -> bytes:
    if told is None:
        return b""
    if not isinstance(told, str) or len(told) > (STDIN_MAX_BYTES + 2) // 3 * 4:
        raise _bad("stdin", f"must be base64 text of at most {STDIN_MAX_BYTES} bytes")
    try:
        data = base64.b64decode(told, validate=True)
    except (binascii.Error, ValueError):
        raise _bad("stdin", "is not base64") from None
    if len(data) > STDIN_MAX_BYTES:
        raise _bad("stdin", f"is over {STDIN_MAX_BYTES} bytes")
    return data


def read_env(told: object) -> Mapping[str, str]:
    """What goes over the box's own environment."""
    if told is None:
        return {}
    env = checking.check_env(told)
    for name in env:
        if name.startswith(_RESERVED):
            raise _bad("env", f"{name} is agentk's own")
    return env


def _limits(told: object) -> words.Limits:
    if told is None:
        return words.Limits()
    if not isinstance(told, dict):
        raise _bad("limits", "must be an object")
    given = {name: value for name, value in told.items() if value is not None}
    if given.get("cpu_weight") == words.Limits().cpu_weight:
        del given["cpu_weight"]
    for name, value in given.items():
        # Unlike elsewhere on this wire an unknown field is refused: ignored, it would be a limit that nobody holds.
        if name not in _LOWERED:
            raise _bad(f"limits.{name}", "cannot be lowered for one command")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 62:
            raise _bad(f"limits.{name}", "must be a number above 0")
    return dataclasses.replace(words.Limits(), **given)


def _output_bytes(told: object) -> int | None:
    if told is None:
        return None
    if not isinstance(told, int) or isinstance(told, bool) or told < 0:
        raise _bad("output_bytes", "must be a number")
    return min(told, OUTPUT_MAX_BYTES)


def _bad(name: str, message: str) -> errors.Invalid:
    return errors.Invalid(message, field=f"exec.{name}")
