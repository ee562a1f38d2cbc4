"""`agentk machine …`: what a person does to an agent that is a machine."""

from pathlib import Path
from typing import Annotated

import typer

from agentk.api import errors, kinds
from agentk.cli import connect, machine_hardening, options, usage
from agentk.client import client

app = typer.Typer(
    **options.APP,
    help="""Look after an agent with program: machine. What it knows is in its memory: agentk memory.

    Examples:

    \b
      agentk machine harden clerk greet
      agentk machine harden clerk greet -f greet.js
    """,
)


@app.callback()
def machine() -> None:
    """Makes each word one of its own."""


@app.command()
def harden(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="A machine.", show_default=False)],
    routine: Annotated[str, typer.Argument(metavar="NAME", help="The routine.", show_default=False)],
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="The code; else its model writes it.")
    ] = None,
    namespace: options.Namespace = "",
) -> int:
    """Make code of a routine that is words, under the same name; what it was is kept as NAME@1, NAME@2 …

    The code is one JavaScript arrow function, or Python with a function named run. It is read before anything is
    changed. While the agent runs, all of it happens in its box, with its rights and at its budget; with -f it need
    not run: then its memory is changed, and it finds the code there when it starts.

    Examples:

    \b
      agentk machine harden clerk greet
      agentk machine harden clerk greet -f greet.js
    """
    name, where = options.agent_names([agent])[0], options.namespace(namespace)
    code = _code(file) if file is not None else None
    api = connect.connect()
    spec = api.get(kinds.AGENT, where, name)["spec"]
    if spec.get("program") != "machine":
        raise usage.Usage(f"agent/{name} is no machine", hint="spec.program: machine makes it one")
    try:
        return _in_its_box(api, where, name, routine, file)
    except errors.Conflict as error:
        if code is not None:
            print(machine_hardening.harden(api, where, name, routine, code))
            return 0
        start = "resume" if "suspended" in error.message.lower() else "restart"
        hint = f"-f FILE gives the code; its model writes it while it runs: agentk {start} {name}"
        raise errors.Conflict(error.message, hint=hint, kind="agents", name=name) from None


def _code(file: Path) -> bytes:
    try:
        with file.open("rb") as code:
            found = code.read(machine_hardening.CODE_BYTES + 1)
    except OSError as error:
        raise usage.Usage(f"{file}: {error.strerror}") from None
    if len(found) > machine_hardening.CODE_BYTES or not found.strip():
        raise usage.Usage(f"{file} is empty, or has more than {machine_hardening.CODE_BYTES // 1024} KiB")
    return found


def _in_its_box(api: client.Client, namespace: str, name: str, routine: str, file: Path | None) -> int:
    """Raises Conflict when it does not run."""
    from agentk.client import executing, lines  # what speaks WebSocket costs 20 ms, and help needs none of it

    words = ["python3", "-m", "agentk.programs.machine", "harden", routine]
    query = [("command", word) for word in words]
    query += [("stdin", str(file is not None).lower()), ("stdout", "true"), ("stderr", "true")]
    with lines.Line(api.socket, kinds.AGENT.path(namespace, name, "exec"), query) as line:
        if file is None:
            return executing.run(line, executing.Streams(-1))
        with file.open("rb") as code:
            return executing.run(line, executing.Streams(code.fileno()))
