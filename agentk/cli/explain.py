"""`agentk explain`: what a field means, from the schemas. Needs no daemon."""

from typing import Annotated

import typer

from agentk.cli import options, show

app = typer.Typer(**options.APP)


@app.command()
def explain(
    field: Annotated[str, typer.Argument(metavar="KIND[.FIELD…]", show_default=False)],
    recursive: Annotated[bool, typer.Option("--recursive", help="All fields below it.")] = False,
) -> int:
    """Tell what a field means, what it may hold and its default.

    Examples:

    \b
      agentk explain agent
      agentk explain agent.spec.resources --recursive
      agentk explain config
    """
    from agentk.api import explain as explaining

    show.write(explaining.explain(field, recursive))
    return 0
