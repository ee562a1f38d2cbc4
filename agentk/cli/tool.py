"""`agentk tool`: what people do with Tools besides applying them."""

from typing import Annotated, Any

import typer

from agentk.api import errors, kinds
from agentk.cli import columns, connect, options, show, tool_calling, tool_discovering

ACCEPTED = "agentk.dev/accepted"

app = typer.Typer(
    **options.APP,
    help="""Work with Tools.

    Example:

    \b
      agentk tool call calculator --args '{"expression": "6*7"}'
    """,
)

_Name = Annotated[str, typer.Argument(metavar="NAME[/TOOL]", help="A Tool, and which of those it offers.")]


@app.callback()
def tool() -> None:
    """Makes each word one of its own."""


@app.command()
def call(
    name: _Name,
    arguments: Annotated[
        str, typer.Option("--args", metavar="JSON", help="Its arguments; - reads them.")
    ] = "{}",
    who: Annotated[
        str, typer.Option("--as", metavar="agent/NAME", help="As that agent, in its jail, if it may.")
    ] = "",
    timeout: options.Timeout = "",
    namespace: options.Namespace = "",
    output: options.Document = "",
) -> int:
    """Call a tool and print what it answers. Ends with 1 when the tool says that it failed.

    Without --as it runs in a box of its own, which is made for it. Calls are in the journal:
    agentk audit NAME, or of the agent.

    Examples:

    \b
      agentk tool call calculator --args '{"expression": "6*7"}'
      agentk tool call files/search --args '{"pattern": "TODO"}' --as agent/triage
      agentk tool call github/list_issues --args - -o json < arguments.json
    """
    return tool_calling.call(name, arguments, who, timeout, options.namespace(namespace), output)


@app.command("list")
def list_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A Tool.")],
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask the tool itself again.")] = False,
    namespace: options.Namespace = "",
    output: options.Document = "",
) -> int:
    """List what a Tool offers, starting it when nobody knows.

    Examples:

    \b
      agentk tool list files
      agentk tool list github --refresh -o json
    """
    return tool_calling.listed(name, refresh, options.namespace(namespace), output)


@app.command()
def test(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Tools.", show_default=False)],
    namespace: options.Namespace = "",
) -> int:
    """Try Tools: start each, ask what it offers, check its schemas, and make the calls of its spec.examples.

    Examples:

    \b
      agentk tool test calculator files
    """
    return tool_calling.test(names, options.namespace(namespace))


@app.command()
def discover(
    programs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROGRAM…]", help="Only for these.", show_default=False),
    ] = None,
) -> int:
    """Print manifests of Tools for programs that this machine has, to read and to apply. By its name also one that
    agentk comes with, which brings back what was deleted or replaced.

    Examples:

    \b
      agentk tool discover
      agentk tool discover grep jq | agentk apply -f -
      agentk tool discover calculator | agentk apply -f -
    """
    return tool_discovering.discover(programs or [])


@app.command()
def accept(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A Tool.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be accepted.")] = False,
    namespace: options.Namespace = "",
) -> int:
    """Accept that the tools of a server are not what they were when they were pinned.

    Shows what changed, in the server's own words: a model would read them as yours. What the server lists after that
    is not accepted by it.

    Examples:

    \b
      agentk tool accept github --dry-run
      agentk tool accept github
    """
    where, api = options.namespace(namespace), connect.connect()
    found = api.get(kinds.TOOL, where, name.removeprefix("tool/"))
    status: dict[str, Any] = found.get("status") or {}
    own = found["metadata"]["name"]
    drift = status.get("drift") or []
    if "mcp" not in found["spec"]:
        raise errors.BadRequest(f'Tool "{own}" is no server: it changes when its manifest does')
    if not drift:
        print(f"tool.agentk.dev/{own} unchanged")
        return 0
    rows = [[one["name"], one["change"], one.get("description", "")] for one in drift]
    show.write(columns.draw(("Name", "Change", "Now"), rows))
    if "pins" in found["spec"]["mcp"]:
        raise errors.Conflict(
            f'Tool "{own}" has its pins in its manifest',
            hint="write the digests that status.drift tells into spec.mcp.pins, and apply it",
        )
    if not dry_run:
        patch = {"metadata": {"annotations": {ACCEPTED: status["listing"]}}}
        api.patch(kinds.TOOL, where, own, patch)
        print(f"tool.agentk.dev/{own} accepted")
    return 0
