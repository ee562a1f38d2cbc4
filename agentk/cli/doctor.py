"""`agentk doctor`: what this host can enforce, and the exact command that mends the rest."""

import json
import subprocess
import sys
from typing import Annotated, Any

import typer

from agentk.api import errors
from agentk.cli import columns, connect, options, show

app = typer.Typer(**options.APP)

_MARKS = {"ok": ("ok", "32"), "bad": ("FAIL", "31"), "warn": ("warn", "33")}
_SECONDS = 120
# Every agent has these by default, and does not start where they cannot be held.
_LIMITS = ("cgroup cpu", "cgroup memory", "cgroup pids", "workspace limit")


@app.command()
def doctor(
    output: options.Document = "",
    local: Annotated[
        bool, typer.Option("--local", help="Look with the rights of this user, not the daemon's.")
    ] = False,
) -> int:
    """Check what this host can enforce. Ends with 1 when something needed is missing.

    Asks the daemon when one runs; else looks by itself, so it also tells why a daemon does not start.

    Examples:

    \b
      agentk doctor
      agentk doctor -o json
    """
    form = show.parse(output, ("json", "yaml"))
    report = here() if local else _report()
    if form.name:
        show.write(show.document(report, form))
    else:
        show.write(text(report["findings"], columns.wants_colour(sys.stdout)))
    return 0 if report["ok"] else 1


def text(findings: list[dict[str, Any]], colour: bool) -> str:
    """One line a finding, the way to mend it below."""
    lines = []
    width = max((len(one["name"]) for one in findings), default=0)
    for one in findings:
        word, code = _MARKS["ok" if one["ok"] else "bad" if one.get("needed", True) else "warn"]
        mark = f"\x1b[{code}m{word:<4}\x1b[0m" if colour else f"{word:<4}"
        lines.append(f"{mark}  {one['name']:<{width}}  {columns.safe(one['message'])}".rstrip())
        if not one["ok"] and one.get("fix"):
            lines += [f"{'':<{width + 8}}mend it: {line}" for line in one["fix"].splitlines()]
    bad = sum(1 for one in findings if not one["ok"] and one.get("needed", True))
    unheld = [one["name"] for one in findings if not one["ok"] and one["name"] in _LIMITS]
    if bad:
        lines.append(f"{bad} needed thing{'s' * (bad > 1)} missing")
    elif unheld:
        lines.append(f"jails can be made, but this host does not hold: {', '.join(unheld)}")
        lines.append("agents do not start without, unless their Runtime says enforcement: BestEffort")
    else:
        lines.append("everything needed is there")
    return "\n".join(lines) + "\n"


def here() -> dict[str, Any]:
    """The same checks in a process of their own, without a daemon. Raises Unavailable when they cannot run."""
    command = [sys.executable, "-I", "-m", "agentk.daemon", "doctor"]
    ran = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    try:
        report = json.loads(ran.stdout)
    except ValueError:
        words = ran.stderr.decode(errors="replace").strip() or f"exit code {ran.returncode}"
        raise errors.Unavailable(f"the checks did not run: {words.splitlines()[-1]}") from None
    if not isinstance(report, dict):
        raise errors.Unavailable("the checks told nothing")
    return report


def _report() -> dict[str, Any]:
    try:
        report = connect.connect(starts=False).request("GET", "/agentk/v1/doctor")
    except errors.Unavailable:
        return here()
    return dict(report)
