"""Where agentk keeps its state and its sockets. Read once at the start of a process, then passed down."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# sun_path holds 107 bytes and our longest socket name is "/doors/<36>/gate.sock".
RUN_PATH_MAX = 107 - len("/doors/") - 36 - len("/gate.sock")


@dataclass(frozen=True)
class Places:
    """Two directories: `state` survives a reboot, `run` does not. Both are 0700."""

    state: Path
    run: Path

    @property
    def socket(self) -> Path:
        return self.run / "agentk.sock"

    @property
    def launcher_socket(self) -> Path:
        return self.run / "launcher.sock"

    @property
    def instance(self) -> str:
        """Eight hex digits that tell two daemons on one machine apart (cgroup names, uid blocks)."""
        import hashlib  # every command would pay for it

        return hashlib.sha256(str(self.state).encode()).hexdigest()[:8]


def places(env: Mapping[str, str], uid: int) -> Places:
    """`AGENTK_STATE_DIR` and `AGENTK_RUN_DIR` win; else the system's places for root, XDG's for a person."""
    if uid == 0:
        state, run = Path("/var/lib/agentk"), Path("/run/agentk")
    else:
        home = Path(env.get("HOME") or "/")
        state = Path(env.get("XDG_STATE_HOME") or home / ".local" / "state") / "agentk"
        run = Path(env.get("XDG_RUNTIME_DIR") or f"/tmp/agentk-{uid}") / "agentk"
    if env.get("AGENTK_STATE_DIR"):
        state = Path(env["AGENTK_STATE_DIR"])
        run = state / "run"
    if env.get("AGENTK_RUN_DIR"):
        run = Path(env["AGENTK_RUN_DIR"])
    return Places(Path(os.path.abspath(state)), Path(os.path.abspath(run)))
