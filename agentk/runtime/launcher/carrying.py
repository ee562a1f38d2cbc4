"""Files in and out of a box that runs, as tar streams through a pipe of the daemon's: which path, and who reads it."""

import posixpath
from collections.abc import Sequence

from agentk.api import errors
from agentk.runtime import kernel
from agentk.runtime.launcher import checking, entered, entering, exec_wanted, packing, unpacking, wire
from agentk.runtime.launcher.calling import Caller
from agentk.runtime.launcher.world import Live, World

_WORKSPACE = "/workspace"


def pack(world: World, live: Live, message: wire.Message, fds: Sequence[int], caller: Caller) -> None:
    """Answers what was written to `fds`. Raises Conflict, Invalid, BadRequest."""
    path, resolve, name = _way(live, message)
    _begin(world, live, message, fds, caller, lambda: packing.Packer(1).pack(path, resolve, name))


def unpack(world: World, live: Live, message: wire.Message, fds: Sequence[int], caller: Caller) -> None:
    """Answers what was read from `fds`. Raises Conflict, Invalid, BadRequest."""
    path, resolve, _ = _way(live, message)
    _begin(world, live, message, fds, caller, lambda: unpacking.Unpacker(0).unpack(path, resolve))


def _way(live: Live, message: wire.Message) -> tuple[str, int, str]:
    """The path, what may be on the way to it, and its last name.

    A jail has a root of its own, so its links may lead anywhere. Without one they must not lead out of the workspace:
    whoever may reach into an agent need not be who may read this host.
    """
    path = message.get("path")
    checking.check_inside(path, "path")
    path = str(path)
    name = posixpath.basename(path) or "."
    if live.box.runtime != "process":
        return path, kernel.RESOLVE_NO_MAGICLINKS, name
    inside = posixpath.relpath(path, _WORKSPACE)
    if inside.startswith(".."):
        raise errors.BadRequest(f"without a jail there is only {_WORKSPACE}, not {path}")
    return inside, packing.BELOW & ~kernel.RESOLVE_NO_SYMLINKS, name


def _begin(
    world: World,
    live: Live,
    message: wire.Message,
    fds: Sequence[int],
    caller: Caller,
    sealed: entered.Sealed,
) -> None:
    checking.check_ends(fds, 1, False, entering.givers(world))
    hand_id = exec_wanted.check_exec_id(message.get("hand_id"))
    entering.begin(world, live, entering.Wanted(hand_id=hand_id, cwd=_WORKSPACE, sealed=sealed), fds, caller)
