"""The named moments at which a test ends the steward, to prove that any death is survived.

Test-only. Every durable step has a point before and after it; a name that is in no list here is a programming error.
"""

import os
import signal
from collections.abc import Callable

from agentk.runtime.launcher import crash

_STEPS = (
    "start",
    "signal",
    "kill",
    "remove",
    "release",
    "freeze",
    "thaw",
    "add-finalizer",
    "remove-finalizer",
    "delete-object",
    "status",
    "adopt",
    "wait",
    "claim",
)
_TASK_STEPS = ("make-agent", "hold-agent", "cancel-agent", "let-go", "task-status", "delete-task")
_SCHEDULE_STEPS = ("make-task", "replace-task", "schedule-status", "forget-task")


def _both(steps: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{step}.{when}" for step in steps for when in ("before", "after"))


POINTS = _both(_STEPS)  # of agents and Pools
TASKS, SCHEDULES = _both(_TASK_STEPS), _both(_SCHEDULE_STEPS)
SAVING = _both(("make-checkpoint", "forget-checkpoint"))  # automatic Checkpoints

_chosen = ""
_folder = ""
_die: Callable[[], None] | None = None


def arm(name: str, die: Callable[[], None] | None = None) -> None:
    """Die when `name` is reached ("" for never): by SIGKILL, or as `die` does it. Raises ValueError."""
    global _chosen, _die
    if name and name not in (*POINTS, *TASKS, *SCHEDULES, *SAVING):
        raise ValueError(f"no crash point {name!r}")
    _chosen, _die = name, die


def arm_once(folder: str) -> None:
    """Die where `folder` has a file of the point's name, which is taken away first. "" for never."""
    global _folder
    _folder = folder


def crashpoint(name: str) -> None:
    """Die here when told to."""
    if _folder:
        crash.once(_folder, name)
    if not _chosen or name != _chosen:
        return
    if _die is None:
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        _die()
