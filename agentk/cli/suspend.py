"""`agentk suspend`: agents keep their place and stand still."""

import typer

from agentk.cli import options, switching

app = typer.Typer(**options.APP)


@app.command()
def suspend(
    agents: options.SomeAgents = None,
    labels: options.Labels = "",
    everything: options.AllAgents = False,
    namespace: options.Namespace = "",
) -> int:
    """Stop agents until they are resumed. A running one is frozen where it is.

    Examples:

    \b
      agentk suspend triage
      agentk suspend -l tier=batch
    """
    return switching.each(agents, labels, everything, namespace, switching.suspend(True), "suspended")
