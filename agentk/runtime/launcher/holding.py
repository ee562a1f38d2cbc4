"""The namespace that holds tmpfs workspaces, across launchers: the daemon keeps a copy of its descriptor.

What the daemon gives back is believed only when it is the namespace that an earlier launcher made: its number is in
our records, and nobody without our rights can have one with the same number and our owner.
"""

import json
import os
from pathlib import Path

from agentk.runtime import workspace
from agentk.runtime.launcher.world import World

_RECORD = ".holder"


def remember(world: World) -> None:
    """Note which namespace is ours. Repeatable."""
    mark = _mark(world.workspaces.holder_fd, world.boot_id)
    if _read(_path(world)) != mark:
        _path(world).write_text(json.dumps(mark))


def accept(world: World, fd: int) -> bool:
    """Use the one that is given back, when we have none yet. Takes the descriptor over."""
    if world.workspaces.holder_fd >= 0 or _read(_path(world)) != _mark(fd, world.boot_id):
        os.close(fd)
        return False
    given = workspace.Workspaces(world.settings.state, root=not world.settings.rootless, holder_fd=fd)
    if given.users_fd >= 0 and not world.settings.rootless:
        given.close()
        return False
    world.workspaces = given
    return True


def _path(world: World) -> Path:
    return world.settings.state / "boxes" / _RECORD


def _mark(fd: int, boot_id: str) -> list[object]:
    seen = os.fstat(fd)
    return [boot_id, seen.st_dev, seen.st_ino]


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
