"""`agentk trace`: one run of an agent as a tree of calls, with what it spawned below, durations, tokens and cost."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from agentk.api import kinds
from agentk.cli import amounts, columns, connect, options, show

app = typer.Typer(**options.APP)

_COLOURS = {
    "ok": "green",
    "failed": "red",
    "error": "red",
    "denied": "red",
    **dict.fromkeys(("cancelled", "unknown"), "yellow"),
}


@app.command()
def trace(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Name of an agent.", show_default=False)],
    run: Annotated[str, typer.Option("--run", metavar="ID", help="Another run than its last one.")] = "",
    uid: Annotated[
        str, typer.Option("--uid", metavar="UID", help="Of one agent, when several bore the name.")
    ] = "",
    namespace: options.Namespace = "",
    output: options.Document = "",
) -> int:
    """Print one run as a tree: each call with how long it took, its tokens and cost, and what it led to below.

    Works for agents that are gone. -o json also tells the ids of earlier runs.

    Examples:

    \b
      agentk trace triage
      agentk trace triage -o json
    """
    form = show.parse(output, ("json", "yaml"))
    name, where = options.agent_names([agent])[0], options.namespace(namespace)
    query = {key: value for key, value in (("run", run), ("uid", uid)) if value}
    told = connect.connect().request("GET", kinds.AGENT.path(where, name, "trace"), query=query)
    if form.name:
        show.write(show.document(told, form))
        return 0
    root = told["root"]
    if not root.get("children"):
        show.say(f"No calls of agent/{name} in {where} namespace.")
        return 0
    if columns.wants_colour(sys.stdout):
        _rich(root)
    else:
        show.write("\n".join(lines(root)) + "\n")
    if told["truncated"]:
        show.say("not all of it is shown: agentk audit tells every call")
    return 0


def lines(span: dict[str, Any], before: str = "") -> Iterator[str]:
    """The tree as text."""
    if not before:
        yield label(span)
    children = span.get("children") or []
    for at, child in enumerate(children):
        last = at == len(children) - 1
        yield f"{before.removesuffix('.')}{'└─ ' if last else '├─ '}{label(child)}"
        deeper = before.removesuffix(".") + ("   " if last else "│  ")
        yield from lines(child, deeper + ".")


def label(span: dict[str, Any]) -> str:
    """One call, or one run of an agent, in a line."""
    used = span.get("used") or {}
    if "method" in span:
        parts = [span["method"], span.get("about", ""), span["status"]]
    else:
        parts = [f"agent/{span['agent']}", f"run {span['run']}"]
    if span.get("durationSeconds") is not None:
        parts.append(amounts.seconds(span["durationSeconds"]))
    if used.get("tokens"):
        parts.append(f"{used['tokens']} tokens")
    if used.get("costUsd") not in (None, "0.00"):
        parts.append(amounts.usd(used["costUsd"]))
    if context := span.get("context"):
        parts.append(_context(context))
    if span.get("approvedBy"):
        parts.append(f"approved by {span['approvedBy']}")
    parts.append(str(span.get("why") or ""))
    return columns.safe("  ".join(part for part in parts if part))


def _context(told: dict[str, Any]) -> str:
    """What was sent to the model instead of what."""
    parts = [f"sent {told['sentTokens']} of {told['askedTokens']} tokens ({told.get('shown', '')})"]
    parts += [f"counted by {told['countedBy']}"] if "countedBy" in told else []
    parts += [f"{told[name]} {name}" for name in ("left", "recalled", "folded") if told.get(name)]
    if told.get("cachedTokens"):
        parts.append(f"{told['cachedTokens']} cached")
    if told.get("notKept"):
        parts.append(f"not kept: {told['notKept']}")
    return ", ".join(parts)


def _rich(root: dict[str, Any]) -> None:
    from rich.console import Console  # only for who looks at a terminal
    from rich.text import Text
    from rich.tree import Tree

    def grown(span: dict[str, Any], tree: Tree) -> Tree:
        for child in span.get("children") or []:
            grown(child, tree.add(Text(label(child), style=_COLOURS.get(child.get("status", ""), "bold"))))
        return tree

    Console().print(grown(root, Tree(Text(label(root), style="bold"))))
