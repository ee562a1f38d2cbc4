"""`agentk daemon …`: the daemon's life, for people who want to see it. Every other verb starts it by itself."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from agentk.api import errors
from agentk.cli import connect, options, show, usage
from agentk.client import lifecycle, units

app = typer.Typer(
    **options.APP,
    help="""Start, stop and look after the daemon.

    Examples:

    \b
      agentk daemon start
      agentk daemon status
      sudo agentk daemon install --system
    """,
)
_TAIL_BYTES = 64 * 1024
_LOOK_SECONDS = 0.2


@app.command()
def start() -> int:
    """Start it, unless it runs. Example: agentk daemon start"""
    where = connect.here()
    if lifecycle.ensure_daemon(where, os.environ):
        print(f"started: {where.socket}")
    else:
        print(f"runs already: {where.socket}")
    return 0


@app.command()
def stop(
    agents: Annotated[bool, typer.Option("--agents", help="End all agents too; else they go on.")] = False,
) -> int:
    """End it; agents go on and are found again. Example: agentk daemon stop"""
    stopped = lifecycle.stop(connect.here(), kill_agents=agents)
    print("stopped" if stopped else "it does not run")
    return 0


@app.command()
def restart() -> int:
    """End it and start it anew, after an upgrade or a change of config.yaml; agents go on.

    Example: agentk daemon restart
    """
    where = connect.here()
    pid = lifecycle.keeper_pid(where)
    if pid is not None and (command := systemds(Path(f"/proc/{pid}/cgroup").read_text())):
        raise errors.Conflict("systemd keeps this daemon", hint=command)
    lifecycle.stop(where, kill_agents=False)
    lifecycle.ensure_daemon(where, os.environ)
    print(f"restarted: {where.socket}")
    return 0


def systemds(cgroups: str) -> str:
    """How a keeper in these cgroups is restarted when it is of a unit of systemd; "" when it is not: one started beside
    its unit would be nobody's."""
    if "/agentk.service" not in cgroups:
        return ""
    return f"systemctl {'--user ' if '/user@' in cgroups else ''}restart agentk"


@app.command()
def status(output: options.Document = "") -> int:
    """Tell how it is; ends with 1 when it does not run. Example: agentk daemon status -o json"""
    form = show.parse(output, ("json", "yaml"))
    where = connect.here()
    told: dict[str, Any] = {"running": False, "state": str(where.state), "socket": str(where.socket)}
    try:
        told |= connect.connect(starts=False).request("GET", "/agentk/v1/status")
        told["running"] = True
    except errors.Unavailable as error:
        told["reason"] = error.message
    if form.name:
        show.write(show.document(told, form))
    else:
        show.write(show.yaml_text(told))
    return 0 if told["running"] else 1


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="YAML; see agentk explain config.")
    ] = None,
) -> int:
    """Run it in the foreground, as systemd does. Example: agentk daemon run"""
    command = [sys.executable, "-I", "-m", "agentk.daemon", "run"]
    if config:
        command += ["--config", str(config.resolve())]
    sys.stdout.flush()
    os.execv(sys.executable, command)


@app.command()
def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with every line.")] = False,
    tail: Annotated[int, typer.Option("--tail", metavar="LINES", min=0, help="How many.")] = 100,
) -> int:
    """Print what the daemon itself wrote. Example: agentk daemon logs -f"""
    path = connect.here().state / "daemon.log"
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below, also when following)
    except FileNotFoundError:
        raise errors.NotFound(f"no log at {path}", hint="agentk daemon start") from None
    with file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        lines = file.read().splitlines(keepends=True)
        sys.stdout.buffer.write(b"".join(lines[len(lines) - min(tail, len(lines)) :]))
        while follow:
            sys.stdout.buffer.flush()
            time.sleep(_LOOK_SECONDS)
            sys.stdout.buffer.write(file.read())
    return 0


@app.command()
def install(
    system: Annotated[bool, typer.Option("--system", help="For the whole machine; needs root.")] = False,
    user: Annotated[bool, typer.Option("--user", help="For this user.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the unit.")] = False,
) -> int:
    """Write a systemd unit that starts it at boot. Example: agentk daemon install --user"""
    if system and user:
        raise usage.Usage("--system and --user are two things")
    unit = units.unit(sys.executable, os.environ, for_system=system or (not user and os.getuid() == 0))
    if dry_run:
        show.write(unit.text)
        return 0
    if unit.for_system and os.getuid() != 0:
        raise errors.Forbidden("a system unit needs root", hint="sudo agentk daemon install --system")
    unit.path.parent.mkdir(parents=True, exist_ok=True)
    unit.path.write_text(unit.text)
    print(f"wrote {unit.path}")
    show.say(
        "start it now and at every boot with:\n"
        + "".join(f"  {command}\n" for command in unit.commands).rstrip()
    )
    return 0
