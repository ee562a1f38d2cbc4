"""The named moments at which a test kills the launcher, to prove that any death is survived.

Test-only: `AGENTK_CRASH_AT=NAME` in the launcher's environment makes it kill itself (SIGKILL) when it passes NAME,
and `AGENTK_CRASH_DIR=DIRECTORY` when there is a file named NAME in it, which it takes away first: so only once.
Every durable step has a point before and after it; a name that is not in POINTS is a programming error.
"""

import os
import signal

POINTS = (
    "start.before-intent",
    "start.after-intent",
    "start.after-group",
    "start.after-fifos",
    "start.after-door",
    "start.after-fork",
    "start.after-listener",
    "start.after-ready",
    "start.before-handle",
    "start.after-handle",
    "start.after-release",
    "image.after-hold",
    "podman.after-stage",
    "podman.after-start",
    "podman.after-rename",
    "exec.after-answer",
    "enter.after-intent",
    "enter.after-leaf",
    "enter.after-fork",
    "enter.before-clean",
    "claim.before-intent",
    "claim.after-intent",
    "claim.after-door",
    "claim.after-mounts",
    "claim.after-record",
    "claim.after-handle",
    "claim.after-order",
    "signal.before-intent",
    "signal.after-intent",
    "signal.after-signal",
    "end.before-drain",
    "end.after-drain",
    "end.before-exit",
    "end.after-exit",
    "end.after-leaf",
    "drain.after-header",
    "drain.after-move",
    "drain.after-log",
    "remove.before-leaf",
    "remove.after-leaf",
    "remove.after-fifos",
    "remove.after-record",
    "release.after-boxes",
    "release.after-group",
    "release.after-door",
    "release.after-workspace",
    "workspace.after-freeze",
    "workspace.after-remove",
    "workspace.after-make",
    "workspace.after-fork",
    "workspace.before-thaw",
    "environment.before-go",
    "environment.before-keep",
    "environment.after-keep",
    "environment.after-remove",
    "adopt.before-scan",
    "adopt.after-half-made",
    "adopt.after-box",
    "adopt.after-scan",
)

_chosen = ""
_folder = ""


def arm(name: str, folder: str = "") -> None:
    """Called once at start with both variables ("" for none). Raises ValueError for no such point."""
    global _chosen, _folder
    if name and name not in POINTS:
        raise ValueError(f"no crash point {name!r}")
    _chosen, _folder = name, folder


def crashpoint(name: str) -> None:
    """Die here when told to."""
    if _chosen and name == _chosen:
        os.kill(os.getpid(), signal.SIGKILL)
    if _folder:
        once(_folder, name)


def once(folder: str, name: str) -> None:
    """Die when `folder` has a file of that name, and take it away."""
    try:
        os.unlink(f"{folder}/{name}")
    except OSError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
