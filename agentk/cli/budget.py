"""`agentk budget`: how budgets stand, as a tree; and more for one that has run out."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from agentk.api import kinds
from agentk.cli import columns, connect, options, show, usage

app = typer.Typer(**options.APP)

_HEADERS = ("Name", "Of", "Used", "Reserved", "Left", "Limit", "Per", "Window-Ends", "State")
_RESOURCES = ("tokens", "calls", "costUsd", "wallTime")


@app.command()
def budget(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[AGENT] | add AGENT", help="agent/NAME or quota/NAME.", show_default=False),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=0, help="With add: more tokens.")] = 0,
    calls: Annotated[int, typer.Option("--calls", metavar="N", min=0, help="With add: more calls.")] = 0,
    cost_usd: Annotated[str, typer.Option("--cost-usd", metavar="X", help="With add: more dollars.")] = "",
    wall_time: Annotated[
        str, typer.Option("--wall-time", metavar="TIME", help="With add: more time, for example 1h.")
    ] = "",
    namespace: options.Namespace = "",
    output: options.Document = "",
    no_headers: options.NoHeaders = False,
) -> int:
    """Show budgets as a tree: the limits, what was used and is reserved, what is left, when the window ends.

    Of an agent with all that bounds it, or without a name of the whole namespace. What an agent uses counts for
    everything above it. add gives more, in this window or for good, and a paused agent goes on.

    Examples:

    \b
      agentk budget
      agentk budget triage -o json
      agentk budget add triage --tokens 50000 --cost-usd 1.50
      agentk budget add quota/team --calls 100
    """
    form = show.parse(output, ("json", "yaml"))
    where, given = options.namespace(namespace), list(words or [])
    gift = _gift(tokens, calls, cost_usd, wall_time)
    adding = given[:1] == ["add"] and (len(given) > 1 or bool(gift))
    if gift and not adding:
        raise usage.Usage("these options go with add", hint="agentk budget add AGENT --tokens N")
    if len(given) != 2 if adding else len(given) > 1:
        raise usage.Usage("name one agent", hint="agentk budget [add] AGENT")
    if adding and not gift:
        raise usage.Usage("say how much", hint="--tokens, --calls, --cost-usd or --wall-time")
    api = connect.connect()
    if adding:
        path = _path(where, given[1])
        told = {"kind": "BudgetTree", "items": [api.request("POST", path, body=gift)]}
    elif given:
        told = api.request("GET", _path(where, given[0]))
    else:
        told = api.request("GET", f"/agentk/v1/budgets/{where}")
    if form.name:
        show.write(show.document(told, form))
    elif told["items"]:
        show.write(text(told["items"], not no_headers))
    else:
        show.say(f"No budgets in {where} namespace.")
    return 0


def text(items: Sequence[dict[str, Any]], headers: bool = True) -> str:
    """A line for each thing that is bounded or was used."""
    rows = [row for item in items for row in _rows(item, 0)]
    return columns.draw(_HEADERS, rows, show=headers)


def _rows(item: dict[str, Any], depth: int) -> Iterator[list[str]]:
    limits, used = item["limits"], item["used"]
    shown = [name for name in _RESOURCES if name in limits or used.get(name) not in (None, 0, "0.00")]
    for at, name in enumerate(shown or [""]):
        limit = str(limits.get(name, "-"))
        if name in item["granted"]:
            limit += f" + {item['granted'][name]}"
        state = "exceeded" if name and item["exceeded"] == name else "ok"
        if state == "exceeded" and item["because"] != f"{item['kind']}/{item['name']}":
            state += f" ({item['because']})"
        yield [
            "  " * depth + f"{item['kind']}/{item['name']}" if not at else " ",
            name or "-",
            str(used.get(name, "-")),
            str(item["reserved"].get(name, "-")),
            str(item["left"].get(name, "-")),
            limit,
            item["per"] or "-",
            (item["windowEnds"] or "-").partition(".")[0],
            state,
        ]
    for child in item["children"]:
        yield from _rows(child, depth + 1)


def _gift(tokens: int, calls: int, cost_usd: str, wall_time: str) -> dict[str, Any]:
    given = {"tokens": tokens, "calls": calls, "costUsd": cost_usd, "wallTime": wall_time}
    return {key: value for key, value in given.items() if value}


def _path(namespace: str, word: str) -> str:
    """`NAME`, `agent/NAME` or `quota/NAME`."""
    kind, slash, name = word.rpartition("/")
    if slash and kinds.resource(kind) is kinds.QUOTA and name:
        return kinds.QUOTA.path(namespace, name, "budget")
    return kinds.AGENT.path(namespace, options.agent_names([word])[0], "budget")
