"""Copies of descriptors, lent to the daemon and taken back from it, so that either may die with nothing lost.

A FIFO needs no taking back: opened anew by its path it is the same pipe while anybody has it. Listening sockets are
not; a launcher that comes back uses the daemon's, and makes them anew only when nobody kept them.
"""

import os
import socket
from collections.abc import Iterator, Sequence

from agentk.runtime.launcher import doors, holding, wire
from agentk.runtime.launcher.world import Live, World

OUT, ERR, SAID, IN, GATE, INSIDE, HOLDER = "out", "err", "said", "in", "gate", "inside", "holder"
_RETRY_SECONDS = 1.0
Names = list[dict[str, str]]


def descriptors(lives: Sequence[Live]) -> tuple[Names, list[int]]:
    """Every descriptor of these boxes with its name, in the same order. They stay ours."""
    names: Names = []
    fds = []
    for live in lives:
        if live.box.waits:  # nobody may speak for it, and it ends with us
            continue
        fifos = live.output.fifos if live.output else {}
        held = {OUT: fifos.get("stdout"), ERR: fifos.get("stderr"), SAID: fifos.get("log")}
        held |= {IN: live.output.stdin if live.output and live.output.stdin >= 0 else None}
        held |= {GATE: live.gate.fileno() if live.gate else None}
        held |= {INSIDE: live.inside.fileno() if live.inside else None}
        for what, fd in held.items():
            if fd is not None:
                names.append({"box_id": live.box.id, "uid": live.box.uid, "what": what})
                fds.append(fd)
    return names, fds


def lend(world: World, live: Live) -> None:
    """A box that runs now, to every daemon that asked for copies."""
    world.lend(*descriptors([live]))


def lend_holder(world: World) -> None:
    """The namespace of tmpfs workspaces, once there is one."""
    holding.remember(world)
    world.lend(*_holder(world))


def _holder(world: World) -> tuple[Names, list[int]]:
    fd = world.workspaces.holder_fd
    return ([{"box_id": "", "uid": "", "what": HOLDER}], [fd]) if fd >= 0 else ([], [])


def portions(world: World) -> Iterator[tuple[Names, list[int]]]:
    """Everything we have, in messages of as many as one can carry."""
    names, fds = descriptors([live for live in world.lives.values() if live.phase in ("Starting", "Running")])
    held = _holder(world)
    names, fds = held[0] + names, held[1] + fds
    for start in range(0, len(fds), wire.FDS_A_MESSAGE):
        stop = start + wire.FDS_A_MESSAGE
        yield names[start:stop], fds[start:stop]


def receive(world: World, names: object, fds: Sequence[int]) -> None:
    """Listeners that the daemon kept for us. Takes every descriptor over, also those nobody needs."""
    told = names if isinstance(names, list) else []
    for number, fd in enumerate(fds):
        name = told[number] if number < len(told) and isinstance(told[number], dict) else {}
        live = world.lives.get(str(name.get("box_id")))
        what = name.get("what")
        if what == HOLDER:
            holding.accept(world, fd)
        elif live is None or live.phase != "Running" or not _is_listener(fd):
            os.close(fd)
        elif what == GATE and live.gate is None:
            live.gate = socket.socket(fileno=fd)
        elif what == INSIDE and live.inside is None:
            live.inside = socket.socket(fileno=fd)
        else:
            os.close(fd)


def _is_listener(fd: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(fd)) as seen:
            return bool(seen.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def make_missing(world: World) -> None:
    """Listeners of boxes that run and that nobody kept. One that somebody still has open is asked for later."""
    again = False
    for live in world.lives.values():
        if live.phase != "Running" or live.box.build or live.box.waits or not live.keeper:
            continue
        made = False
        within = live.guest if live.box.runtime == "podman" else live.keeper
        if live.inside is None and live.box.runtime != "process" and within:
            try:
                live.inside = doors.relisten(within.pid, world.settings.rootless)
                made = True
            except OSError:
                again = True  # the daemon has it and will give it back
        if live.gate is None:
            try:
                live.gate = world.open_gate(live.box)
                made = True
            except OSError:
                again = True
        if made:
            lend(world, live)
    if again:
        world.loop.after(_RETRY_SECONDS, lambda: make_missing(world))
