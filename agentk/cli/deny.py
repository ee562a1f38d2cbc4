"""`agentk deny`: a call that waits for a person is refused."""

import typer

from agentk.cli import deciding, options

app = typer.Typer(**options.APP)


@app.command()
def deny(
    names: deciding.Names = None,
    labels: options.Labels = "",
    remember: deciding.Remember = False,
    match: deciding.Match = None,
    reason: deciding.Reason = "",
    namespace: options.Namespace = "",
) -> int:
    """Refuse calls that wait for a person. The agent is told ApprovalDenied, and the reason.

    With --remember the same call of this agent is refused from now on; delete the Approval to be asked again.

    Examples:

    \b
      agentk deny triage-3f9c1d20aa --reason "not on a Friday"
      agentk deny -l agentk.dev/agent=triage
    """
    return deciding.each(names, labels, namespace, "deny", deciding.said(remember, match, reason))
