"""`agentk exec`: a command in an agent's box, with the rights of the box and our own terminal."""

import os
import sys
from typing import Annotated, Any

import typer
import typer.core

from agentk.api import kinds
from agentk.cli import connect, options, show, terminals, usage

app = typer.Typer(**options.APP)

# Everything after the agent is the command's own.
_CONTEXT = {**options.APP["context_settings"], "allow_interspersed_args": False}
_SIGNAL_BASE = 128


class _Exec(typer.core.TyperCommand):
    """Takes our options after the agent as well when `--` says where the command begins, as kubectl does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        before = args[: args.index("--")] if "--" in args else []
        ctx.allow_interspersed_args = self._names_only_the_agent(ctx, before)
        return super().parse_args(ctx, args)

    def _names_only_the_agent(self, ctx: Any, args: list[str]) -> bool:
        """Otherwise `--` is a word of the command: exec triage git log -- main.py."""
        ctx.allow_interspersed_args = True
        try:
            found = self.make_parser(ctx).parse_args(list(args))[0]
            return bool(found.get("agent")) and not found.get("command")
        except Exception:  # noqa: BLE001 - typer brings a click of its own; what is wrong is told by the real parse
            return False


@app.command("exec", cls=_Exec, context_settings=_CONTEXT)
def exec_(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Name of an agent.", show_default=False)],
    command: Annotated[list[str] | None, typer.Argument(metavar="[--] COMMAND…", show_default=False)] = None,
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Pass our input on to it.")] = False,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Give it a terminal.")] = False,
    timeout: options.Timeout = "",
    namespace: options.Namespace = "",
) -> int:
    """Run a command in the box of an agent that runs: the same files, user, limits and network, and no right more.

    The exit code is the command's; 126: it cannot be run; 127: there is no such command; 128+N: ended by signal N;
    124: --timeout; 125: agentk itself failed. It ends with us.

    Examples:

    \b
      agentk exec triage -- ls -l /workspace
      agentk exec -it triage -- sh
      echo 'print(6 * 7)' | agentk exec -i triage -- python -
      agentk exec --timeout 10s triage -- sh -c 'exit 7'
    """
    words = command[1:] if command and command[0] == "--" else command or []
    if not words:
        raise usage.Usage("say which command", hint=f"agentk exec {agent} -- COMMAND…")
    name = options.agent_names([agent])[0]
    where = options.namespace(namespace)
    seconds = options.seconds(timeout, "--timeout")
    if tty and not (stdin and terminals.is_terminal(0)):
        show.say(
            "Our input is no terminal: going on without one." if stdin else "-t needs -i: going on without."
        )
        tty = False
    query = [("command", word) for word in words]
    query += [("stdin", str(stdin).lower()), ("stdout", "true"), ("stderr", str(not tty).lower())]
    query += [("timeoutSeconds", str(max(1, seconds)))] if seconds is not None else []
    return _run(where, name, query, stdin, tty)


def _run(namespace: str, name: str, query: list[tuple[str, str]], stdin: bool, tty: bool) -> int:
    # what speaks WebSocket costs 20 ms, and help needs none of it
    from agentk.api import channels
    from agentk.client import executing, lines

    api = connect.connect()
    api.get(kinds.AGENT, namespace, name)  # starts a daemon that is not running
    path = kinds.AGENT.path(namespace, name, "exec")
    sys.stdout.flush()
    if not tty:
        with lines.Line(api.socket, path, query) as line:
            return executing.run(line, executing.Streams(0 if stdin else -1))
    columns, rows = terminals.size(0)
    query += [("tty", "true"), ("columns", str(columns)), ("rows", str(rows))]
    query += [("term", os.environ["TERM"])] if os.environ.get("TERM") else []
    with lines.Line(api.socket, path, query, (channels.RESIZE,)) as line:
        try:
            with terminals.raw(0) as resized:
                return executing.run(line, executing.Streams(0, 1, 2, resized, lambda: terminals.size(0)))
        except terminals.Ended as told:
            return _SIGNAL_BASE + told.number
