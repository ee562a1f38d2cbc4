"""`agentk mcp serve`: agentk itself, offered to programs of the host that speak MCP, such as editors."""

from typing import Annotated

import typer

from agentk.cli import options

app = typer.Typer(
    **options.APP,
    help="""Offer agentk to programs that speak MCP.

    Example:

    \b
      agentk mcp serve
    """,
)


@app.callback()
def mcp() -> None:
    """Makes `serve` a word of its own while it is the only one."""


@app.command()
def serve(
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Offer only what looks, and nothing that changes.")
    ] = False,
    namespace: options.Namespace = "",
) -> int:
    """Serve MCP on stdin and stdout until they end: objects, logs, runs, Tasks, tools and Skills, in one namespace.

    Whoever speaks with it has your rights in that namespace, but for these: Secrets are neither read nor handed to
    agents, Approvals are not decided, files of this machine are not shown to agents, commands are not run in boxes, and
    what concerns every namespace is not changed. The file of an editor names it so:

    \b
      {"mcpServers": {"agentk": {"command": "agentk", "args": ["mcp", "serve"]}}}

    Examples:

    \b
      agentk mcp serve
      agentk mcp serve --read-only -n team-a
    """
    from agentk.cli import mcp_serving  # the SDK takes most of a second

    return mcp_serving.serve(options.namespace(namespace), read_only)
