"""Waiting that ends: with what was waited for, with the time, or as soon as it can no longer come true.

`judge` is pure; the rest feeds it from one watch.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from agentk.api import errors, kinds
from agentk.cli import jsonpath, usage
from agentk.client import client, watching

Object = dict[str, Any]


@dataclass(frozen=True)
class Want:
    """`--for`, taken apart."""

    kind: Literal["delete", "create", "condition", "jsonpath"]
    name: str = ""  # of the condition; of a jsonpath as typed
    value: str | None = None  # None: any value
    path: jsonpath.Path | None = None

    def __str__(self) -> str:
        return self.kind if not self.name else f"{self.name}={self.value}" if self.value else self.name


@dataclass(frozen=True)
class Verdict:
    state: Literal["met", "open", "lost"]
    why: str = ""


OPEN, MET = Verdict("open"), Verdict("met")


def parse(text: str) -> Want:
    """Read `--for`. Raises Usage with the forms that are known."""
    head, equals, rest = text.partition("=")
    if text in ("delete", "create"):
        return Want("delete" if text == "delete" else "create")
    if head == "condition" and rest:
        name, _, value = rest.partition("=")
        return Want("condition", name, value or "True")
    if head == "jsonpath" and rest:
        path, equals, value = _split_path(rest)
        return Want("jsonpath", path, value.strip("'\"") if equals else None, jsonpath.compile_path(path))
    raise usage.Usage(
        f"--for={text} is not understood",
        hint="use condition=NAME[=VALUE], delete, create or jsonpath='{.path}'[=VALUE]",
    )


def judge(want: Want, obj: Object | None, existed: bool) -> Verdict:
    """Whether `obj` (None: not there) is what was waited for, may become it, or never will."""
    if want.kind == "delete":
        return OPEN if obj else MET
    if want.kind == "create":
        return MET if obj else OPEN
    if obj is None:
        return Verdict("lost", "it was deleted") if existed else OPEN
    if watching.is_current(obj) and _is_met(want, obj):
        return MET
    why = _hopeless(want, obj)
    return Verdict("lost", why) if why else OPEN


def until(
    api: client.Client, kind: kinds.Kind, namespace: str, name: str, want: Want, end: float | None
) -> Object | None:
    """The object once `want` is met. Raises NotFound, Timeout, or Conflict when it can no longer come true."""
    selection = client.Selection(kind, namespace, "", f"metadata.name={name}")
    missing_is_error = want.kind not in ("delete", "create")
    last: Object | None = None
    for seen, obj in enumerate(watching.states(api, selection, end)):
        if obj is None and missing_is_error and not seen:
            api.get(kind, namespace, name)  # raises the daemon's own NotFound
        last = obj
        verdict = judge(want, obj, existed=bool(seen))
        if verdict.state == "met":
            return obj
        if verdict.state == "lost":
            raise errors.Conflict(f"{kind.singular}/{name} will never be {want}: {verdict.why}")
    hint = f"it is {last['status'].get('phase')}" if last and (last.get("status") or {}).get("phase") else ""
    raise errors.Timeout(f"timed out waiting for {want} on {kind.singular}/{name}", hint=hint)


def gone(
    api: client.Client, kind: kinds.Kind, namespace: str, name: str, uid: str, end: float | None
) -> None:
    """Returns when that very object is gone; one of the same name made since does not count."""
    selection = client.Selection(kind, namespace, "", f"metadata.name={name}")
    for obj in watching.states(api, selection, end):
        if obj is None or obj["metadata"]["uid"] != uid:
            return
    raise errors.Timeout(
        f"{kind.singular}/{name} is still being deleted", hint=f"agentk describe {kind.singular} {name}"
    )


def until_true(
    api: client.Client,
    selection: client.Selection,
    test: Callable[[Object | None], bool],
    end: float | None,
) -> bool:
    """Whether `test` came true for the one object of `selection` before `end`."""
    return any(test(obj) for obj in watching.states(api, selection, end))


def deadline(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def _is_met(want: Want, obj: Object) -> bool:
    if want.kind == "condition":
        return bool(
            watching.condition(obj, want.name).get("status", "").lower() == (want.value or "").lower()
        )
    assert want.path
    found = [jsonpath.words(value) for value in want.path.find(obj, obj)]
    return bool(found) if want.value is None else want.value in found


def _hopeless(want: Want, obj: Object) -> str:
    """Why it can no longer come true; "" while it may."""
    leaving = bool(obj["metadata"].get("deletionTimestamp"))
    if leaving and want.kind == "condition" and want.value == "True" and want.name.lower() != "finished":
        return "it is being deleted"
    # A finished agent changes by hand only.
    over = watching.is_current(obj) and watching.condition(obj, "Finished").get("status") == "True"
    return _ending(obj) if over else ""


def _ending(obj: Object) -> str:
    status = obj.get("status") or {}
    phase, reason, message = (str(status.get(key, "")) for key in ("phase", "reason", "message"))
    told = f"it has {phase.lower()}" + (f" ({reason})" if reason else "")
    return f"{told}: {message}" if message else told


def _split_path(text: str) -> tuple[str, str, str]:
    """`{.a[?(@.b=="c")]}=value` at the = behind the braces; without braces at the last one."""
    closed = text.rfind("}")
    if text.startswith("{") and closed > 0:
        rest = text[closed + 1 :]
        return text[: closed + 1], "=" if rest.startswith("=") else "", rest[1:]
    path, equals, value = text.partition("=")
    return path, equals, value
