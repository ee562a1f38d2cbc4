"""`agentk restart`: agents start again in a new box."""

import typer

from agentk.api import kinds
from agentk.cli import options, switching
from agentk.client import client

app = typer.Typer(**options.APP)


@app.command()
def restart(
    agents: options.SomeAgents = None,
    labels: options.Labels = "",
    everything: options.AllAgents = False,
    namespace: options.Namespace = "",
) -> int:
    """Start agents again in a new box, also those that have finished. /workspace stays.

    Examples:

    \b
      agentk restart triage
      agentk restart -l tier=batch
    """
    return switching.each(agents, labels, everything, namespace, _restart, "restarted")


def _restart(api: client.Client, kind: kinds.Kind, namespace: str, name: str) -> None:
    api.act(namespace, name, "restart", {})
