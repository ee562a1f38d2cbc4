"""`agentk memory`: what agents remember, looked through, added to, moved and forgotten by people."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from agentk.api import errors, kinds, quantities
from agentk.cli import columns, connect, memory_map, memory_moving, options, show, usage
from agentk.client import client

app = typer.Typer(
    **options.APP,
    help="""Look into the memory of an agent (AGENT), or into all of a Memory (memory/NAME).

    Examples:

    \b
      agentk memory ls triage
      agentk memory search triage when are invoices due
      agentk memory put triage "Invoices are due on the fifth." --name invoices
      agentk memory forget triage invoices
      agentk memory export memory/team > team.jsonl
    """,
)
_Whose = Annotated[str, typer.Argument(metavar="AGENT", help="An agent, or memory/NAME.", show_default=False)]
_Agent = Annotated[str, typer.Option("--agent", metavar="NAME", help="Of a Memory: this agent's part.")]
_Kinds = Annotated[str, typer.Option("--kind", metavar="KINDS", help="For example note,episode.")]
_Tags = Annotated[
    str, typer.Option("--tag", metavar="TAGS", help="With all of these, for example money,2026.")
]
_Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Made since, for example 2026-01-31T12:00:00Z.")
]
_Until = Annotated[str, typer.Option("--until", metavar="TIME", help="Made before.")]
_Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=200, help="Most pages.")]

Object = dict[str, Any]


@app.callback()
def memory() -> None:
    """Makes each word one of its own."""


@app.command()
def ls(
    whose: _Whose,
    limit: _Limit = 50,
    kind: _Kinds = "",
    tag: _Tags = "",
    since: _Since = "",
    until: _Until = "",
    agent: _Agent = "",
    namespace: options.Namespace = "",
    output: options.Document = "",
    no_headers: options.NoHeaders = False,
) -> int:
    """List pages, the newest first.

    Examples:

    \b
      agentk memory ls triage
      agentk memory ls memory/team --agent triage --kind note --tag money -o json
    """
    query = _query(limit=str(limit), kinds=kind, tags=tag, since=since, until=until, agent=agent)
    return _list(whose, query, namespace, output, no_headers)


@app.command()
def search(
    whose: _Whose,
    words: Annotated[list[str], typer.Argument(metavar="WORDS…", help="A question.", show_default=False)],
    limit: _Limit = 10,
    kind: _Kinds = "",
    tag: _Tags = "",
    since: _Since = "",
    until: _Until = "",
    agent: _Agent = "",
    namespace: options.Namespace = "",
    output: options.Document = "",
    no_headers: options.NoHeaders = False,
) -> int:
    """Find pages by nearness and by words, the best first.

    Examples:

    \b
      agentk memory search triage when are invoices due
      agentk memory search memory/team deploy --limit 3 -o json
    """
    query = _query(limit=str(limit), kinds=kind, tags=tag, since=since, until=until, agent=agent)
    return _list(whose, {**query, "query": " ".join(words)}, namespace, output, no_headers)


@app.command()
def get(
    whose: _Whose,
    page: Annotated[str, typer.Argument(metavar="PAGE", help="Its id or its name.", show_default=False)],
    namespace: options.Namespace = "",
    output: options.Document = "",
) -> int:
    """Print what a page holds, exactly.

    Examples:

    \b
      agentk memory get triage invoices
      agentk memory get memory/team p3f09c2d41b7a8e65 -o json
    """
    form = show.parse(output, ("json", "yaml"))
    told = connect.connect().request("GET", _path(whose, namespace), query={"page": page})
    if form.name:
        show.write(show.document(told, form))
        return 0
    data = memory_moving.content(told)
    if sys.stdout.isatty():  # an agent's words never drive the terminal
        show.write(
            "".join(f"{columns.safe(line)}\n" for line in data.decode("utf-8", "replace").splitlines())
        )
    else:
        sys.stdout.buffer.write(data)
    return 0


@app.command()
def put(
    whose: _Whose,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="What to keep; - is stdin.", show_default=False)
    ],
    name: Annotated[str, typer.Option("--name", help="A name for it; what has that name is replaced.")] = "",
    kind: Annotated[str, typer.Option("--kind", help="note, episode or skill.")] = "note",
    tag: Annotated[str, typer.Option("--tag", metavar="TAGS", help="For example money,2026.")] = "",
    pinned: Annotated[bool, typer.Option("--pin", help="Retention does not forget it.")] = False,
    agent: _Agent = "",
    namespace: options.Namespace = "",
) -> int:
    """Keep a page for an agent.

    Examples:

    \b
      agentk memory put triage "Invoices are due on the fifth." --name invoices --tag money
      agentk memory put memory/team - --agent triage --kind skill < how-to.md
    """
    content = sys.stdin.read(memory_moving.PAGE_CHARS + 1) if text == "-" else text
    body: Object = {"content": content, "name": name, "kind": kind, "pinned": pinned}
    body |= {"tags": [one for one in tag.split(",") if one]} | ({"agent": agent} if agent else {})
    told = connect.connect().request("POST", _path(whose, namespace), body=body)
    print(f"{told['id']} {'replaced ' + told['replaced'] if told['replaced'] else 'kept'}")
    return 0


@app.command()
def forget(
    whose: _Whose,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[PAGE…]", help="Ids or names.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All there is.")] = False,
    agent: _Agent = "",
    namespace: options.Namespace = "",
) -> int:
    """Forget pages for good: in the database, its indexes and log, and the journal.

    Examples:

    \b
      agentk memory forget triage invoices
      agentk memory forget memory/team --all --agent triage
    """
    if bool(names) == everything:
        raise usage.Usage("name pages, or --all", hint="agentk memory forget AGENT PAGE…")
    wanted: Object = {"all": True} if everything else {"ids": names, "names": names}
    body = {**wanted, **({"agent": agent} if agent else {})}
    told = connect.connect(timeout_seconds=None).request("DELETE", _path(whose, namespace), body=body)
    for one in told["forgotten"]:
        print(f"{one} forgotten")
    if not told["forgotten"]:
        show.say("Nothing of that is there.")
        return 1
    if had := told.get("checkpoints"):
        show.say(
            f"Taken out of {had} checkpoint{'' if had == 1 else 's'}; files in them are not looked into."
        )
    where = "Nothing of it is left in the memory, its log, checkpoints and records"
    show.say(f"{where}." if told["erased"] else f"{where} soon: records are being erased.")
    return 0


@app.command()
def export(
    whose: _Whose,
    file: Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="Instead of stdout.")] = "",
    agent: _Agent = "",
    namespace: options.Namespace = "",
) -> int:
    """Write pages as JSON lines, with where each came from.

    Examples:

    \b
      agentk memory export triage > triage.jsonl
      agentk memory export memory/team --agent triage -f triage.jsonl
    """
    lines = _lines(_path(whose, namespace), agent)
    many = memory_moving.write(lines, Path(file) if file else None)
    show.say(f"{many} pages.")
    return 0


@app.command("import")
def import_(
    whose: _Whose,
    file: Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="JSON lines; - is stdin.")] = "-",
    agent: _Agent = "",
    namespace: options.Namespace = "",
) -> int:
    """Take pages in that `agentk memory export` wrote. What was taken in before is kept once.

    Examples:

    \b
      agentk memory import reviewer -f triage.jsonl
      agentk memory export a | agentk memory import memory/team --agent b
    """
    api, path, many = connect.connect(timeout_seconds=None), _path(whose, namespace), 0
    for batch in memory_moving.batches(file):
        body = {"lines": batch, **({"agent": agent} if agent else {})}
        many += api.request("POST", path, body=body)["pages"]
    show.say(f"{many} pages.")
    return 0


@app.command()
def stats(
    whose: _Whose, agent: _Agent = "", namespace: options.Namespace = "", output: options.Document = ""
) -> int:
    """Count what is kept, and say how far it is embedded.

    Examples:

    \b
      agentk memory stats triage
      agentk memory stats memory/team -o json
    """
    form = show.parse(output, ("json", "yaml"))
    query = {"stats": "true", **_query(agent=agent)}
    told = connect.connect().request("GET", _path(whose, namespace), query=query)
    if form.name:
        show.write(show.document(told, form))
        return 0
    embedding = told["embedding"]
    rows = [
        ("pages", f"{told['pages']} of {told['limits']['pages']} an agent"),
        ("bytes", f"{quantities.format_quantity(told['bytes'])}"),
        *(
            (f"  {kind}", f"{one['pages']:,} pages, {one['tokens']:,} tokens")
            for kind, one in told["kinds"].items()
        ),
        ("agents", str(sum(1 for one in told["agents"].values() if one["pages"]))),
        ("embedder", embedding["embedder"]),
        ("embedded", f"{embedding['done']} of {embedding['total']}"),
        ("searches", str(told["searches"])),
        ("hit rate", told.get("hitRate", "-")),
        ("faults", f"{told['faults']}, and {told['evictions']} evictions, of managed conversations"),
    ]
    show.write(columns.draw(("What", "Value"), rows, show=False))
    return 0


@app.command("map")
def map_(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Name of an agent.", show_default=False)],
    namespace: options.Namespace = "",
    output: options.Document = "",
) -> int:
    """Draw what the model of an agent with `context: managed` is shown: each page a block as wide as it has tokens.

    Of the conversation that was used last; -o json tells of the others too.

    Examples:

    \b
      agentk memory map triage
      agentk memory map triage -o json
    """
    name = options.agent_names([agent])[0]
    return memory_map.map_(name, options.namespace(namespace), output)


@app.command()
def explain(
    page: Annotated[
        str,
        typer.Argument(
            metavar="PAGE", help="Id of a page, or AGENT/NUMBER of a message.", show_default=False
        ),
    ],
    agent: Annotated[
        str, typer.Option("--agent", metavar="NAME", help="Whose it is, to look no further.")
    ] = "",
    namespace: options.Namespace = "",
    output: options.Document = "",
) -> int:
    """Say why a page is in the window of its conversation, or is not, with its score by parts.

    Examples:

    \b
      agentk memory explain triage/17
      agentk memory explain p0123456789abcdef --agent triage
    """
    return memory_map.explain(page, agent, options.namespace(namespace), output)


def _list(whose: str, query: dict[str, str], namespace: str, output: str, no_headers: bool) -> int:
    form = show.parse(output, ("json", "yaml"))
    told = connect.connect().request("GET", _path(whose, namespace), query=query)
    if form.name:
        show.write(show.document(told, form))
        return 0
    rows = [
        (
            one["id"],
            one["kind"],
            one["name"] or "-",
            one["agent"],
            str(one["tokens"]),
            ",".join(one["tags"]) or "-",
            f"{one['similarity']:.2f}" if "similarity" in one else "-",
            one["snippet"][:80],
        )
        for one in told["items"]
    ]
    if not rows:
        show.say("No pages found.")
        return 0
    headers = ("Id", "Kind", "Name", "Agent", "Tokens", "Tags", "Near", "Text")
    show.write(columns.draw(headers, rows, show=not no_headers))
    return 0


def _lines(path: str, agent: str) -> Iterator[Object]:
    """The head, then every page."""
    api: client.Client = connect.connect(timeout_seconds=None)
    after, begun = 0, False
    while True:
        told = api.request("GET", path, query={"lines": "true", "after": str(after), **_query(agent=agent)})
        if not begun:
            yield told["head"]
        begun = True
        yield from told["lines"]
        if "after" not in told:
            return
        after = told["after"]


def _path(whose: str, namespace: str) -> str:
    where = options.namespace(namespace)
    word, slash, name = whose.partition("/")
    if not slash:
        return kinds.AGENT.path(where, options.agent_names([whose])[0], "pages")
    try:
        kind = kinds.resource(word)
    except errors.NotFound:
        kind = None
    if not name or kind not in (kinds.AGENT, kinds.MEMORY):
        raise usage.Usage(f"{whose} is neither AGENT nor memory/NAME", hint="a namespace is named by -n")
    return kind.path(where, name, "pages")


def _query(**given: str) -> dict[str, str]:
    return {key: value for key, value in given.items() if value}
