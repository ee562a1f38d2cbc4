"""The end of a box: its last output, its counters while its cgroup still has them, its exit on disk, and then the
cgroup and the sockets go. In this order, so that a death at any point loses none of it.
"""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentk.runtime import box as words
from agentk.runtime import nsjail, process
from agentk.runtime.launcher import output, podman_ending, processes, reaping
from agentk.runtime.launcher.crash import crashpoint
from agentk.runtime.launcher.world import Live, World, now_text

_LOG_MAX_BYTES = 256 * 1024
_CUT = "output after its launcher's end may be missing: nobody was there to read it"
_RETRY_SECONDS = 0.05  # for what a dying process still holds


def keeper_ended(world: World, live: Live) -> None:
    """nsjail is gone and with it the box. Repeatable."""
    if live.phase in ("Exited", "Lost"):
        return
    status = reap(world, live)
    crashpoint("end.before-drain")
    stop_all(world, live)
    if live.output:
        live.output.finish()
        live.counts = live.log_counts
    crashpoint("end.after-drain")
    message = _CUT if live.cut else ""
    if live.box.runtime == "podman":
        live.last = world.counters(live)  # its leaf goes as soon as Podman notices
        podman_ending.learn(world, live, lambda told: settle(world, live, None, message, told))
    else:
        settle(world, live, status, message)


def settle(
    world: World, live: Live, status: int | None, message: str = "", told: Mapping[str, Any] | None = None
) -> None:
    """Write how it ended, and clean up. `told` is what Podman knows of it."""
    box = live.box
    if world.lives.get(box.id) is not live or live.phase in ("Exited", "Lost"):
        return  # it was removed while Podman was asked
    counters, told = world.counters(live), told or {}
    if told.get("oom") and not counters.oom_kills:
        counters = dataclasses.replace(counters, oom_kills=1)
    live.intent = live.intent or world.records.intent(box.id)
    log, code = log_text(world, live), told.get("code")
    ended = reaping.judge(status, log, live.intent, counters, now_text(), message, code)
    if not live.begun and ended.code == nsjail.UNTOLD:  # no instruction of its command was run
        discard(world, live)
        world.changed(live)
        return
    crashpoint("end.before-exit")
    lost = ended.source == "none"
    world.records.write_exit(box.id, ended, lost)
    crashpoint("end.after-exit")
    live.exit, live.phase, live.frozen = ended, "Lost" if lost else "Exited", False
    close(world, live)
    _end_commands(world, box.id)
    podman_ending.clean(world, live)
    remove_leaf(world, live, and_group=bool(box.group))
    crashpoint("end.after-leaf")
    world.notify({"note": "ended", "box_id": box.id})
    world.changed(live)


def reap(world: World, live: Live) -> int | None:
    """waitpid's status when the keeper is our child and has ended."""
    if live.keeper_fd >= 0:
        world.loop.forget(live.keeper_fd)
        os.close(live.keeper_fd)
        live.keeper_fd = -1
    if not live.ours or live.keeper is None:
        return None
    try:
        pid, status = os.waitpid(live.keeper.pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return status if pid else None


def stop_all(world: World, live: Live) -> None:
    """SIGKILL to everything of the box, at once. Waits for nothing."""
    box = live.box
    # The first process of a pid namespace takes all others with it, wherever they hide.
    processes.send(live.guest, signal.SIGKILL)
    if world.groups.pids(box.namespace, box.cgroup, live.leaf):
        world.groups.kill(box.namespace, box.cgroup, live.leaf, wait_seconds=0)
    if box.runtime == "process":
        process.kill_all(box.id)


def _end_commands(world: World, box_id: str) -> None:
    """What runs beside a box ends with it."""
    for command in world.commands_of(box_id):
        command.end()


def discard(world: World, live: Live) -> None:
    """A box that never ran leaves nothing behind."""
    box = live.box
    if live.keeper_fd >= 0 and live.keeper:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(live.keeper_fd, signal.SIGKILL)
        pid, ours = live.keeper.pid, live.ours
        world.loop.forget(live.keeper_fd)
        os.close(live.keeper_fd)
        live.keeper_fd = -1
        if ours:
            world.loop.after(0, lambda: bury(world, pid))
    stop_all(world, live)
    if live.output:
        log = live.output.path
        live.output.close()
        live.output = None
        if log.exists() and log.stat().st_size == 0:
            log.unlink()
            with contextlib.suppress(OSError):
                log.parent.rmdir()
    close(world, live)
    podman_ending.clean(world, live)
    last = not _has_others(world, live)
    if last:
        world.remove_door(box.uid)
    remove_leaf(world, live, and_group=last or bool(box.group))
    world.records.forget(box.id)
    world.lives.pop(box.id, None)


def bury(world: World, pid: int) -> None:
    """Reap a child that was killed, as soon as it can be."""
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0] == 0:
            world.loop.after(_RETRY_SECONDS, lambda: bury(world, pid))


