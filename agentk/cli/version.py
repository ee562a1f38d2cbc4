"""`agentk version`: ours, and the daemon's when one runs. Starts no daemon."""

import platform
from typing import Annotated

import typer

from agentk.api import errors
from agentk.cli import connect, options, show

app = typer.Typer(**options.APP)


@app.command()
def version(
    output: options.Document = "",
    client_only: Annotated[bool, typer.Option("--client", help="Do not ask the daemon.")] = False,
) -> int:
    """Print the versions of this program and of the daemon.

    Examples:

    \b
      agentk version
      agentk version -o json
    """
    form = show.parse(output, ("json", "yaml"))
    told: dict[str, object] = {"clientVersion": {"version": ours(), "python": platform.python_version()}}
    problem = ""
    if not client_only:
        try:
            told["serverVersion"] = connect.connect(starts=False).request("GET", "/version")
        except errors.Unavailable as error:
            problem = error.message
    if form.name:
        show.write(show.document(told, form))
        return 0
    print(f"client: {ours()} (Python {platform.python_version()})")
    server = told.get("serverVersion")
    if isinstance(server, dict):
        print(f"daemon: {server.get('agentkVersion') or server.get('gitVersion', 'unknown')}")
    elif problem:
        show.say(f"daemon: {problem}")
    return 0


def ours() -> str:
    """The installed version; `unknown` in a checkout that was never installed."""
    from importlib import metadata

    try:
        return metadata.version("agentk")
    except metadata.PackageNotFoundError:
        return "unknown"
