"""`agentk checkpoint`: agents as they are now, to be brought back by `restore`."""

import time
from typing import Annotated

import typer

from agentk.api import errors, kinds
from agentk.cli import connect, options, show, telling, usage, waiting
from agentk.client import client, watching

app = typer.Typer(**options.APP)

_STOOD = {
    "Frozen": "the agent stood still meanwhile",
    "Running": "the agent went on meanwhile, for this host cannot freeze it",
    "Stopped": "the agent was not running",
}


@app.command()
def checkpoint(
    agents: options.Agents,
    name: Annotated[str, typer.Option("--name", help="Of the Checkpoint; default: agent and time.")] = "",
    timeout: options.Timeout = "",
    namespace: options.Namespace = "",
) -> int:
    """Take a Checkpoint of each agent: its memory, its workspace, its object and where the journal is.

    A running agent stands still meanwhile. The Checkpoint goes when the agent is deleted.

    Examples:

    \b
      agentk checkpoint triage
      agentk checkpoint triage --name before-upgrade
      agentk get checkpoints
      agentk restore agent/triage --from before-upgrade
    """
    names, where = options.agent_names(agents), options.namespace(namespace)
    if name and len(names) > 1:
        raise usage.Usage("--name is for one agent")
    api, end, code = connect.connect(), waiting.deadline(options.seconds(timeout, "--timeout")), 0
    for agent in names:
        try:
            made = _made(
                api, where, agent, name or f"{agent}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
            )
            code |= _taken(api, made, end)
        except (errors.NotFound, errors.AlreadyExists, errors.Invalid) as error:
            telling.error(error)
            code = 1
    return code


def _made(api: client.Client, where: str, agent: str, name: str) -> dict[str, object]:
    owner = api.get(kinds.AGENT, where, agent)
    reference = {"apiVersion": owner["apiVersion"], "kind": "Agent", "name": agent}
    return api.create(
        kinds.CHECKPOINT,
        where,
        {
            "apiVersion": kinds.CHECKPOINT.api_version,
            "kind": kinds.CHECKPOINT.kind,
            "metadata": {
                "name": name,
                "namespace": where,
                "labels": {"agentk.dev/agent": agent},
                "ownerReferences": [{**reference, "uid": owner["metadata"]["uid"]}],
            },
            "spec": {"agentRef": {"name": agent}},
        },
    )


def _taken(api: client.Client, made: dict[str, object], end: float | None) -> int:
    metadata = made["metadata"]
    assert isinstance(metadata, dict)
    name = str(metadata["name"])
    selection = client.Selection(kinds.CHECKPOINT, str(metadata["namespace"]), "", f"metadata.name={name}")
    for obj in watching.states(api, selection, end):
        status = (obj or {}).get("status") or {}
        if obj is None:
            raise errors.NotFound(f'checkpoint "{name}" was deleted')
        if status.get("phase") == "Failed":
            telling.error(errors.Unavailable(f"checkpoint {name}: {status.get('message', '')}"))
            return 1
        if status.get("phase") == "Ready":
            print(f"checkpoint.agentk.dev/{name} taken")
            show.say(
                f"{status['pages']:,} pages, {status['files']:,} files, {int(status['bytes']):,} bytes; "
                f"{_STOOD[status['consistency']]}"
            )
            for one in status.get("leftOut") or ():
                show.say(f"left out: {one}")
            return 0
    raise errors.Timeout(f"checkpoint {name} is not taken yet", hint=f"agentk describe checkpoint {name}")
