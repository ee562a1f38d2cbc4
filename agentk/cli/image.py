"""`agentk image …`: images that agents can name, made and looked after by the person's own podman.

Nothing of this passes the daemon. It is asked only which agents use an image, and not started for that.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from agentk.api import errors, images, kinds, quantities
from agentk.cli import columns, connect, options, show, usage, working
from agentk.client import client, podmans, recipes

app = typer.Typer(
    **options.APP,
    help="""Make images for agents, list and remove them.

    Examples:

    \b
      agentk image build python
      agentk image list
      agentk image rm localhost/agentk/python
    """,
)
_ENDED = ("Succeeded", "Failed")
_ID_LETTERS = 12


@app.command()
def build(
    what: Annotated[
        str,
        typer.Argument(
            metavar="python|node|CONTEXT", help="One of agentk's own, or a directory to build in."
        ),
    ] = ".",
    file: Annotated[
        str, typer.Option("--file", "-f", metavar="FILE", help="A Containerfile of your own.")
    ] = "",
    tag: Annotated[
        str, typer.Option("--tag", "-t", metavar="NAME", help="How it is named; agentk's own have a name.")
    ] = "",
    verbose: Annotated[bool, typer.Option("--verbose", help="Show everything that podman says.")] = False,
) -> int:
    """Build an image that agents can name in spec.image, with your own podman. Prints its name.

    agentk's own are small: Debian with Python or Node.js, the uid 1000, and no setuid files. Where no registry is
    reachable they are made from Debian's packages under the same name, and the command says so.

    Examples:

    \b
      agentk image build python
      agentk image build node --tag localhost/my/node:18
      agentk image build -f Containerfile --tag localhost/my/agent .
    """
    _check_owner()
    own = not file and what in recipes.NAMES and not Path(what).is_dir()
    named = _named(tag, what) if tag or not own else recipes.recipe(what).tag
    podman = podmans.Podman(os.environ)
    before = podman.find(named)[1].id if podman.has(named) else ""
    work = working.Working(f"building {named}", verbose=verbose)
    try:
        if own:
            recipes.build(podman, recipes.recipe(what), named, work.told, work.say)
        else:
            containerfile, folder = _files(file, what)
            podman.build(containerfile, folder, named, [], work.told)
    finally:
        work.clear()
    _, made = podman.find(named)
    if own and before != made.id:
        podman.forget_nameless(before)
    show.say(f"built: {made.size_bytes / 2**20:.0f} MiB, id {made.id[:_ID_LETTERS]}")
    print(named)
    return 0


@app.command("list")
def list_(output: options.Output = "", no_headers: options.NoHeaders = False) -> int:
    """List the images of your podman that have a name, and the agents that use them now.

    Examples:

    \b
      agentk image list
      agentk image list -o json
    """
    form = show.parse(output, ("json", "yaml", "name", "wide"))
    _check_owner()
    found, users = podmans.Podman(os.environ).images(), _users()
    if form.name in ("json", "yaml"):
        show.write(show.document([_told(one, users) for one in found], form))
    elif form.name == "name":
        show.write("".join(f"{name}\n" for one in found for name in one.names))
    elif not found:
        show.say("No images found")
    else:
        show.write(_table(found, users, wide=form.name == "wide", headers=not no_headers))
    return 0


@app.command()
def rm(
    names: Annotated[list[str], typer.Argument(metavar="IMAGE…", help="Names or ids.", show_default=False)],
    force: Annotated[
        bool, typer.Option("--force", help="Also one that agents use: they cannot start again without it.")
    ] = False,
) -> int:
    """Remove images from your podman. One that an agent uses stays, unless forced.

    Example: agentk image rm localhost/agentk/python
    """
    _check_owner()
    podman, users = podmans.Podman(os.environ), _users()
    for name in names:
        known, found = podman.find(_full(name), or_id=name)
        agents = users.get(found.id, [])
        if agents and not force:
            raise errors.Conflict(
                f"{name} is in use by agent {agents[0]}"
                + (f" and {len(agents) - 1} more" if len(agents) > 1 else ""),
                hint="end them first (agentk kill), or add --force",
            )
        podman.remove(known, force=force)
        print(f"{known} removed")
    return 0


def _check_owner() -> None:
    """Images are the person's whose podman made them; a daemon of somebody else's would not find them."""
    run = connect.here().run
    owner = podmans.owner_of(run)
    if owner is not None and owner != os.getuid():
        raise errors.Forbidden(
            f"the daemon of {run} belongs to uid {owner}, and its agents get images from that user's podman",
            hint="sudo agentk image …  # when it is root's" if owner == 0 else f"run this as uid {owner}",
        )


def _named(tag: str, what: str) -> str:
    if not tag:
        raise usage.Usage(
            f"say how the image of {what} is to be named",
            hint="--tag localhost/my/agent; agentk's own are " + " and ".join(recipes.NAMES),
        )
    return images.parse(tag).asked


def _full(name: str) -> str:
    """With registry and tag; what is no name (an id) as it is."""
    try:
        return images.parse(name).asked
    except errors.Invalid:
        return name


def _files(file: str, context: str) -> tuple[Path, Path]:
    folder = Path(context)
    if not folder.is_dir():
        raise errors.NotFound(
            f"{context} is no directory",
            hint=f"agentk's own images are {' and '.join(recipes.NAMES)}; any other needs a directory",
        )
    chosen = (
        Path(file)
        if file
        else next(
            (folder / name for name in ("Containerfile", "Dockerfile") if (folder / name).is_file()),
            folder / "Containerfile",
        )
    )
    if not chosen.is_file():
        raise errors.NotFound(f"{chosen} is no file", hint="name a Containerfile: -f FILE")
    return chosen, folder


def _users() -> Mapping[str, list[str]]:
    """Image id → agents whose boxes are made of it now, as far as a daemon runs."""
    try:
        found = connect.connect(starts=False).request("GET", client.Selection(kinds.AGENT).path)
    except errors.Unavailable:
        return {}
    users: dict[str, list[str]] = {}
    for agent in found.get("items") or []:
        status, metadata = agent.get("status") or {}, agent["metadata"]
        image = (status.get("image") or {}).get("id", "").removeprefix("sha256:")
        if image and status.get("boxID") and status.get("phase") not in _ENDED:
            users.setdefault(image, []).append(f"{metadata['namespace']}/{metadata['name']}")
    return users


def _table(
    found: Sequence[podmans.Image], users: Mapping[str, list[str]], *, wide: bool, headers: bool
) -> str:
    names = ["Image", "ID", "Size", "Age", "Agents", *(["Digest"] if wide else [])]
    rows = [
        [
            name,
            one.id[:_ID_LETTERS],
            f"{one.size_bytes / 2**20:.0f} MiB",
            quantities.format_age(max(0.0, time.time() - one.created)),
            len(users.get(one.id, [])),
            *([one.digest] if wide else []),
        ]
        for one in found
        for name in one.names
    ]
    return columns.draw(names, rows, show=headers)


def _told(one: podmans.Image, users: Mapping[str, list[str]]) -> dict[str, Any]:
    return {
        "names": list(one.names),
        "id": f"sha256:{one.id}",
        "digest": one.digest,
        "sizeBytes": one.size_bytes,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.created)),
        "labels": dict(one.labels),
        "agents": users.get(one.id, []),
    }
