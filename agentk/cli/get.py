"""`agentk get`: list objects, or show some."""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentk.api import errors
from agentk.cli import connect, options, rows, show, targets, telling, usage
from agentk.client import client

if TYPE_CHECKING:
    from agentk.cli import jsonpath

app = typer.Typer(**options.APP)


@app.command()
def get(
    words: Annotated[list[str], typer.Argument(metavar="KIND [NAME…]", show_default=False)],
    namespace: options.Namespace = "",
    all_namespaces: options.AllNamespaces = False,
    labels: options.Labels = "",
    fields: options.Fields = "",
    output: options.Output = "",
    watch: options.Watch = False,
    watch_only: Annotated[
        bool, typer.Option("--watch-only", help="Only changes, not what is there.")
    ] = False,
    show_labels: Annotated[bool, typer.Option("--show-labels", help="Labels as the last column.")] = False,
    sort_by: Annotated[
        str, typer.Option("--sort-by", metavar="JSONPATH", help="For example .status.restartCount.")
    ] = "",
    no_headers: options.NoHeaders = False,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="A name that is not there is no error.")
    ] = False,
) -> int:
    """List objects, or show some.

    KIND is agents, agent or ag, several with commas, or all. KIND/NAME works too.

    Examples:

    \b
      agentk get agents
      agentk get ag -A -o wide
      agentk get agent/triage -o yaml
      agentk get agents -l tier=web --sort-by .status.restartCount -w
      agentk get agents -o jsonpath='{range .items[*]}{.metadata.name}{"\\n"}{end}'
    """
    form = show.parse(output)
    chosen = targets.parse(words)
    if any(one.name for one in chosen) and (labels or fields or all_namespaces):
        raise usage.Usage("a NAME and a selector (-l, --field-selector, -A) do not go together")
    where = "" if all_namespaces else options.namespace(namespace)
    order = _order(sort_by) if sort_by else None
    api = connect.connect()
    asked = [(one, client.Selection(one.kind, where, labels, fields)) for one in chosen]
    if watch or watch_only:
        from agentk.cli import watching

        if len(asked) > 1:
            raise usage.Usage("-w follows one kind, or one object")
        drawn = watching.Drawn(form, all_namespaces, show_labels, not no_headers)
        return watching.follow(api, asked[0][1], asked[0][0].name, drawn, watch_only)
    if form.is_table:
        return _tables(
            api, asked, form, (all_namespaces, show_labels, not no_headers), order, ignore_not_found
        )
    return _objects(api, asked, form, order, not no_headers, ignore_not_found)


def _tables(
    api: client.Client,
    asked: Sequence[tuple[targets.Target, client.Selection]],
    form: show.Format,
    extras: tuple[bool, bool, bool],
    order: "jsonpath.Path | None",
    ignore_not_found: bool,
) -> int:
    with_namespace, with_labels, headers = extras
    prefixed = len({one.kind for one, _ in asked}) > 1
    include, failed, blocks = "Object" if order else "Metadata", False, []
    for kind in dict.fromkeys(one.kind for one, _ in asked):
        table: dict[str, Any] | None = None
        for one, selection in asked:
            if one.kind is not kind:
                continue
            part = _found(functools.partial(api.table, selection, one.name, include), ignore_not_found)
            failed = failed or part is None
            if part and table:
                table["rows"] += part["rows"]
            elif part:
                table = part
        if table and table["rows"]:
            if order:
                table["rows"].sort(key=lambda row: sort_key(order, row["object"]))
            drawn = rows.Rows(table, form.name == "wide", with_namespace and kind.namespaced, with_labels)
            prefix = f"{targets.typed(kind)}/" if prefixed else ""
            blocks.append(drawn.text(table["rows"], headers, prefix))
    sys.stdout.write("\n".join(blocks))
    if not blocks and not failed:
        where = next((s.namespace for one, s in asked if one.kind.namespaced), "")
        rows.say_none(where)
    return 1 if failed and not ignore_not_found else 0


def _objects(
    api: client.Client,
    asked: Sequence[tuple[targets.Target, client.Selection]],
    form: show.Format,
    order: "jsonpath.Path | None",
    headers: bool,
    ignore_not_found: bool,
) -> int:
    found: list[show.Object] = []
    failed = False
    for one, selection in asked:
        if one.name:
            obj = _found(
                functools.partial(api.get, one.kind, selection.namespace, one.name),
                ignore_not_found,
            )
            failed = failed or obj is None
            found += [obj] if obj else []
        else:
            found += api.list(selection).items
    if order:
        found.sort(key=lambda obj: sort_key(order, obj))
    single = len(asked) == 1 and bool(asked[0][0].name)
    if found or not single:
        show.write(show.objects(found, form, single=single, headers=headers))
    return 1 if failed and not ignore_not_found else 0


def _found(fetch: Callable[[], dict[str, Any]], ignore_not_found: bool) -> dict[str, Any] | None:
    """What was fetched, or None when it is not there; the others asked for are still shown."""
    try:
        return fetch()
    except errors.NotFound as error:
        if not ignore_not_found:
            telling.error(error)
        return None


def _order(path: str) -> "jsonpath.Path":
    from agentk.cli import jsonpath  # its grammar costs 6 ms

    return jsonpath.compile_path(path)


def sort_key(path: "jsonpath.Path", obj: dict[str, Any]) -> tuple[int, float, str]:
    """Missing values first, then numbers and quantities by size, then text."""
    found = path.find(obj, obj)
    if not found or found[0] is None:
        return 0, 0.0, ""
    value = found[0]
    if isinstance(value, (int, float)):
        return 1, float(value), ""
    if isinstance(value, str) and value[:1].isdigit():
        from agentk.api import quantities

        try:
            return 1, quantities.parse_cpu(value) / 1000, ""
        except errors.Invalid:
            pass
    return 2, 0.0, str(value)
