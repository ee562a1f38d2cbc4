"""`agentk describe`: everything about an object for people, with its events."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from agentk.api import errors, kinds, tables
from agentk.cli import columns, connect, events, options, show, targets, telling, usage, watching
from agentk.client import client

app = typer.Typer(**options.APP)

_WIDTH = 30
# Shown apart, or of no use to people.
_ELSEWHERE = frozenset({"conditions", "observedGeneration", "run"})
# Of no use to people, in the spec of an Approval.
_INNER = frozenset({"parts", "slot", "clock", "digest"})
# What is below them is named by whoever wrote it.
_NAMES = frozenset({"data", "files", "input", "arguments", "query", "properties"})
_WORDS = {"cpu": "CPU", "uid": "UID", "id": "ID", "ttl": "TTL", "oom": "OOM"}


@app.command()
def describe(
    words: Annotated[list[str], typer.Argument(metavar="KIND [NAME…]", show_default=False)],
    namespace: options.Namespace = "",
    labels: options.Labels = "",
    show_events: Annotated[
        bool, typer.Option("--show-events/--no-events", help="What happened to it.")
    ] = True,
) -> int:
    """Tell everything about objects.

    Examples:

    \b
      agentk describe agent triage
      agentk describe agents -l tier=web
      agentk describe runtime/nsjail
    """
    where = options.namespace(namespace)
    api = connect.connect()
    chosen = targets.parse(words)
    if labels and any(one.name for one in chosen):
        raise usage.Usage("a NAME and -l do not go together")
    found: list[tuple[kinds.Kind, show.Object]] = []
    failed = False
    for one in chosen:
        try:
            if one.name:
                found.append((one.kind, api.get(one.kind, where, one.name)))
            else:
                selection = client.Selection(one.kind, where, labels)
                found += [(one.kind, obj) for obj in api.list(selection).items]
        except errors.NotFound as error:
            failed = True
            telling.error(error)
    if not found and not failed:
        show.say("No resources found")
    for at, (kind, obj) in enumerate(found):
        show.write(("\n\n" if at else "") + text(kind, obj, _events(api, kind, obj) if show_events else None))
    return 1 if failed else 0


def text(kind: kinds.Kind, obj: show.Object, happened: Sequence[show.Object] | None) -> str:
    """The description; `happened` None leaves the events out."""
    lines = [*_metadata(obj), *_fields(_rest(kind, obj), "")]
    conditions = (obj.get("status") or {}).get("conditions") or []
    if conditions:
        rows = [[one["type"], one["status"], one.get("reason"), one.get("message")] for one in conditions]
        lines += ["Conditions:", *_table(["Type", "Status", "Reason", "Message"], rows)]
    if happened is not None:
        lines += _happened(happened)
    return "\n".join(lines) + "\n"


def _metadata(obj: show.Object) -> Iterator[str]:
    metadata = obj["metadata"]
    yield _line("Name", metadata["name"])
    if metadata.get("namespace"):
        yield _line("Namespace", metadata["namespace"])
    for name in ("labels", "annotations"):
        pairs = sorted((metadata.get(name) or {}).items())
        yield _line(name.capitalize(), f"{pairs[0][0]}={pairs[0][1]}" if pairs else "<none>")
        yield from (" " * _WIDTH + columns.safe(f"{key}={value}") for key, value in pairs[1:])
    yield _line("Created", metadata.get("creationTimestamp", ""))
    if metadata.get("deletionTimestamp"):
        yield _line("Deletion asked for", metadata["deletionTimestamp"])
        yield _line("Finalizers", ", ".join(metadata.get("finalizers") or []) or "<none>")
    for owner in metadata.get("ownerReferences") or []:
        yield _line("Owned by", f"{owner['kind']}/{owner['name']}")
    yield _line("Generation", f"{metadata.get('generation', '<none>')}")


def _rest(kind: kinds.Kind, obj: show.Object) -> dict[str, Any]:
    """What is particular to the kind. Values of Secrets are never shown, only how long they are."""
    rest = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
    if kind is kinds.SECRET:
        import base64

        data = rest.get("data") or {}
        rest["data"] = {key: f"{len(base64.b64decode(value))} bytes" for key, value in data.items()}
    if kind is kinds.APPROVAL:
        spec = {key: value for key, value in rest["spec"].items() if key not in _INNER}
        rest["spec"] = {**spec, "arguments": _exact(spec.get("arguments") or {})}
    status = rest.pop("status", None) or {}
    shown = {key: value for key, value in status.items() if key not in _ELSEWHERE}
    return {"status": shown, **rest}  # how it is comes before how it was asked to be


def _exact(value: Any) -> Any:
    """What somebody is asked about: nothing of it left out for being empty, and no two lists look alike."""
    if isinstance(value, dict):
        return {key: _exact(inner) for key, inner in value.items()} or "{}"
    if isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
        return [_exact(one) for one in value]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _fields(value: dict[str, Any], indent: str, titled: bool = True) -> Iterator[str]:
    """`titled`: keys are fields of ours; else they are somebody's own names, and are shown as they are."""
    for key, inner in value.items():
        if inner in (None, {}, []):
            continue
        field, title = (key, _title(key)) if titled else ("", columns.safe(key))
        if isinstance(inner, dict):
            below = list(_fields(inner, indent + "  ", titled and key not in _NAMES))
            yield from [f"{indent}{title}:", *below] if below else []
        elif isinstance(inner, list):
            yield from _listed(field, title, inner, indent, titled)
        else:
            yield from _scalar(field, title, inner, indent)


