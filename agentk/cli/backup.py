"""`agentk backup`: all objects, sources and memories in one file, while everything goes on."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from agentk.api import errors
from agentk.cli import connect, options, show

app = typer.Typer(**options.APP)


@app.command()
def backup(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; - is stdout.", show_default=False)],
    without_memory: Annotated[
        bool, typer.Option("--without-memory", help="Leave out what agents remember.")
    ] = False,
) -> int:
    """Save all objects, packed sources and what agents remember to a file.

    It holds the values of Secrets, and what is forgotten later stays in it: keep it well. Workspaces, logs, the
    journal and the files of Checkpoints are not in it.

    Examples:

    \b
      agentk backup agentk-$(date +%F).tar
      agentk backup --without-memory objects.tar
      agentk backup - | age -r KEY > backup.tar.age
    """
    query = {"memory": "false"} if without_memory else {}
    response = connect.connect().stream("/agentk/v1/backup", query=query)
    try:
        if file == "-":
            for chunk in response.chunks():
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return 0
        size = _save(Path(file), response.chunks())
    finally:
        response.close()
    show.say(f"saved {size / 2**20:.1f} MiB to {file}")
    return 0


def _save(path: Path, chunks: Iterator[bytes]) -> int:
    """Whole or not at all, and readable by its owner alone."""
    half = path.with_name(f".{path.name}.part")
    try:
        fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            size = file.tell()
            file.flush()
            os.fsync(fd)
        half.rename(path)
    except OSError as error:
        raise errors.Unavailable(f"{path} cannot be written: {error.strerror}") from None
    finally:
        half.unlink(missing_ok=True)
    return size
