"""What came of Tasks: waited for together over one watch, and drawn."""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from agentk.api import errors, kinds
from agentk.cli import columns, show
from agentk.client import client, watching

_QUIET_SECONDS = 1.0
_PENDING_TOLD = 10  # lines: of a thousand that wait for the same, the first ones tell it
_HEADERS = ("Name", "Phase", "Reason", "Result")
_RESULT_LETTERS = 60
_TOLD = ("phase", "reason", "message", "exitCode", "attempts", "usage", "startTime", "completionTime")


def ended(
    api: client.Client, namespace: str, names: Sequence[str], end: float | None
) -> dict[str, show.Object | None]:
    """Each Task by its name once it has ended, also one that was deleted right after; None for those that had not
    when time was up. Raises NotFound for one that is not there, or was deleted before its end."""
    wanted = set(names)
    found: dict[str, show.Object | None] = dict.fromkeys(names)
    if not wanted:
        return found
    fields = f"metadata.name={names[0]}" if len(wanted) == 1 else ""
    selection = client.Selection(kinds.TASK, namespace, "", fields)
    listing = api.list(selection)
    pending = _Pending(wanted)
    for obj in listing.items:
        _note(found, wanted, obj)
        pending.told(obj)
    there = {obj["metadata"]["name"] for obj in listing.items}
    for name in wanted - there:
        api.get(kinds.TASK, namespace, name)  # raises the daemon's own NotFound
    progress = _Progress(len(found))
    try:
        for event in watching.watch(api, selection, listing, end) if wanted else ():
            name = event.obj["metadata"]["name"]
            _note(found, wanted, event.obj)
            pending.told(event.obj)
            if event.type == "DELETED" and name in wanted:
                raise errors.NotFound(f"task/{name} was deleted before it had ended")
            progress.told(found)
            if not wanted:
                break
    finally:
        progress.clear()
    return found


def _note(found: dict[str, show.Object | None], wanted: set[str], obj: show.Object) -> None:
    name = obj["metadata"]["name"]
    if name in wanted and (obj.get("status") or {}).get("phase") in kinds.ENDED_PHASES:
        found[name] = obj
        wanted.discard(name)


class _Pending:
    """Says what keeps Tasks from beginning, once each: who waits for them would not know."""

    def __init__(self, wanted: set[str]) -> None:
        self._wanted, self._told = wanted, set[tuple[str, str]]()

    def told(self, obj: show.Object) -> None:
        name, why = obj["metadata"]["name"], waits_for(obj)
        if why and name in self._wanted and (name, why) not in self._told and len(self._told) < _PENDING_TOLD:
            self._told.add((name, why))
            show.say(columns.safe(f"task/{name} has not begun yet: {why}"))


def waits_for(obj: show.Object) -> str:
    """What a Task says that it waits for before it can begin."""
    status = obj.get("status") or {}
    return str(status.get("message") or "") if status.get("phase") == "Pending" else ""


class _Progress:
    """One changing line on a terminal, for what takes more than a second."""

    def __init__(self, count: int) -> None:
        self._count, self._began, self._shown = count, time.monotonic(), False

    def told(self, found: dict[str, show.Object | None]) -> None:
        if not sys.stderr.isatty() or time.monotonic() - self._began < _QUIET_SECONDS:
            return
        over = [obj for obj in found.values() if obj is not None]
        failed = sum(obj["status"]["phase"] != "Succeeded" for obj in over)
        width = 30
        bar = "#" * (width * len(over) // self._count)
        words = f"[{bar:<{width}}] {len(over)} of {self._count} have ended" + (
            f", {failed} not well" if failed else ""
        )
        self._shown = True
        print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def drawn(
    found: Sequence[show.Object],
    form: show.Format,
    *,
    single: bool,
    result: bool = False,
    headers: bool = True,
) -> str:
    """Tasks as people or programs read them. `result`: nothing but the result of the one there is."""
    if form.name == "name":
        return "".join(f"{show.name_of(obj)}\n" for obj in found)
    if form.name:
        content = [told(obj) for obj in found]
        return show.document(content[0] if single else content, form)
    if result and len(found) == 1:
        value = given(found[0])
        return "" if value is None else _plain(value) + "\n"
    rows = []
    for obj in found:
        status = obj.get("status") or {}
        rows.append(
            [obj["metadata"]["name"], status.get("phase") or "Pending", status.get("reason"), _line(obj)]
        )
    return columns.draw(_HEADERS, rows, columns.wants_colour(sys.stdout), headers)


def told(obj: show.Object) -> dict[str, Any]:
    """What came of one Task, its result as the JSON it is."""
    status, metadata = obj.get("status") or {}, obj["metadata"]
    made: dict[str, Any] = {"name": metadata["name"], "namespace": metadata["namespace"]}
    if "input" in obj["spec"]:
        made["input"] = obj["spec"]["input"]
    if status.get("agentName"):
        made["agent"] = status["agentName"]
    made |= {key: status[key] for key in _TOLD if key in status}
    made.setdefault("phase", "Pending")
    made["result"] = given(obj)
    return made


def given(obj: show.Object) -> Any:
    """The result; None when there is none."""
    text = (obj.get("status") or {}).get("result")
    return None if text is None else json.loads(text)


def tell_failure(obj: show.Object) -> None:
    """Why one did not succeed, for people."""
    status = obj["status"]
    if status["phase"] != "Succeeded":
        why = ": ".join(str(status[key]) for key in ("reason", "message") if status.get(key))
        show.say(columns.safe(f"task/{obj['metadata']['name']} {status['phase'].lower()}: {why}"))


def _plain(value: Any) -> str:
    """Text as it is, except what would drive a terminal; all else as JSON."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, indent=2)
    if not sys.stdout.isatty():
        return value
    return "\n".join(columns.safe(line) for line in value.split("\n"))


def _line(obj: show.Object) -> str:
    value = given(obj)
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join(text.split())
    return line if len(line) <= _RESULT_LETTERS else line[: _RESULT_LETTERS - 1] + "…"
