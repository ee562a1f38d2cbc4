"""`agentk delete`: by name, by manifest, by label; waits until the objects are really gone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from agentk.api import errors, kinds
from agentk.cli import connect, manifests, options, show, targets, telling, usage, waiting
from agentk.client import client

app = typer.Typer(**options.APP)

_CASCADES = ("background", "foreground", "orphan")


@dataclass(frozen=True)
class _Doomed:
    kind: kinds.Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f'{targets.typed(self.kind)} "{self.name}"'


@dataclass(frozen=True)
class _How:
    cascade: str
    grace_seconds: int | None
    dry_run: bool
    ignore_not_found: bool
    names_only: bool


@app.command()
def delete(
    words: Annotated[list[str] | None, typer.Argument(metavar="[KIND NAME…]", show_default=False)] = None,
    files: options.MaybeFiles = None,
    recursive: options.Recursive = False,
    namespace: options.Namespace = "",
    all_namespaces: options.AllNamespaces = False,
    labels: options.Labels = "",
    fields: options.Fields = "",
    everything: Annotated[bool, typer.Option("--all", help="All of the kind in the namespace.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until they are gone.")] = True,
    timeout: options.Timeout = "",
    cascade: Annotated[
        str, typer.Option("--cascade", metavar="HOW", help="What they own: background, foreground or orphan.")
    ] = "background",
    grace_period: options.GracePeriod = "",
    now: Annotated[bool, typer.Option("--now", help="With a grace period of one second.")] = False,
    dry_run: Annotated[str, typer.Option("--dry-run", metavar="WHO", help="server: as if.")] = "none",
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="Gone already is well.")
    ] = False,
    output: options.Output = "",
) -> int:
    """Delete objects.

    Examples:

    \b
      agentk delete agent triage
      agentk delete -f agents/
      agentk delete agents -l tier=test --now
      agentk delete agents --all --no-wait
    """
    if cascade not in _CASCADES:
        raise usage.Usage(f"--cascade={cascade} is unknown", hint=f"use {', '.join(_CASCADES)}")
    if dry_run not in ("none", "server"):
        raise usage.Usage(f"--dry-run={dry_run} is unknown", hint="use server or none")
    form = show.parse(output, ("name",))
    grace = 1 if now else options.seconds(grace_period, "--grace-period")
    limit = options.seconds(timeout, "--timeout")
    selecting = bool(labels or fields or everything)
    how = _How(cascade, grace, dry_run == "server", ignore_not_found or selecting, form.name == "name")
    api = connect.connect()
    if files:
        if words or selecting:
            raise usage.Usage("-f and KIND, -l, --field-selector or --all do not go together")
        wanted = manifests.read(files, recursive, namespace, options.namespace(namespace))
        doomed = [_Doomed(one.kind, one.namespace, one.name) for one in reversed(wanted)]
    else:
        where = "" if all_namespaces else options.namespace(namespace)
        doomed = _chosen(api, words or [], where, labels, fields, everything)
    return _delete(api, doomed, how, wait and dry_run == "none", limit)


def _chosen(
    api: client.Client, words: Sequence[str], where: str, labels: str, fields: str, everything: bool
) -> list[_Doomed]:
    chosen = targets.parse(words)
    selecting = bool(labels or fields or everything)
    if any(one.name for one in chosen):
        if selecting or not where:
            raise usage.Usage("a NAME and -A, -l, --field-selector or --all do not go together")
        return [_Doomed(one.kind, where if one.kind.namespaced else "", one.name) for one in chosen]
    if not selecting:
        raise usage.Usage("say which ones", hint="a NAME, -l LABELS, --field-selector FIELDS or --all")
    found = []
    for one in chosen:
        for obj in api.list(client.Selection(one.kind, where, labels, fields)).items:
            found.append(_Doomed(one.kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]))
    if not found:
        show.say("No resources found")
    return found


def _delete(
    api: client.Client, doomed: Sequence[_Doomed], how: _How, wait: bool, timeout_seconds: int | None
) -> int:
    """Ask for every deletion first, then wait for all: their graces pass side by side."""
    failed = False
    leaving: list[tuple[_Doomed, str]] = []
    for one in doomed:
        try:
            left = api.delete(
                one.kind,
                one.namespace,
                one.name,
                cascade=how.cascade.capitalize(),
                grace_seconds=how.grace_seconds,
                dry_run=how.dry_run,
            )
        except errors.NotFound as error:
            if not how.ignore_not_found:
                failed = True
                telling.error(error)
            continue
        suffix = " (server dry run)" if how.dry_run else ""
        print(targets.Target(one.kind, one.name) if how.names_only else f"{one} deleted{suffix}", flush=True)
        if left.get("kind") != "Status":
            leaving.append((one, left["metadata"]["uid"]))
    if wait and leaving:
        deadline = waiting.deadline(timeout_seconds)
        for one, uid in leaving:
            waiting.gone(api, one.kind, one.namespace, one.name, uid, deadline)
    return 1 if failed else 0
