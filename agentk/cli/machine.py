"""`agentk machine …`: what a person does to an agent that is a machine."""

from pathlib import Path
from typing import Annotated

import typer

from agentk.api import kinds
from agentk.cli import connect, options, usage

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
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="A machine that runs.", show_default=False)],
    routine: Annotated[str, typer.Argument(metavar="NAME", help="The routine.", show_default=False)],
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="The code; else its model writes it.")
    ] = None,
    namespace: options.Namespace = "",
) -> int:
    """Make code of a routine that is words, under the same name; what it was is kept as NAME@1, NAME@2 …

    The code is one JavaScript arrow function, or Python with a function named run. It is read, in a jail, before
    anything is changed. All of it happens in the agent's box, with its rights and at its budget.

    Examples:

    \b
      agentk machine harden clerk greet
      agentk machine harden clerk greet -f greet.js
    """
    from agentk.client import executing, lines

    name, where = options.agent_names([agent])[0], options.namespace(namespace)
    api = connect.connect()
    found = api.get(kinds.AGENT, where, name)
    if found["spec"].get("program") != "machine":
        raise usage.Usage(f"agent/{name} is no machine", hint="spec.program: machine makes it one")
    words = ["python3", "-m", "agentk.programs.machine", "harden", routine]
    query = [("command", word) for word in words]
    query += [("stdin", str(file is not None).lower()), ("stdout", "true"), ("stderr", "true")]
    with lines.Line(api.socket, kinds.AGENT.path(where, name, "exec"), query) as line:
        if file is None:
            return executing.run(line, executing.Streams(-1))
        try:
            with file.open("rb") as code:
                return executing.run(line, executing.Streams(code.fileno()))
        except OSError as error:
            raise usage.Usage(f"{file}: {error.strerror}") from None
