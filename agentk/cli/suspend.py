"""`agentk suspend`: agents keep their place and stand still."""

import typer

from agentk.api import kinds
from agentk.cli import options, switching

app = typer.Typer(**options.APP)


@app.command()
def suspend(
    agents: options.SomeAgents = None,
    labels: options.Labels = "",
    everything: options.AllAgents = False,
    namespace: options.Namespace = "",
) -> int:
    """Stop agents until they are resumed. A running one is frozen where it is. A Schedule makes no Tasks meanwhile.

    Examples:

    \b
      agentk suspend triage
      agentk suspend -l tier=batch
      agentk suspend schedule/nightly
    """
    return switching.each(
        agents, labels, everything, namespace, switching.suspend(True), "suspended", (kinds.SCHEDULE,)
    )
