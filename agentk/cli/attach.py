"""`agentk attach`: what an agent's own program writes from now on, and with -i what we type.

On a terminal it is a split screen, which is a process of its own; with -i only for agents without code
(`spec.program`): what another writes is then answered as it comes. No terminal is given raw what agents write.
"""

import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from agentk.api import kinds
from agentk.cli import connect, options, terminals

app = typer.Typer(**options.APP)


@app.command()
def attach(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Name of an agent.", show_default=False)],
    stdin: Annotated[
        bool, typer.Option("--stdin", "-i", help="Pass our input on to it; needs spec.stdin: true.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="No split screen; in pipes there is none anyway.")
    ] = False,
    namespace: options.Namespace = "",
) -> int:
    """Look on while the agent's own program runs, and with -i type to it.

    On a terminal it opens as a split screen: its conversation and call tree, its calls with time and tokens, its
    memory M and context C, and the calls that wait for a person. What is typed there goes to it when it has
    spec.stdin; /help tells of orders, /quit or Ctrl-C ends the looking on. --plain is without, like every pipe, and
    like -i to an agent with a command of its own. A terminal is shown control characters written out; pipes get
    what the agent writes.

    Ctrl-C ends the looking on, not the program; neither does the end of our input. The exit code is the program's
    when it ends while we look, and 0 of a screen that is left; 125: agentk itself failed.

    Examples:

    \b
      agentk attach clerk
      agentk attach --plain clerk
      agentk attach -i conversation
      echo hello | agentk attach -i conversation
    """
    from agentk.client import executing, lines  # what speaks WebSocket costs 20 ms, and help needs none of it

    name, where = options.agent_names([agent])[0], options.namespace(namespace)
    api = connect.connect()
    found = api.get(kinds.AGENT, where, name)  # starts a daemon that is not running
    sys.stdout.flush()
    if not plain and _screen_fits(found, stdin):
        os.execv(sys.executable, [sys.executable, "-P", "-m", "agentk.ui.main", str(api.socket), where, name])
    query = [("stdin", str(stdin).lower()), ("stdout", "true"), ("stderr", "true")]
    with lines.Line(api.socket, kinds.AGENT.path(where, name, "attach"), query) as line:
        return executing.run(line, executing.Streams(0 if stdin else -1, shown=terminals.Shown()))


def _screen_fits(found: Mapping[str, Any], typing: bool) -> bool:
    """A terminal that shows more than lines, and nobody who wants to type to an agent's own command as it is."""
    ours = bool((found.get("spec") or {}).get("program"))
    fits = terminals.is_terminal(0) and terminals.is_terminal(1) and os.environ.get("TERM") != "dumb"
    return fits and (ours or not typing)
