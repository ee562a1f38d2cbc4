"""What of a Podman box is not in a jail: its exit is in Podman, and its container, FIFOs and stage have to go.

Each is repeatable, and none waits. A step that a death of ours leaves out is done by the launcher that comes after.
"""

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime.launcher import loop, podman_stage
from agentk.runtime.podman import spec

if TYPE_CHECKING:
    from agentk.runtime.launcher.world import Live, World

_GO = "go"
_RETRY_SECONDS = 0.2
_TRIES = 5
_NOTHING: dict[str, Any] = {}


def open_go(world: "World", box: words.Box) -> int:
    """The FIFO at which the first process waits. It is open as long as the box lives, or the word would be lost."""
    path = world.fifo_folder(box) / _GO
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path)
        path.chmod(0o644)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)


def say_go(live: "Live") -> None:
    """The word. Said twice it is said once."""
    os.write(live.go, b"g\n")


def say_go_again(world: "World", live: "Live") -> None:
    """To a box that an earlier launcher may have left waiting. It has all that it needs. One that was claimed has heard
    it long ago."""
    if live.box.group:
        return
    live.go = open_go(world, live.box)
    if live.guest is not None and is_waiting(live.guest.pid):
        say_go(live)
    world.records.mark_begun(live.box.id)


def is_waiting(pid: int) -> bool:
    """Whether the first process has not become the init yet."""
    try:
        return spec.is_waiting(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def learn(world: "World", live: "Live", answer: Callable[[dict[str, Any]], None]) -> None:
    """How it ended: {"code", "oom"}, {} when nobody knows. Its first process is gone."""

    def told(result: dict[str, Any] | errors.AgentkError) -> None:
        answer(result if isinstance(result, dict) else _NOTHING)

    world.podman.ask("ended", told, container=_container(world, live))


def _container(world: "World", live: "Live") -> str:
    """Its name, or its id where it was made under another."""
    return live.container if live.box.group else world.podman.name(live.box.id)


def clean(world: "World", live: "Live") -> None:
    """Its container, its stage and its FIFOs."""
    box = live.box
    if box.runtime != "podman":
        return
    shutil.rmtree(world.fifo_folder(box), ignore_errors=True)
    remove_container(world, box.id, live.container if box.group else "")
    if box.image:
        let_images_go(world, but=box.id)
    point = world.podman.stage(box)
    if point.exists():
        let_stages_go(world, [point])


def rename(world: "World", live: "Live") -> None:
    """One that was claimed, for people who list containers. Nothing of ours goes by that name."""
    if live.box.runtime == "podman":
        new = world.podman.name(live.box.id)
        world.podman.ask("rename", lambda _: None, container=live.container, name=new)


def let_images_go(world: "World", but: str = "") -> None:
    """Of which no box (but this one) is made any more: they may be removed again. Said in the order in which things
    happened, so an image that a box asks for after this is held anew."""
    others = [live for live in world.lives.values() if live.box.id != but]
    used = {live.box.image for live in others if live.phase in ("Starting", "Running")}
    world.podman.ask("let_go", lambda _: None, used=sorted(used - {""}))


def remove_container(world: "World", box_id: str, container: str = "", tries: int = _TRIES) -> None:
    """Soon, and again when Podman cannot do it now. A box made anew meanwhile took the old one's name and place.

    `container`: its id, where it is known that no other can be meant.
    """

    def told(result: dict[str, Any] | errors.AgentkError) -> None:
        if isinstance(result, errors.AgentkError) and tries:
            world.loop.after(_RETRY_SECONDS, again)

    def again() -> None:
        live = world.lives.get(box_id)
        if container or live is None or live.phase in ("Exited", "Lost"):
            remove_container(world, box_id, container, tries - 1)

    world.podman.ask("remove", told, container=container or world.podman.name(box_id))


def let_stages_go(world: "World", points: Sequence[Path]) -> None:
    """Unmount them where they are mounted, and take their folders away."""
    if not world.podman.service_pid:
        return _remove_folders(points)  # with the service its namespace went
    try:
        joined = podman_stage.spaces(world.podman.service_pid, world.settings.rootless)
    except OSError:
        return _remove_folders(points)
    ours, theirs = socket.socketpair()
    try:
        pid = podman_stage.fork_removal(joined, points, theirs)
    finally:
        theirs.close()
        for space in joined:
            os.close(space)
    pidfd = os.pidfd_open(pid)
    world.podman.removals += 1

    def ended(_: int) -> None:
        world.podman.removals -= 1
        world.loop.forget(pidfd)
        os.close(pidfd)
        ours.close()
        os.waitpid(pid, 0)
        _remove_folders(points)

    world.loop.watch(pidfd, loop.READ, ended)
    return None


def _remove_folders(points: Sequence[Path]) -> None:
    for point in points:
        with contextlib.suppress(OSError):
            point.rmdir()


def adopt(world: "World") -> None:
    """After a launcher that died: containers of boxes that do not run, and stages, which no box that runs needs."""
    used = world.podman.folder.is_dir() or any(live.box.runtime == "podman" for live in world.lives.values())
    if not used or shutil.which("podman") is None:
        return

    def ready(result: dict[str, Any] | errors.AgentkError) -> None:
        if isinstance(result, dict):
            world.podman.ask("list", listed)
            starting = {
                world.podman.stage(live.box) for live in world.lives.values() if live.phase == "Starting"
            }
            let_stages_go(world, [point for point in world.podman.stages() if point not in starting])

    def listed(result: dict[str, Any] | errors.AgentkError) -> None:
        there = [live for live in world.lives.values() if live.phase in ("Starting", "Running")]
        kept = {live.container for live in there} | {live.box.id for live in there}
        for told in result["containers"] if isinstance(result, dict) else ():
            if told["id"] not in kept and told["box"] not in kept:
                remove_container(world, told["box"], told["id"])
        let_images_go(world)

    world.podman.ready(ready)
