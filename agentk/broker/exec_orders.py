"""What a guest asks to be run, as the runtime takes it, and what came of it, as the guest is told. Pure.

Code goes to its interpreter as a person would give it (`python -c`), so that imports, tracebacks and standard input
are as usual. What is too long for an argument is read by the program itself, from the front of its standard input.
"""

import base64
import binascii
import json
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, quantities
from agentk.broker.methods import Params
from agentk.runtime import box
from agentk.runtime.ends import Ends

_WORKSPACE = "/workspace"
# Python is not to keep back what it says: a program that is killed has then said it.
_INTERPRETERS = {"python": ("python", "-u", "-c"), "shell": ("sh", "-c", "--"), "node": ("node",)}
_ARGUMENT_BYTES = 100 * 1024  # the kernel takes 128 KiB
_LONG_PYTHON = """\
def _code(size):
    import os
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data)) or exit("the code was cut off")
    return compile(data, "<string>", "exec")
exec(_code({size}))
"""
_LONG_SHELL = 'eval "$(head -c {size})"'
_LONG_NODE = """\
{{ const fs = require("fs"), data = Buffer.alloc({size}); let got = 0;
while (got < data.length) got += fs.readSync(0, data, got, data.length - got) || process.exit(1);
require("vm").runInThisContext(data.toString(), {{filename: "[eval]"}}) }}
"""
_LONG = {"python": _LONG_PYTHON, "shell": _LONG_SHELL, "node": _LONG_NODE}
_TEXT_MAX_BYTES = 3 * 1024 * 1024 + 512 * 1024  # of one stream as JSON: both fit an answer's line
_TIMED_OUT = 124  # as timeout(1) has it
_KILLED = 137
NOT_FOUND = 127
# Whose words the runtime uses → the guest's.
_FIELDS = {
    "exec.limits.cpu_millis": "params.limits.cpu",
    "exec.limits.memory_bytes": "params.limits.memory",
    "exec.limits.pids": "params.limits.pids",
    "exec.env": "params.env",
    "box.env": "params.env",
    "box.argv": "params.argv",
    "box.cwd": "params.workingDir",
}


@dataclass(frozen=True)
class Order:
    argv: tuple[str, ...]
    language: str  # as Policies name it
    stdin: bytes
    env: Mapping[str, str]
    cwd: str
    timeout_seconds: float
    output_bytes: int
    limits: box.Limits
    encoding: str


def language(params: Params) -> str:
    """python, shell, node or argv."""
    return "argv" if "argv" in params else str(params.get("language", "python"))


def read(params: Params) -> Order:
    """Raises BadRequest naming the parameter."""
    spoken, stdin = language(params), _stdin(params)
    if spoken == "argv":
        argv: tuple[str, ...] = tuple(params["argv"])
    else:
        argv, before = _program(spoken, params["code"])
        stdin = before + stdin
    return Order(
        argv=argv,
        language=spoken,
        stdin=stdin,
        env=params["env"],
        cwd=directory(params["workingDir"]),
        timeout_seconds=float(params["timeoutSeconds"]),
        output_bytes=params["outputBytes"],
        limits=_limits(params["limits"]),
        encoding=params["encoding"],
    )


def check_session(params: Params) -> None:
    """What a session has from its beginning is not for a step to say. Raises BadRequest."""
    if language(params) != "python":
        raise errors.BadRequest("a session runs Python", field="params.session", hint="give code, in python")
    for name in ("stdin", "env", "limits", "background"):
        if params[name]:
            told = "is not for a step of a session"
            raise errors.BadRequest(told, field=f"params.{name}", hint="leave it out, or leave session out")
    if directory(params["workingDir"]) != _WORKSPACE:
        hint = "its code goes there by os.chdir"
        raise errors.BadRequest("a session begins in /workspace", field="params.workingDir", hint=hint)


def refused(error: errors.AgentkError) -> errors.AgentkError:
    """What the runtime says of an order, in the guest's words."""
    field = _FIELDS.get(error.field)
    return errors.BadRequest(error.message, field=field, hint=error.hint) if field else error


