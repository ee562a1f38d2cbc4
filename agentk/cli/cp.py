"""`agentk cp`: files into the box of an agent that runs, and out of it."""

import contextlib
import posixpath
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentk.api import errors, kinds
from agentk.cli import columns, connect, options, show, usage, working
from agentk.client import client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

app = typer.Typer(**options.APP)
_IN_BOX = re.compile(r"((?:(?:agents?|ag)(?:\.agentk\.dev)?/)?[a-z0-9][a-z0-9.-]*):(.*)", re.DOTALL)
_SHOWN = 10  # of what was left out


@dataclass(frozen=True)
class _Place:
    """Of an agent's box; `agent` "" is here."""

    agent: str
    path: str


@app.command()
def cp(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="AGENT:/PATH, or a path here.", show_default=False)
    ],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="The other one of the two.", show_default=False)
    ],
    namespace: options.Namespace = "",
) -> int:
    """Copy a file or a directory, with modes, links and all that is below it.

    What is a directory already is copied into, as cp does. The box is read and written with its agent's own rights.
    What a box sends is made below TO and nowhere else: links that lead out of it are left out and named.

    Examples:

    \b
      agentk cp notes.md triage:/workspace
      agentk cp triage:/workspace/report ./report
      agentk cp ./data agent/triage:/workspace/data
    """
    here, there = _place(source), _place(target)
    if bool(here.agent) == bool(there.agent):
        raise usage.Usage("one of the two is in a box, the other is here", hint="agentk cp AGENT:/PATH PATH")
    where, api = options.namespace(namespace), connect.connect()
    name = here.agent or there.agent
    api.get(kinds.AGENT, where, name)
    path = kinds.AGENT.path(where, name, "files")
    left_out = _out(api, path, here, target) if here.agent else _in(api, path, Path(source), there)
    for file, why in left_out[:_SHOWN]:
        show.say(columns.safe(f"left out: {file}: {why}"))
    if len(left_out) > _SHOWN:
        show.say(f"left out: {len(left_out) - _SHOWN} more")
    return 1 if left_out else 0


def _place(word: str) -> _Place:
    """`AGENT:/PATH`; anything else is a path here."""
    found = _IN_BOX.fullmatch(word)
    if found is None:
        return _Place("", word)
    agent, path = found[1], found[2]
    if not path.startswith("/"):
        raise usage.Usage(
            f"{word!r}: a path in a box begins with /", hint=f"{agent}:/workspace/… ; a file here: ./{word}"
        )
    return _Place(options.agent_names([agent])[0], path)


def _out(api: client.Client, path: str, source: _Place, target: str) -> "Sequence[tuple[str, str]]":
    from agentk.client import landing, tars

    folder, name = Path(target), posixpath.basename(posixpath.normpath(source.path)) or source.agent
    if not (folder.is_dir() or target.endswith("/")):
        folder, name = folder.parent, folder.name
    if not folder.is_dir():
        raise errors.NotFound(f"{folder}: no such directory", hint=f"mkdir -p {shlex.quote(str(folder))}")
    with _named(
        source, f"agentk exec {source.agent} -- ls -la {shlex.quote(posixpath.dirname(source.path))}"
    ):
        response = api.stream(path, query={"path": source.path})
    bar = working.Working(f"copying {name}", verbose=False)
    try:
        made = landing.Landing(folder, name)
        try:
            made.take(tars.Reader(_Chunks(response.chunks()).read), _progress(bar, 0))
        finally:
            made.close()
    finally:
        bar.clear()
        response.close()
    return made.left_out


def _in(api: client.Client, path: str, source: Path, target: _Place) -> "Sequence[tuple[str, str]]":
    """Into what is a directory there; else its parent is one, and the name is new."""
    from agentk.client import leaving

    bar, total = working.Working(f"copying {source.name}", verbose=False), leaving.size_of(source)
    folder, name = posixpath.normpath(target.path), source.resolve().name or "root"
    if not target.path.endswith("/") and api.kind_of(path, {"path": folder}) != "directory":
        folder, name = posixpath.dirname(folder), posixpath.basename(folder)
    sent = leaving.Leaving(source, name, _progress(bar, total))
    try:
        with _named(target, "an agent writes below /workspace and /tmp, within its ephemeral-storage"):
            told = api.upload(path, {"path": folder}, sent)
    finally:
        bar.clear()
    refused = [str(one).partition(": ") for one in told.get("refused") or ()]
    return [*sent.left_out, *((file, why) for file, _, why in refused)]


@contextlib.contextmanager
def _named(place: _Place, hint: str) -> "Iterator[None]":
    """What the box refused is told with the whole place, and with what to do next."""
    try:
        yield
    except (errors.NotFound, errors.RuntimeRefused) as error:
        if error.hint or error.message.startswith("cannot enter"):
            raise
        base = posixpath.basename(place.path)
        why = error.message.removeprefix(f"{place.path}: ").removeprefix(f"{base}: ")
        raise type(error)(f"{place.agent}:{place.path}: {why}", hint=hint) from None


def _progress(bar: working.Working, total: int) -> "Callable[[int], None]":
    def told(done: int) -> None:
        bar.told(f"{_mib(done)}, {min(100, done * 100 // total)} % of {_mib(total)}" if total else _mib(done))

    return told


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


class _Chunks:
    """Pieces as they come, read in any sizes."""

    def __init__(self, pieces: Any) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def read(self, size: int) -> bytes:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)
