"""`agentk events`: what happened, oldest first."""

from typing import Annotated

import typer

from agentk.api import kinds, tables
from agentk.cli import connect, options, rows, show, targets, usage, watching
from agentk.client import client

app = typer.Typer(**options.APP)


@app.command()
def events(
    about: Annotated[str, typer.Option("--for", metavar="KIND/NAME", help="Of one object.")] = "",
    types: Annotated[str, typer.Option("--types", metavar="TYPES", help="Normal, Warning or both.")] = "",
    namespace: options.Namespace = "",
    all_namespaces: options.AllNamespaces = False,
    watch: options.Watch = False,
    output: options.Output = "",
    no_headers: options.NoHeaders = False,
) -> int:
    """List what happened, the latest last.

    Examples:

    \b
      agentk events
      agentk events --for agent/triage -w
      agentk events -A --types Warning
    """
    form = show.parse(output)
    where = "" if all_namespaces else options.namespace(namespace)
    selection = client.Selection(kinds.EVENT, where, "", _fields(about, types))
    api = connect.connect()
    drawn = watching.Drawn(form, all_namespaces, False, not no_headers)
    if watch:
        return watching.follow(api, selection, "", drawn, only_changes=False)
    found = in_order(api.list(selection).items)
    if not form.is_table:
        show.write(show.objects(found, form, single=False, headers=not no_headers))
    elif found:
        table = tables.table(kinds.EVENT, found, watching.now())
        shown = rows.Rows(table, form.name == "wide", all_namespaces, False)
        show.write(shown.text(table["rows"], not no_headers))
    else:
        rows.say_none(where)
    return 0


def in_order(found: list[show.Object]) -> list[show.Object]:
    """Oldest first; events of one second in the order they were written."""
    return sorted(found, key=lambda one: (one.get("lastTimestamp") or "", _version(one)))


def _version(obj: show.Object) -> int:
    text = obj["metadata"].get("resourceVersion", "")
    return int(text) if text.isdigit() else 0


def _fields(about: str, types: str) -> str:
    fields = []
    if about:
        one = targets.parse([about])[0]
        if not one.name:
            raise usage.Usage(f"--for {about} names no object", hint="write KIND/NAME")
        fields += [f"involvedObject.kind={one.kind.kind}", f"involvedObject.name={one.name}"]
    wanted = {word.capitalize() for word in types.split(",") if word}
    if unknown := wanted - {"Normal", "Warning"}:
        raise usage.Usage(
            f"--types: {', '.join(sorted(unknown))} is unknown", hint="use Normal, Warning or both"
        )
    if len(wanted) == 1:
        fields.append(f"type={wanted.pop()}")
    return ",".join(fields)
