"""`agentk approve`: a call that waits for a person is let through."""

import typer

from agentk.cli import deciding, options

app = typer.Typer(**options.APP)


@app.command()
def approve(
    names: deciding.Names = None,
    labels: options.Labels = "",
    remember: deciding.Remember = False,
    match: deciding.Match = None,
    reason: deciding.Reason = "",
    namespace: options.Namespace = "",
) -> int:
    """Let calls through that wait for a person: each once, and exactly as it was asked.

    describe shows the call, the rule that asked, and what it writes. With --remember the same call of this agent is let
    through from now on; delete the Approval to be asked again.

    Examples:

    \b
      agentk get approvals
      agentk describe approval triage-3f9c1d20aa
      agentk approve triage-3f9c1d20aa
      agentk approve triage-3f9c1d20aa --remember --reason "only reads"
      agentk approve triage-3f9c1d20aa --remember --match argv='git log *'
      agentk approve -l agentk.dev/agent=triage
    """
    return deciding.each(names, labels, namespace, "approve", deciding.said(remember, match, reason))
