"""What `suspend`, `resume` and `restart` share: the same small request to each agent named."""

from collections.abc import Callable

from agentk.api import errors, kinds
from agentk.cli import connect, options, show, telling, usage
from agentk.client import client


def each(
    agents: list[str] | None,
    labels: str,
    everything: bool,
    namespace: str,
    act: Callable[[client.Client, str, str], None],
    done: str,
) -> int:
    """Do `act(api, namespace, name)` to every agent meant; one that fails keeps no other from it."""
    where = options.namespace(namespace)
    api = connect.connect()
    names = options.agent_names(agents or [])
    if bool(names) == bool(labels or everything):
        raise usage.Usage("say which agents", hint="AGENT…, -l LABELS or --all; one of the three")
    if not names:
        found = api.list(client.Selection(kinds.AGENT, where, labels)).items
        names = [obj["metadata"]["name"] for obj in found]
        if not names:
            show.say(f"No resources found in {where} namespace.")
    failed = False
    for name in names:
        try:
            act(api, where, name)
        except (errors.NotFound, errors.Conflict, errors.Invalid) as error:
            failed = True
            telling.error(error)
            continue
        print(f"agent.agentk.dev/{name} {done}")
    return 1 if failed else 0


def suspend(value: bool) -> Callable[[client.Client, str, str], None]:
    """Sets spec.suspend."""

    def act(api: client.Client, namespace: str, name: str) -> None:
        api.patch(kinds.AGENT, namespace, name, {"spec": {"suspend": value}})

    return act
