"""`agentk restore`: an agent as one of its Checkpoints has it, or all objects and memories as `backup` saved them."""

import datetime
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from agentk.api import errors, kinds
from agentk.cli import connect, options, usage
from agentk.client import client, lifecycle

app = typer.Typer(**options.APP)


@app.command()
def restore(
    what: Annotated[
        str,
        typer.Argument(metavar="AGENT|FILE", help="agent/NAME, or what backup saved.", show_default=False),
    ],
    origin: Annotated[
        str, typer.Option("--from", metavar="CHECKPOINT", help="Default: the newest of the agent's own.")
    ] = "",
    copy: Annotated[
        str, typer.Option("--as", metavar="NAME", help="Make a new agent, with the spec there was then.")
    ] = "",
    without_memory: Annotated[
        bool, typer.Option("--without-memory", help="Of a FILE: leave what agents remember as it is now.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    namespace: options.Namespace = "",
) -> int:
    """Bring back an agent, with its memory and its workspace as they were, in a new box.

    What it has now is replaced; its spec stays. Of a FILE: put the objects and memories of a backup in place of those
    there are now, which are kept beside them; the daemon must not run.

    Examples:

    \b
      agentk restore agent/triage
      agentk restore agent/triage --from before-upgrade
      agentk restore agent/triage --from before-upgrade --as triage-2
      agentk daemon stop && agentk restore agentk-2026-01-31.tar
    """
    if origin or copy or what.startswith(("agent/", "agents/", "ag/")):
        if without_memory:
            raise usage.Usage("--without-memory is for files that backup saved")
        return _agent(options.agent_names([what])[0], origin, copy, yes, options.namespace(namespace))
    return _all(Path(what), yes, without_memory)


def _agent(agent: str, origin: str, copy: str, yes: bool, where: str) -> int:
    api = connect.connect()
    name = origin or _newest(api, where, agent)
    if copy:
        return _copied(api, where, name, copy)
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Replace the memory and the workspace of agent {agent}?", abort=True, err=True)
    api.act(where, agent, "restore", {"checkpoint": name})
    print(f"agent.agentk.dev/{agent} restored from {name}")
    return 0


def _newest(api: client.Client, where: str, agent: str) -> str:
    uid = api.get(kinds.AGENT, where, agent)["metadata"]["uid"]
    found = api.list(client.Selection(kinds.CHECKPOINT, where)).items
    ready = [
        (str(obj["status"]["takenAt"]), str(obj["metadata"]["name"]))
        for obj in found
        if (obj.get("status") or {}).get("phase") == "Ready" and obj["status"]["agentUID"] == uid
    ]
    if not ready:
        raise errors.NotFound(f'agent "{agent}" has no Checkpoint', hint=f"agentk checkpoint {agent}")
    return max(ready)[1]


def _copied(api: client.Client, where: str, name: str, copy: str) -> int:
    made = api.request("GET", kinds.CHECKPOINT.path(where, name, "object"))
    if not isinstance(made, dict):
        raise usage.Usage(f"checkpoint {name} has no object")
    at = datetime.datetime.now(datetime.UTC).isoformat()
    metadata = made["metadata"]
    notes = {**(metadata.get("annotations") or {}), "agentk.dev/restoredFrom": f"{name}@{at}"}
    made["metadata"] = {**metadata, "name": copy, "namespace": where, "annotations": notes}
    api.create(kinds.AGENT, where, made)
    print(f"agent.agentk.dev/{copy} created from {name}")
    return 0


def _all(file: Path, yes: bool, without_memory: bool) -> int:
    where = connect.here()
    if not file.is_file():
        raise errors.NotFound(f"{file} does not exist", hint="of an agent: agentk restore agent/NAME")
    if lifecycle.keeper_pid(where) is not None:
        raise errors.Conflict("the daemon runs", hint="agentk daemon stop, then again")
    if not yes and sys.stdin.isatty():
        also = "" if without_memory else ", and what agents remember,"
        typer.confirm(f"Replace all objects{also} in {where.state}?", abort=True, err=True)
    command = [sys.executable, "-I", "-m", "agentk.daemon", "restore", str(file.resolve())]
    command += ["--without-memory"] if without_memory else []
    return subprocess.run(command, check=False).returncode
