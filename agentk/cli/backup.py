"""`agentk backup`: all objects and sources in one file, while everything goes on."""

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
) -> int:
    """Save all objects and packed sources to a file. It holds the values of Secrets: keep it well.

    Examples:

    \b
      agentk backup agentk-$(date +%F).tar
      agentk backup - | age -r KEY > backup.tar.age
    """
    response = connect.connect().stream("/agentk/v1/backup")
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
