"""`agentk tool`: what people do with Tools besides applying them."""

from typing import Annotated, Any

import typer

from agentk.api import errors, kinds
from agentk.cli import columns, connect, options, show

ACCEPTED = "agentk.dev/accepted"

app = typer.Typer(
    **options.APP,
    help="""Work with Tools.

    Example:

    \b
      agentk tool accept github
    """,
)


@app.callback()
def tool() -> None:
    """Makes each word one of its own."""


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
