"""`agentk attach`: what an agent's own program writes from now on, and with -i what we type."""

import sys
from typing import Annotated

import typer

from agentk.api import kinds
from agentk.cli import connect, options

app = typer.Typer(**options.APP)


@app.command()
def attach(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Name of an agent.", show_default=False)],
    stdin: Annotated[
        bool, typer.Option("--stdin", "-i", help="Pass our input on to it; needs spec.stdin: true.")
    ] = False,
    namespace: options.Namespace = "",
) -> int:
    """Look on while the agent's own program runs, and with -i type to it.

    Ctrl-C ends the looking on, not the program; neither does the end of our input. The exit code is the program's
    when it ends while we look; 125: agentk itself failed.

    Examples:

    \b
      agentk attach triage
      agentk attach -i conversation
      echo hello | agentk attach -i conversation
    """
    from agentk.client import executing, lines  # what speaks WebSocket costs 20 ms, and help needs none of it

    name, where = options.agent_names([agent])[0], options.namespace(namespace)
    api = connect.connect()
    api.get(kinds.AGENT, where, name)  # starts a daemon that is not running
    query = [("stdin", str(stdin).lower()), ("stdout", "true"), ("stderr", "true")]
    sys.stdout.flush()
    with lines.Line(api.socket, kinds.AGENT.path(where, name, "attach"), query) as line:
        return executing.run(line, executing.Streams(0 if stdin else -1))