def _listed(key: str, title: str, items: list[Any], indent: str, titled: bool) -> Iterator[str]:
    if all(not isinstance(item, (dict, list)) for item in items):
        if key in ("command", "args"):
            import shlex

            yield _line(title, shlex.join(map(str, items)), indent)
        else:
            yield _line(title, ", ".join(map(str, items)), indent)
        return
    yield f"{indent}{title}:"
    if key == "buckets" and all(map(_is_bucket, items)):
        yield from _histogram(items, indent + "  ")
        return
    for item in items:
        inner = item if isinstance(item, dict) else {"items": item}
        body = list(_fields(inner, indent + "    ", titled))
        if body:
            yield f"{indent}  - {body[0].strip()}"
            yield from body[1:]


def _is_bucket(item: Any) -> bool:
    fields = item if isinstance(item, dict) else {}
    bound = fields.get("leMs")
    return (
        fields.keys() == {"leMs", "count"}
        and type(fields["count"]) is int
        and (type(bound) is int or bound == "+Inf")
    )


def _histogram(buckets: list[dict[str, Any]], indent: str) -> Iterator[str]:
    """How many of each bucket alone; empty ones are left out."""
    below = 0
    for bucket in buckets:
        if bucket["count"] > below:
            bound = "more" if bucket["leMs"] == "+Inf" else f"up to {bucket['leMs']} ms"
            yield f"{indent}{bound:<16}{bucket['count'] - below}"
        below = bucket["count"]


def _scalar(key: str, title: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, str) and "\n" in value.strip():
        yield f"{indent}{title}:"
        yield from (f"{indent}  {columns.safe(line)}" for line in value.strip().splitlines())
    elif key.endswith("Usec") and isinstance(value, int):
        yield _line(_title(key.removesuffix("Usec")), f"{value / 1e6:.3f} s", indent)
    elif key.endswith("Bytes") and isinstance(value, int):
        yield _line(_title(key.removesuffix("Bytes")), _bytes(value), indent)
    else:
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        yield _line(title, shown, indent)


def _bytes(value: int) -> str:
    for name, unit in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= unit:
            return f"{value / unit:.1f} {name}"
    return f"{value} bytes"


def _title(key: str) -> str:
    """`restartCount` → `Restart Count`; keys that are names (of files, of limits) stay as they are."""
    if not key.isalnum() or "-" in key or not key[:1].islower():
        return columns.safe(key)
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", key)
    return " ".join(_WORDS.get(word.lower(), word[:1].upper() + word[1:]) for word in words)


def _line(name: str, value: str, indent: str = "") -> str:
    head = f"{indent}{name}:"
    return f"{head:<{_WIDTH}}" + ("" if len(head) < _WIDTH else " ") + columns.safe(value)


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    drawn = columns.draw(headers, [[" " if cell in (None, "") else cell for cell in row] for row in rows])
    return ["  " + line for line in drawn.splitlines()]


def _happened(found: Sequence[show.Object]) -> list[str]:
    if not found:
        return ["Events:".ljust(_WIDTH) + "<none>"]
    table = tables.table(kinds.EVENT, found, watching.now())
    at = {one["name"]: number for number, one in enumerate(table["columnDefinitions"])}
    names = ("Type", "Reason", "Last Seen", "Count", "Message")
    rows = [[row["cells"][at[name]] for name in names] for row in table["rows"]]
    return ["Events:", *_table(["Type", "Reason", "Age", "Count", "Message"], rows)]


def _events(api: client.Client, kind: kinds.Kind, obj: show.Object) -> list[show.Object]:
    fields = f"involvedObject.uid={obj['metadata']['uid']}"
    namespace = obj["metadata"].get("namespace", "")
    return events.in_order(api.list(client.Selection(kinds.EVENT, namespace, "", fields)).items)
