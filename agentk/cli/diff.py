"""`agentk diff`: what `agentk apply` of the same files would change, and nothing is changed."""

import difflib
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from agentk.api import errors, kinds
from agentk.cli import columns, connect, manifests, options, sending, show, telling
from agentk.client import client

app = typer.Typer(**options.APP)

# What the API notes by itself: no file says it, and a change of it is none of the file's.
_NOTED = frozenset({"resourceVersion", "generation", "managedFields", "creationTimestamp", "uid"})
_COLOURS = {"+": "\x1b[32m", "-": "\x1b[31m", "@": "\x1b[36m"}


@app.command()
def diff(
    files: options.Files,
    recursive: options.Recursive = False,
    namespace: options.Namespace = "",
    force_conflicts: Annotated[
        bool, typer.Option("--force-conflicts", help="As if fields that others manage were taken over.")
    ] = False,
) -> int:
    """Tell what apply would change. Values of Secrets are not shown.

    Ends with 0 when nothing would change, 1 when something would, 2 when that cannot be told.

    Examples:

    \b
      agentk diff -f agent.yaml
      agentk diff -R -f agents/ -n team-a
    """
    wanted = manifests.read(files, recursive, namespace, options.namespace(namespace))
    api = connect.connect()
    sender = sending.Sender(connect.connect, force_conflicts, dry_run=True)
    code = 0
    for one, result in zip(wanted, sender.send(wanted), strict=True):
        if isinstance(result, errors.AgentkError):
            code = 2
            telling.error(result)
            continue
        lines = list(_lines(one, _now(api, one), result.obj))
        if lines:
            code = code or 1
            show.write("\n".join(lines) + "\n")
    return code


def _now(api: client.Client, one: manifests.Wanted) -> show.Object | None:
    try:
        return api.get(one.kind, one.namespace, one.name)
    except errors.NotFound:
        return None


def _lines(one: manifests.Wanted, before: show.Object | None, after: show.Object) -> Iterator[str]:
    was, becomes = (_told(before), _told(after)) if before is not None else ({}, _told(after))
    if one.kind is kinds.SECRET:
        _hide(was, becomes)
    old, new = (show.yaml_text(told).splitlines() if told else [] for told in (was, becomes))
    coloured = columns.wants_colour(sys.stdout)
    for line in difflib.unified_diff(old, new, f"now/{one}", f"then/{one}", lineterm=""):
        shown, colour = columns.safe(line), _COLOURS.get(line[:1], "")
        yield f"{colour}{shown}\x1b[0m" if coloured and colour else shown


def _told(obj: show.Object) -> dict[str, Any]:
    told = {key: value for key, value in obj.items() if key != "status"}
    told["metadata"] = {key: value for key, value in obj["metadata"].items() if key not in _NOTED}
    return told


def _hide(was: dict[str, Any], becomes: dict[str, Any]) -> None:
    """That a value would be another is told, and not which."""
    before, after = was.get("data") or {}, becomes.get("data") or {}
    if before:
        was["data"] = dict.fromkeys(before, "***")
    if after:
        same = {key for key in after if before.get(key) == after[key]}
        becomes["data"] = {key: "***" if key in same else "*** (another)" for key in after}
