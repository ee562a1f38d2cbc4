"""`agentk wait`: until something is true of an object; ends at once when it never will be."""

from typing import Annotated

import typer

from agentk.api import errors
from agentk.cli import connect, options, targets, telling, usage, waiting
from agentk.client import client

app = typer.Typer(**options.APP)


@app.command()
def wait(
    words: Annotated[list[str], typer.Argument(metavar="KIND/NAME…", show_default=False)],
    want: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="WHAT",
            help="condition=NAME[=VALUE], delete, create or jsonpath='{.path}'[=VALUE].",
        ),
    ],
    timeout: options.Timeout = "30s",
    namespace: options.Namespace = "",
    labels: options.Labels = "",
    everything: Annotated[bool, typer.Option("--all", help="All of the kind in the namespace.")] = False,
) -> int:
    """Wait until something is true of objects.

    Ends with 1 as soon as it can no longer come true: the agent has finished, or was deleted.

    Examples:

    \b
      agentk wait --for=condition=Ready agent/triage
      agentk wait --for=condition=Finished agents -l job=nightly --timeout 10m
      agentk wait --for=jsonpath='{.status.phase}'=Running agent/triage
      agentk wait --for=delete agent/triage
    """
    wanted = waiting.parse(want)
    seconds = options.seconds(timeout, "--timeout")
    end = waiting.deadline(seconds)
    where = options.namespace(namespace)
    api = connect.connect()
    chosen = targets.parse(words)
    if any(not one.name for one in chosen):
        if not (labels or everything):
            raise usage.Usage("say which ones", hint="KIND/NAME, KIND NAME, -l LABELS or --all")
        chosen = [
            targets.Target(one.kind, obj["metadata"]["name"])
            for one in chosen
            for obj in api.list(client.Selection(one.kind, where, labels)).items
        ]
        if not chosen:
            raise errors.NotFound("no matching resources found")
    failed = False
    for one in chosen:
        try:
            waiting.until(api, one.kind, where if one.kind.namespaced else "", one.name, wanted, end)
        except (errors.Timeout, errors.Conflict) as error:
            failed = True
            telling.error(error)
            continue
        print(f"{one} {'condition met' if wanted.kind not in ('delete', 'create') else wanted.kind + 'd'}")
    return 1 if failed else 0