def missing(order: Order, result: box.ExecResult) -> errors.AgentkError | None:
    """The error for code in a language that this jail does not have."""
    if order.language == "argv" or exit_code(result) != NOT_FOUND:
        return None
    name = order.argv[0]
    if not result.stderr.startswith(f"agentk: {name}: not found".encode()):
        return None
    hint = f"install {name} on the host below /usr, or name one in the agent's spec.environment"
    return errors.RuntimeRefused(f"there is no {name} in this jail", hint=hint, field="params.language")


def answer(
    run: str, order: Order, result: box.ExecResult, seconds: float, heard: Mapping[str, Ends] | None = None
) -> dict[str, Any]:
    """The result of exec. `heard`: what was said, when it was not kept by the runtime."""
    told: dict[str, Any] = {"id": run, "state": "Exited"}
    told |= {"exitCode": exit_code(result), "reason": reason(result)}
    kept = {
        "stdout": (result.stdout, result.stdout_truncated),
        "stderr": (result.stderr, result.stderr_truncated),
    }
    for name, ends in (heard or {}).items():
        kept[name] = (ends.kept(), ends.truncated)
    for name, (data, truncated) in kept.items():
        told[name], shortened = text(data, order.encoding)
        told[f"{name}Truncated"] = truncated or shortened
    return {**told, "durationSeconds": round(seconds, 3)}


def exit_code(result: box.ExecResult) -> int:
    """As a shell has it."""
    if result.timed_out:
        return _TIMED_OUT
    if result.exit.code is not None:
        return result.exit.code
    return 128 + result.exit.signal if result.exit.signal else _KILLED


def reason(result: box.ExecResult) -> str:
    if result.timed_out:
        return "DeadlineExceeded"
    if result.cancelled:
        return "Cancelled"
    if exit_code(result) == 0:
        return "Completed"
    if result.exit.counters.oom_kills:
        return "OOMKilled"
    return "PidsExceeded" if result.exit.counters.pids_denied else "Error"


def text(data: bytes, encoding: str) -> tuple[str, bool]:
    """As the guest wants it, and whether it had to be shortened to fit an answer."""
    if encoding == "base64":
        return base64.b64encode(data).decode(), False
    shortened = False
    while True:
        told = data.decode("utf-8", "replace")
        if 6 * len(data) <= _TEXT_MAX_BYTES:  # no byte becomes more than that
            return told, shortened
        size = len(json.dumps(told, ensure_ascii=False).encode())
        if size <= _TEXT_MAX_BYTES:
            return told, shortened
        ends = Ends(len(data) * _TEXT_MAX_BYTES // size * 9 // 10)
        ends.add(data)
        data, shortened = ends.kept(), True


def _program(spoken: str, code: str) -> tuple[tuple[str, ...], bytes]:
    """The command, and what its standard input begins with."""
    data, before = code.encode(), b""
    if len(data) > _ARGUMENT_BYTES or "\0" in code:
        code, before = _LONG[spoken].format(size=len(data)), data
    # node takes what looks like an option for one
    last = f"--eval={code}" if spoken == "node" else code
    return (*_INTERPRETERS[spoken], last), before


def _stdin(params: Params) -> bytes:
    given = str(params["stdin"])
    if params["encoding"] == "utf-8":
        return given.encode()
    try:
        return base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise errors.BadRequest("stdin is not base64", field="params.stdin") from None


def directory(given: str) -> str:
    """Where a program begins."""
    whole = posixpath.normpath(posixpath.join(_WORKSPACE, given))
    return "/" + whole.lstrip("/")  # two slashes stay two: POSIX allows it


def _limits(given: Mapping[str, Any]) -> box.Limits:
    readers: dict[str, tuple[str, Callable[[Any], int]]] = {
        "cpu": ("cpu_millis", quantities.parse_cpu),
        "memory": ("memory_bytes", quantities.parse_quantity),
        "pids": ("pids", int),
    }
    limits: dict[str, int] = {}
    for name, value in given.items():
        field, parse = readers[name]
        try:
            limits[field] = parse(value)
        except errors.Invalid as error:
            raise errors.BadRequest(error.message, field=f"params.limits.{name}", hint=error.hint) from None
        if limits[field] <= 0:
            raise errors.BadRequest("must be above 0", field=f"params.limits.{name}")
    return box.Limits(**limits)
