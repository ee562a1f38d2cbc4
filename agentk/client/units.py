"""The systemd unit that keeps a daemon. Pure: where it goes and what is in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentk.api import errors

# Delegate: the cgroups below the unit are ours. KillMode: agents outlive the daemon; only the keeper is ended.
_UNIT = """\
[Unit]
Description=agentk, the daemon that keeps AI agents
Documentation=man:systemd.resource-control(5)
After=local-fs.target

[Service]
ExecStart={program} -I -m agentk.daemon run
{environment}Restart=on-failure
RestartSec=1
Delegate=yes
KillMode=process
LimitNOFILE=1048576
TasksMax=infinity

[Install]
WantedBy={target}
"""


@dataclass(frozen=True)
class Unit:
    path: Path
    text: str
    commands: tuple[str, ...]  # what the person runs next
    for_system: bool


def unit(program: str, env: Mapping[str, str], *, for_system: bool) -> Unit:
    """The unit of this interpreter and these places. Raises Invalid for a path systemd cannot hold."""
    if any(letter in program for letter in "\n\"'\\% "):
        raise errors.Invalid(
            f"systemd cannot start {program!r}", hint="install agentk at a path without spaces"
        )
    kept = {key: env[key] for key in ("AGENTK_STATE_DIR", "AGENTK_RUN_DIR", "AGENTK_CONFIG") if env.get(key)}
    lines = "".join(f'Environment="{key}={_quoted(value)}"\n' for key, value in kept.items())
    target = "multi-user.target" if for_system else "default.target"
    text = _UNIT.format(program=program, environment=lines, target=target)
    if for_system:
        commands: tuple[str, ...] = ("systemctl daemon-reload", "systemctl enable --now agentk")
        return Unit(Path("/etc/systemd/system/agentk.service"), text, commands, True)
    config = Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME") or "/") / ".config")
    commands = (
        "loginctl enable-linger",  # else the agents end with the last login
        "systemctl --user daemon-reload",
        "systemctl --user enable --now agentk",
    )
    return Unit(config / "systemd" / "user" / "agentk.service", text, commands, False)


def _quoted(value: str) -> str:
    if "\n" in value:
        raise errors.Invalid("a path with a line break cannot be written into a unit")
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
