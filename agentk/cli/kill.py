"""`agentk kill`: SIGTERM, a grace, then SIGKILL of the whole tree."""

import signal as signals
from typing import Annotated, Any

import typer

from agentk.api import errors, kinds
from agentk.cli import connect, options, telling, usage, waiting
from agentk.client import client

app = typer.Typer(**options.APP)


@app.command()
def kill(
    agents: options.Agents,
    signal: Annotated[
        str, typer.Option("--signal", "-s", metavar="SIGNAL", help="The first one, instead of TERM.")
    ] = "TERM",
    grace_period: options.GracePeriod = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until they have ended.")] = True,
    timeout: options.Timeout = "60s",
    namespace: options.Namespace = "",
) -> int:
    """End agents: SIGTERM, the grace period, then SIGKILL of the whole process tree.

    A killed agent stays, as Failed with reason Killed; with restartPolicy Always it starts again.

    Examples:

    \b
      agentk kill triage
      agentk kill triage --grace-period 0
      agentk kill triage --signal INT --grace-period 60
    """
    where, names = options.namespace(namespace), options.agent_names(agents)
    grace = options.seconds(grace_period, "--grace-period")
    end = waiting.deadline(options.seconds(timeout, "--timeout"))
    api = connect.connect()
    body: dict[str, Any] = {"signal": number(signal)}
    if grace is not None:
        body["gracePeriodSeconds"] = grace
    failed = False
    pending: list[tuple[str, int]] = []
    for name in names:
        try:
            before = api.get(kinds.AGENT, where, name)
            api.act(where, name, "signal", body)
        except (errors.NotFound, errors.Conflict) as error:
            failed = True
            telling.error(error)
            continue
        pending.append((name, (before.get("status") or {}).get("attempt", 0)))
    for name, attempt in pending:
        if wait and not _ended(api, where, name, attempt, end):
            failed = True
            hint = f"agentk describe agent {name}"
            telling.error(errors.Timeout(f"agent/{name} has not ended yet", hint=hint))
            continue
        print(f"agent.agentk.dev/{name} {'killed' if wait else 'kill asked for'}")
    return 1 if failed else 0


def number(text: str) -> int:
    """A signal by number or name, with or without SIG. Raises Usage."""
    upper = text.upper()
    name = upper if upper.startswith("SIG") else f"SIG{upper}"
    if text.isascii() and text.isdigit() and 0 < int(text[:4]) < signals.NSIG:
        return int(text)
    known = {one.name: int(one) for one in signals.Signals}
    if name not in known:
        raise usage.Usage(f"no signal {text!r}", hint="for example TERM, HUP, INT, USR1 or 15")
    return known[name]


def _ended(api: client.Client, namespace: str, name: str, attempt: int, end: float | None) -> bool:
    def over(obj: dict[str, Any] | None) -> bool:
        status = (obj or {}).get("status") or {}
        last = (status.get("lastTermination") or {}).get("attempt", 0)
        return obj is None or status.get("phase") in kinds.FINAL_PHASES or (last >= attempt > 0)

    selection = client.Selection(kinds.AGENT, namespace, "", f"metadata.name={name}")
    return waiting.until_true(api, selection, over, end)
