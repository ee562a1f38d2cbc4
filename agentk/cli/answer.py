"""`agentk answer`: what an agent asked with human.ask is answered."""

from typing import Annotated

import typer

from agentk.cli import deciding, options

app = typer.Typer(**options.APP)


@app.command()
def answer(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the Approval.", show_default=False)],
    text: Annotated[
        str, typer.Option("--text", "-t", metavar="TEXT", help="The answer.", show_default=False)
    ],
    namespace: options.Namespace = "",
) -> int:
    """Answer a question of an agent. agentk deny refuses to.

    Examples:

    \b
      agentk get approvals
      agentk answer triage-3f9c1d20aa --text "the second one"
    """
    return deciding.each([name], "", namespace, "answer", {"text": text})
