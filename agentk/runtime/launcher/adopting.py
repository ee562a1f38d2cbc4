"""What a launcher that comes after another finds, and makes of it, before it serves anybody.

A box whose keeper lives (pid, start time, boot id) is adopted. One whose keeper is gone gets its true exit from the
keeper's log. One that never had a handle is removed with all it had. After a reboot, boxes that ran are Lost.
Adopting twice is adopting once: a death on the way leaves the same to find.
"""

import dataclasses
import os
import signal
from pathlib import Path

from agentk.runtime import box as words
from agentk.runtime.launcher import (
    claiming,
    doors,
    ending,
    entering,
    handing,
    loop,
    output,
    podman_ending,
    processes,
    remains,
    wire,
)
from agentk.runtime.launcher.crash import crashpoint
from agentk.runtime.launcher.world import Live, World

_DAEMON_SECONDS = 3.0  # for a daemon that lives to give back the listeners it kept


def adopt(world: World) -> None:
    """Everything on disk and in our cgroups."""
    crashpoint("adopt.before-scan")
    for box_id in world.records.all():
        box = world.records.box(box_id)
        told = world.records.handle(box_id)
        if box is not None and box.leaf.startswith(("exec-", entering.LEAF)):
            remains.end_leftover(world, box_id)
        elif box is not None and (box.waits or box.id != box_id):
            _waiting(world, box_id, box, told or {})
            crashpoint("adopt.after-half-made")
        elif box is None or (told is None and world.records.exit(box_id) is None):
            _half_made(world, box_id, box)
            crashpoint("adopt.after-half-made")
        else:
            _known(world, box, told or {})
            crashpoint("adopt.after-box")
    _strangers(world)
    world.tools.collect(live.tools for live in world.lives.values() if live.phase == "Running")
    podman_ending.adopt(world)
    crashpoint("adopt.after-scan")
    world.loop.after(_DAEMON_SECONDS, lambda: handing.make_missing(world))


def _known(world: World, box: words.Box, told: dict[str, object]) -> None:
    live = Live(
        box,
        keeper=wire.process_from(told.get("keeper")),
        guest=wire.process_from(told.get("guest")),
        main=wire.process_from(told.get("main")),
        ours=False,
        begun=world.records.has_begun(box.id),
        started_at=str(told.get("started_at", "")),
        started_boottime=_number(told.get("started_boottime")),
        unenforced=tuple(str(text) for text in _list(told.get("unenforced"))),
        workspace=str(told.get("workspace", "")),
        tools=str(told.get("tools", "")),
        intent=world.records.intent(box.id),
        counts=world.records.counts(box.id),
        container=str(told.get("container", "")),
    )
    world.lives[box.id] = live
    if box.group:  # it waited under that name, and who claimed it may have died before the last step
        claiming.forget_log(world, dataclasses.replace(box, uid=box.group))
    ended = world.records.exit(box.id)
    if ended is not None:
        live.exit, live.phase = ended[0], "Lost" if ended[1] else "Exited"
        ending.close(world, live)
        podman_ending.clean(world, live)
        ending.remove_leaf(world, live)
        return
    if live.keeper is not None and live.keeper.boot_id != world.boot_id:
        live.phase = "Running"
        ending.settle(world, live, None, "the machine was restarted while it ran")
        return
    lasting = live.guest if box.runtime == "podman" else live.keeper
    pidfd = processes.open_pidfd(lasting) if lasting else None
    if pidfd is None:
        _ended_meanwhile(world, live)
        return
    live.phase, live.keeper_fd = "Running", pidfd
    live.frozen = world.groups.is_frozen(box.namespace, box.cgroup, live.leaf)
    live.output = ending.open_output(world, live, _open_fifos(world, live))
    if box.runtime == "podman":
        podman_ending.say_go_again(world, live)
    live.counts = (0, 0)
    world.loop.watch(pidfd, loop.READ, lambda _: ending.keeper_ended(world, live))


def _ended_meanwhile(world: World, live: Live) -> None:
    """Its last output is in the FIFO if the daemon kept it open, and lost if nobody did."""
    live.phase = "Running"
    live.output = ending.open_output(world, live, _open_fifos(world, live))
    ending.keeper_ended(world, live)


def _open_fifos(world: World, live: Live) -> dict[str, int]:
    """If nobody has them open, what was in them is gone, also of a box that seems to live: one that ends closes its
    descriptors first, and is no corpse for a while. That is on disk before we open them, for then they are new pipes,
    and whoever gets a copy of ours keeps nothing."""
    box, records = live.box, world.records
    folder = world.fifo_folder(box)
    held = [fd for name in ("out", "err") if (fd := _hold(folder / name)) >= 0]
    live.cut = records.is_cut(box.id) or len(held) < len(("out", "err"))
    if live.cut:
        records.mark_cut(box.id)
    if box.runtime == "podman":
        doors.make(world.settings.doors, box.uid)
        shown = world.make_fifo_folder(box)
        fifos = output.open_fifos(records.path(box.id), box.host_uid, shown, box.stdin)
    else:
        fifos = output.open_fifos(folder, box.host_uid, stdin=box.stdin)
    for fd in held:
        os.close(fd)
    if live.cut and live.guest and box.runtime == "podman" and podman_ending.is_waiting(live.guest.pid):
        live.cut = False  # it has not opened them yet
        records.unmark_cut(box.id)
    return fifos


def _hold(fifo: Path) -> int:
    """A descriptor that keeps what is in it, or -1 when no process has it open for reading."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return -1


def _waiting(world: World, box_id: str, box: words.Box, told: dict[str, object]) -> None:
    """Nobody's yet, or half claimed: its program was never told. It knows by the end of its channel, and leaves."""
    processes.send(wire.process_from(told.get("guest")), signal.SIGKILL)
    _half_made(world, box_id, box, str(told.get("container", "")))
    world.remove_door(box.cgroup)
    claiming.forget_log(world, dataclasses.replace(box, uid=box.cgroup))


def _half_made(world: World, box_id: str, box: words.Box | None, container: str = "") -> None:
    """Its first process leaves by itself when its channel ends; what it had is taken away here."""
    if box is not None:
        live = Live(box, ours=False, container=container)
        ending.stop_all(world, live)
        ending.close(world, live)
        podman_ending.clean(world, live)
        others = any(
            (other := world.records.box(other_id)) is not None and other.uid == box.uid
            for other_id in world.records.all()
            if other_id != box_id
        )
        log = world.log_path(box)
        if log.is_file() and log.stat().st_size == 0:
            log.unlink()
        ending.remove_leaf(world, live, and_group=not others)
    world.records.forget(box_id)


def _strangers(world: World) -> None:
    """Leaves in our cgroups that belong to no box we know: kill, remove."""
    known = {(live.box.namespace, live.box.cgroup, live.leaf) for live in world.lives.values()}
    kept = {key[:2] for key in known}
    for namespace, uid, leaf in world.groups.leftovers():
        if leaf and (namespace, uid, leaf) not in known:
            for pid in world.groups.pids(namespace, uid, leaf):
                processes.send(processes.identify(pid), signal.SIGKILL)
            world.groups.kill(namespace, uid, leaf, wait_seconds=0)
            world.groups.remove_leaf(namespace, uid, leaf)
        if (namespace, uid) not in kept and not _is_agent(world, uid):
            world.groups.remove_group(namespace, uid)


def _is_agent(world: World, uid: str) -> bool:
    """An agent between two attempts keeps its group: its counters go on."""
    return uid in world.workspaces.listing()


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
