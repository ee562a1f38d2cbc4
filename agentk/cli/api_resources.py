"""`agentk api-resources`: the kinds there are. Needs no daemon."""

from typing import Annotated

import typer

from agentk.api import kinds
from agentk.cli import columns, options, show, targets

app = typer.Typer(**options.APP)


@app.command()
def api_resources(
    namespaced: Annotated[
        bool | None,
        typer.Option("--namespaced/--cluster", help="Only those in namespaces, or only the others."),
    ] = None,
    output: options.Output = "",
    no_headers: options.NoHeaders = False,
) -> int:
    """List the kinds, with what they are called for short.

    Examples:

    \b
      agentk api-resources
      agentk api-resources --namespaced -o wide
    """
    form = show.parse(output, ("wide", "name", "json", "yaml"))
    found = [kind for kind in kinds.KINDS if namespaced in (None, kind.namespaced)]
    if form.name == "name":
        show.write("".join(f"{kind.plural}.{kind.group}".rstrip(".") + "\n" for kind in found))
    elif form.name:
        content = [_as_json(kind) for kind in found]
        if form.name == "wide":
            show.write(_table(found, True, not no_headers))
        else:
            show.write(show.document(content, form))
    else:
        show.write(_table(found, False, not no_headers))
    return 0


def _table(found: list[kinds.Kind], wide: bool, headers: bool) -> str:
    names = ["Name", "Shortnames", "Apiversion", "Namespaced", "Kind", *(["Verbs"] if wide else [])]
    rows = []
    for kind in found:
        row = [kind.plural, ",".join(kind.short_names) or " ", kind.api_version]
        row += [str(kind.namespaced).lower(), kind.kind, *([",".join(kind.verbs)] if wide else [])]
        rows.append(row)
    return columns.draw(names, rows, show=headers)


def _as_json(kind: kinds.Kind) -> dict[str, object]:
    return {
        "name": kind.plural,
        "singularName": kind.singular,
        "shortNames": list(kind.short_names),
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "namespaced": kind.namespaced,
        "verbs": list(kind.verbs),
        "type": targets.typed(kind),
    }
