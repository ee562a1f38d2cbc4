"""`agentk restore`: bring back what `backup` saved. The daemon must not run meanwhile."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from agentk.api import errors
from agentk.cli import connect, options
from agentk.client import lifecycle

app = typer.Typer(**options.APP)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What backup saved.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Put the objects of a backup in place of those there are now, which are kept beside them.

    Examples:

    \b
      agentk daemon stop && agentk restore agentk-2026-01-31.tar
    """
    where = connect.here()
    if not file.is_file():
        raise errors.NotFound(f"{file} does not exist")
    if lifecycle.keeper_pid(where) is not None:
        raise errors.Conflict("the daemon runs", hint="agentk daemon stop, then again")
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Replace all objects in {where.state}?", abort=True, err=True)
    command = [sys.executable, "-I", "-m", "agentk.daemon", "restore", str(file.resolve())]
    return subprocess.run(command, check=False).returncode
