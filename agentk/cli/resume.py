"""`agentk resume`: suspended agents go on."""

import typer

from agentk.api import kinds
from agentk.cli import options, switching

app = typer.Typer(**options.APP)


@app.command()
def resume(
    agents: options.SomeAgents = None,
    labels: options.Labels = "",
    everything: options.AllAgents = False,
    namespace: options.Namespace = "",
) -> int:
    """Let suspended agents go on where they stopped, and Schedules make Tasks again.

    Examples:

    \b
      agentk resume triage
      agentk resume -l tier=batch
      agentk resume schedule/nightly
    """
    return switching.each(
        agents, labels, everything, namespace, switching.suspend(False), "resumed", (kinds.SCHEDULE,)
    )
