"""What `suspend`, `resume` and `restart` share: the same small request to each agent named."""

from collections.abc import Callable, Sequence

from agentk.api import errors, kinds
from agentk.cli import connect, options, show, targets, telling, usage
from agentk.client import client

Act = Callable[[client.Client, kinds.Kind, str, str], None]


def each(
    agents: list[str] | None,
    labels: str,
    everything: bool,
    namespace: str,
    act: Act,
    done: str,
    others: Sequence[kinds.Kind] = (),
) -> int:
    """Do `act` to every agent meant; one that fails keeps no other from it. `others`: kinds that it is done to when
    they are named so, as KIND/NAME."""
    where = options.namespace(namespace)
    api = connect.connect()
    meant = [_meant(word, others) for word in agents or ()]
    if bool(meant) == bool(labels or everything):
        raise usage.Usage("say which agents", hint="AGENT…, -l LABELS or --all; one of the three")
    if not meant:
        found = api.list(client.Selection(kinds.AGENT, where, labels)).items
        meant = [targets.Target(kinds.AGENT, obj["metadata"]["name"]) for obj in found]
        if not meant:
            show.say(f"No resources found in {where} namespace.")
    failed = False
    for one in meant:
        try:
            act(api, one.kind, where, one.name)
        except (errors.NotFound, errors.Conflict, errors.Invalid) as error:
            failed = True
            telling.error(error)
            continue
        print(f"{one} {done}")
    return 1 if failed else 0


def _meant(word: str, others: Sequence[kinds.Kind]) -> targets.Target:
    kind, slash, name = word.rpartition("/")
    if slash and name and kinds.resource(kind) in others:
        return targets.Target(kinds.resource(kind), name)
    return targets.Target(kinds.AGENT, options.agent_names([word])[0])


def suspend(value: bool) -> Act:
    """Sets spec.suspend."""

    def act(api: client.Client, kind: kinds.Kind, namespace: str, name: str) -> None:
        api.patch(kind, namespace, name, {"spec": {"suspend": value}})

    return act