def close(world: World, live: Live) -> None:
    """Let go of its descriptors; unlink what nobody can use any more. Repeatable."""
    if live.output:
        live.counts = live.log_counts
        live.output.close()
        live.output = None
    for listener in (live.gate, live.inside):
        if listener is not None:
            listener.close()
    live.gate = live.inside = None
    if live.channel is not None:
        live.channel.close()
        live.channel = None
    if live.box.runtime == "process" and not _is_taken(world, live):
        world.remove_open_door(live.box.uid)
    if live.go >= 0:
        os.close(live.go)
        live.go = -1
    live.let_tree_go()
    for name in ("out", "err", "said", "counts.json"):
        (world.records.path(live.box.id) / name).unlink(missing_ok=True)


def remove_leaf(world: World, live: Live, and_group: bool = False, tries: int = 100) -> None:
    """Now, or as soon as the last process is out of the kernel; not when it is another attempt's by then."""
    box = live.box
    if _is_taken(world, live):
        return
    gone = world.groups.remove_leaf(box.namespace, box.cgroup, live.leaf)
    if gone and and_group:
        gone = world.groups.remove_group(box.namespace, box.cgroup)
    if not gone and tries:
        stop_all(world, live)
        world.loop.after(_RETRY_SECONDS, lambda: remove_leaf(world, live, and_group, tries - 1))


def remove(world: World, box_id: str) -> None:
    """Forget a box, ended or not; its log stays. Removing nothing succeeds."""
    live = world.lives.get(box_id)
    if live is None:
        return
    if live.phase not in ("Exited", "Lost"):
        stop_all(world, live)
        if live.keeper_fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(live.keeper_fd, signal.SIGKILL)
        if live.output:
            live.output.finish()
        if live.keeper and live.keeper_fd >= 0:
            world.loop.forget(live.keeper_fd)
            os.close(live.keeper_fd)
            live.keeper_fd = -1
            if live.ours:
                bury(world, live.keeper.pid)
        live.phase = "Exited"
    _end_commands(world, box_id)
    podman_ending.clean(world, live)
    crashpoint("remove.before-leaf")
    remove_leaf(world, live, and_group=bool(live.box.group))
    crashpoint("remove.after-leaf")
    close(world, live)
    crashpoint("remove.after-fifos")
    world.records.forget(box_id)
    crashpoint("remove.after-record")
    world.lives.pop(box_id, None)
    world.notify({"note": "ended", "box_id": box_id})


def release(world: World, namespace: str, uid: str) -> None:
    """Forget an agent: boxes, group, door, workspace and logs. Repeatable."""
    for box_id in [box_id for box_id, live in world.lives.items() if live.box.uid == uid]:
        remove(world, box_id)
    crashpoint("release.after-boxes")
    _remove_group(world, namespace, uid)
    crashpoint("release.after-group")
    world.remove_door(uid)
    crashpoint("release.after-door")
    world.workspaces.remove(uid)
    crashpoint("release.after-workspace")
    output_folder = world.settings.state / "logs" / f"{namespace}_{uid}"
    for entry in output_folder.iterdir() if output_folder.is_dir() else ():
        entry.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        output_folder.rmdir()


def _remove_group(world: World, namespace: str, uid: str, tries: int = 100) -> None:
    if not world.groups.remove_group(namespace, uid) and tries:
        world.loop.after(_RETRY_SECONDS, lambda: _remove_group(world, namespace, uid, tries - 1))


def _has_others(world: World, live: Live) -> bool:
    return any(other is not live and other.box.uid == live.box.uid for other in world.lives.values())


def _is_taken(world: World, live: Live) -> bool:
    """Whether the leaf is in use by another box: what is inside is not ours to kill."""
    mine = (live.box.cgroup, live.leaf)
    return any(
        other is not live
        and (other.box.cgroup, other.leaf) == mine
        and other.phase in ("Starting", "Running")
        for other in world.lives.values()
    )


def log_text(world: World, live: Live) -> str:
    """The keeper's log, the end of it if it is long."""
    path = world.records.path(live.box.id) / "nsjail.log"
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _LOG_MAX_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def open_output(world: World, live: Live, fifos: dict[str, int]) -> output.Output:
    """The box's log and what fills it. Takes the FIFOs over."""
    box = live.box
    path = world.log_path(box)
    make_log_folder(path.parent, world.settings.daemon_uid)
    return output.Output(
        world.loop,
        world.drain,
        path,
        box.log,
        fifos,
        group=world.settings.daemon_uid,
        counts=live.counts,
        on_rotate=lambda out: world.records.write_counts(box.id, out.log_bytes, out.held_back_usec),
    )


def make_log_folder(folder: Path, group: int) -> None:
    """Its files are for the daemon to read."""
    if not folder.is_dir():
        folder.mkdir(mode=0o750)
        folder.chmod(0o750)
        if group >= 0:
            os.chown(folder, -1, group)


def intend(world: World, live: Live, intent: words.Intent | None) -> None:
    """Put down why we end it, unless that is on disk already: the first reason is the true one."""
    if intent is None or live.intent is not None:
        return
    crashpoint("signal.before-intent")
    world.records.write_intent(live.box.id, intent)
    live.intent = intent
    crashpoint("signal.after-intent")
