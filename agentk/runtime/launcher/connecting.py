"""A connection to a port inside a box: a forked child joins the box's network, connects, and hands the socket over.

Nothing of it is ever in the box but the socket; who listens there meets a peer on its own loopback. The child ends
within seconds, whatever the guest does, and never runs anything.
"""

import array
import errno
import os
import signal
import socket
from typing import NoReturn

from agentk.api import errors
from agentk.runtime import kernel
from agentk.runtime.launcher import child, doors, ending, loop, processes, wire
from agentk.runtime.launcher.calling import Caller
from agentk.runtime.launcher.world import Live, World

_AT_ONCE = 32  # of one box, on their way
_SECONDS = 5.0
_PORT_MAX = 65535
_ERRNO_MAX = 4096


def connect(world: World, live: Live, message: wire.Message, caller: Caller) -> None:
    """Answers with one descriptor. Raises Conflict, Invalid, TooManyRequests."""
    port = message.get("port")
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port <= _PORT_MAX:
        raise errors.Invalid(f"must be a number of 1 to {_PORT_MAX}", field="connect.port")
    if port == doors.PORT:  # everybody on this machine's loopback could be the agent there
        raise errors.BadRequest(f"port {port} of every box is its own gate's, which is for the agent alone")
    if live.phase != "Running" or live.guest is None:
        raise errors.Conflict(f"the box is {live.phase}, not Running")
    if live.frozen:
        raise errors.Conflict("the box is frozen")
    if live.box.build or live.box.runtime == "process":
        raise errors.BadRequest("the box has no network of its own", hint="connect to the host's 127.0.0.1")
    if world.connecting.count(live.box.id) >= _AT_ONCE:
        raise errors.TooManyRequests("too many connections to this box are being made", retry_after_seconds=1)
    guest = processes.open_pidfd(live.guest)
    if guest is None:
        raise errors.Conflict("the box has just ended")
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        pid = child.fork_into(theirs, lambda: _join(guest, port, theirs))
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
        os.close(guest)
    _Making(world, live.box.id, port, pid, ours, caller).begin()


class _Making:
    """One on its way."""

    def __init__(
        self, world: World, box_id: str, port: int, pid: int, channel: socket.socket, caller: Caller
    ) -> None:
        self._world, self._box_id, self._port, self._caller = world, box_id, port, caller
        self._pid, self._channel = pid, channel

    def begin(self) -> None:
        world = self._world
        world.connecting.append(self._box_id)
        world.loop.watch(self._channel.fileno(), loop.READ, lambda _: self._heard())
        # A child that is held up, whatever by: nothing of the guest's can, but its own alarm may not be ours.
        self._timer = world.loop.after(2 * _SECONDS, self._kill)
        self._caller.on_gone = self._kill

    def _kill(self) -> None:
        try:
            os.kill(self._pid, signal.SIGKILL)  # our own child, not yet reaped: its pid is nobody else's
        except ProcessLookupError:
            pass

    def _heard(self) -> None:
        try:
            data, ancillary, _, _ = self._channel.recvmsg(16, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        self._timer.cancel()
        self._caller.on_gone = None
        self._world.loop.forget(self._channel.fileno())
        self._channel.close()
        self._world.connecting.remove(self._box_id)
        ending.bury(self._world, self._pid)
        if ancillary:
            self._caller.answer({}, list(array.array("i", ancillary[0][2])))
            return
        code = int(data) if data.isdigit() and int(data) < _ERRNO_MAX else errno.ESRCH
        why = "nobody listens there" if code == errno.ECONNREFUSED else os.strerror(code)
        self._caller.answer(errors.Unavailable(f"cannot connect to port {self._port} of the box: {why}"))


def _join(guest: int, port: int, channel: socket.socket) -> NoReturn:
    """Also its user namespace, so that nothing here has a right outside of the box."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(2 * _SECONDS))
    child.usual_signals()
    child.close_all_but({guest, channel.fileno()})
    try:
        kernel.setns(guest, kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as made:
            made.settimeout(_SECONDS)
            made.connect(("127.0.0.1", port))
            made.settimeout(None)  # whoever gets it begins with a plain one
            socket.send_fds(channel, [b"0"], [made.fileno()])
    except OSError as error:
        channel.send(str(error.errno or errno.ETIMEDOUT).encode())
    os._exit(0)
