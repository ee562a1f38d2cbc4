"""`agentk apply`: server-side apply. What a manifest said last time and leaves out now is removed."""

from collections.abc import Sequence
from typing import Annotated

import typer

from agentk.api import errors
from agentk.cli import connect, manifests, options, sending, show, telling, usage

app = typer.Typer(**options.APP)


@app.command()
def apply(
    files: options.Files,
    recursive: options.Recursive = False,
    namespace: options.Namespace = "",
    output: options.Output = "",
    dry_run: Annotated[
        str,
        typer.Option(
            "--dry-run", metavar="WHO", help="client: only check the files; server: as if, without writing."
        ),
    ] = "none",
    force_conflicts: Annotated[
        bool, typer.Option("--force-conflicts", help="Take over fields that others manage.")
    ] = False,
) -> int:
    """Create or change objects from manifests.

    The path in an agent's spec.source is packed and uploaded; it is relative to the manifest.

    Examples:

    \b
      agentk apply -f agent.yaml
      agentk apply -R -f agents/ -n team-a
      generate | agentk apply -f - --dry-run=server -o yaml
    """
    form = show.parse(output, ("json", "yaml", "name", "jsonpath"))
    if dry_run not in ("none", "client", "server"):
        raise usage.Usage(f"--dry-run={dry_run} is unknown", hint="use client, server or none")
    wanted = manifests.read(files, recursive, namespace, options.namespace(namespace))
    if dry_run == "client":
        return _check(wanted, form)
    sender = sending.Sender(connect.connect, force_conflicts, dry_run == "server")
    suffix = " (server dry run)" if dry_run == "server" else ""
    done: list[show.Object] = []
    for one, result in zip(wanted, sender.send(wanted), strict=True):
        if isinstance(result, errors.AgentkError):
            telling.error(result)
            continue
        done.append(result.obj)
        if not form.name:
            print(f"{one} {result.change}{suffix}")
    if form.name and done:
        show.write(show.objects(done, form, single=len(wanted) == 1))
    return 0 if len(done) == len(wanted) else 1


def _check(wanted: Sequence[manifests.Wanted], form: show.Format) -> int:
    """Without a daemon: only what can be said of the files alone."""
    from agentk.api import admit

    checked, failed = [], False
    for one in wanted:
        try:
            checked.append(admit.admit(one.obj, one.manifest))
        except errors.Invalid as error:
            failed = True
            telling.error(error)
            continue
        if not form.name:
            print(f"{one} valid (dry run)")
    if form.name and checked:
        show.write(show.objects(checked, form, single=len(wanted) == 1))
    return 1 if failed else 0
