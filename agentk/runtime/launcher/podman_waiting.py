"""Making a Podman box that waits, and handing its door over when it is claimed.

No descriptor of ours passes through Podman, so its interpreter comes to us: to a socket beside its FIFOs, which is
gone as soon as it was heard. From there on it is told as any other. Whoever else comes to that socket is let go: only
what is in the box's own group is heard. Its door has nothing in it but the FIFOs until it becomes an agent's.
"""

import os
import socket
import struct

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime import logs
from agentk.runtime.launcher import doors, podman_starting, starting
from agentk.runtime.launcher.crash import crashpoint
from agentk.runtime.launcher.loop import READ
from agentk.runtime.launcher.world import World

_PEER = struct.Struct("iII")
_WORD_BYTES = 8192
_LETTERS = 600  # of what it said at last
_NO_PYTHON = "agentk: python3: not found"  # as the first process says it


class Attempt(podman_starting.Attempt):
    """One such box being made."""

    _listener: socket.socket | None = None
    _late = ""  # what one said that was dead when we looked

    def _open_door(self) -> None:
        world, box = self._world, self._box
        doors.make(world.settings.doors, box.uid)
        self._listener = doors.open_gate(world.make_fifo_folder(box), box.host_uid, doors.ORDER)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def _begun(self) -> None:
        assert self._listener is not None
        self._world.loop.watch(self._live.keeper_fd, READ, lambda _: self._ended_early())
        self._world.loop.watch(self._listener.fileno(), READ, lambda _: self._accept())

    def _accept(self) -> None:
        world, live = self._world, self._live
        assert self._listener is not None
        try:
            channel, _ = self._listener.accept()
        except OSError:
            return
        pid = _PEER.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0]
        inside = world.groups.pids(live.box.namespace, live.box.cgroup, live.leaf)
        channel.setblocking(False)
        if world.groups.version != "none" and pid not in inside:
            with channel:
                self._late = self._late or _word(channel)
            return
        self._hang_up()
        self._channel, self._told_go = channel, True
        world.loop.watch(channel.fileno(), READ, lambda _: self._listen())

    def _waits(self, pid: int) -> None:
        live = self._live
        if live.go >= 0:  # its word was heard: whoever comes after us ends it
            os.close(live.go)
            live.go = -1
        super()._waits(pid)

    def _ended_early(self) -> None:
        if self._channel is None:
            self._accept()  # it came, spoke and died before we looked
        while self._heard():
            pass
        if self._world.starting.get(self._live.box.id) is not self:
            return  # what it said last was believed
        self.fail(errors.RuntimeRefused(f"cannot make the box: {self._last_words()}"))

    def _last_words(self) -> str:
        output = self._live.output
        if self._late:
            return self._late
        if output is None:
            return "its Python ended before it waited"
        output.finish()
        said = [line.text.decode(errors="replace") for line in logs.read(output.path)]
        if self._live.box.image and said[-1:] == [_NO_PYTHON]:
            return "its image has no python3, and only a Python can wait"
        last = "".join(filter(str.isprintable, said[-1]))[:_LETTERS] if said else ""
        return "its Python ended before it waited" + (f": {last}" if last else "")

    def _hang_up(self) -> None:
        if self._listener is not None:
            self._world.loop.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
            (self._world.fifo_folder(self._live.box) / doors.ORDER).unlink(missing_ok=True)

    def _close(self) -> None:
        self._hang_up()
        super()._close()


def _word(channel: socket.socket) -> str:
    """What is said of a failure, and nothing else: whoever has that pid now is nobody to us."""
    try:
        said = str(starting.message_of(channel.recv(_WORD_BYTES)).get("error", ""))
    except OSError:
        return ""
    return "".join(filter(str.isprintable, said))[:_LETTERS]


def hand_door_over(world: World, waiting: words.Box, box: words.Box) -> None:
    """The box sees that door already: under another name it is the agent's, and so are the FIFOs in it."""
    if any(
        other.box.uid == box.uid and other.phase in ("Starting", "Running") and other.box.id != box.id
        for other in world.lives.values()
    ):
        raise errors.Conflict("another box of the agent has its door")
    folder = world.fifo_folder(waiting)
    folder.rename(folder.with_name(box.id))
    crashpoint("podman.after-rename")
    doors.hand_over(world.settings.doors, waiting.uid, box.uid)
