"""Connections of the daemon: who may connect, which verbs there are, and answers that never make us wait."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentk.api import errors
from agentk.runtime.launcher import handing, loop, verbs, wire
from agentk.runtime.launcher.calling import FULL_BYTES, Caller
from agentk.runtime.launcher.world import World

_WAITING_MAX_BYTES = 64 * 1024 * 1024  # for one that does not read its answers
_CONNECTIONS_MAX = 64


@dataclass
class Connection:
    """One daemon, or one of its tools."""

    socket: socket.socket
    inbox: wire.Inbox = field(default_factory=wire.Inbox)
    outbox: wire.Outbox = field(default_factory=wire.Outbox)
    borrows: bool = False  # asked for copies of every box's descriptors
    hears: bool = False  # said hello: gets notes
    callers: list[Caller] = field(default_factory=list)  # those that wait for a command to end
    making_room: bool = False


@dataclass(frozen=True)
class _Line:
    """A connection as its callers know it."""

    server: "Server"
    connection: Connection

    @property
    def waiting_bytes(self) -> int:
        return self.connection.outbox.waiting_bytes

    def send(self, message: wire.Message, fds: Sequence[int] = ()) -> None:
        self.server.send(self.connection, message, fds)


class Server:
    def __init__(self, world: World, listener: socket.socket) -> None:
        self._world, self._listener = world, listener
        self._connections: dict[int, Connection] = {}
        listener.setblocking(False)
        world.loop.watch(listener.fileno(), loop.READ, lambda _: self._accept())
        world.notify = self._notify
        world.lend = self._lend

    def close(self) -> None:
        """Nobody is served any more."""
        self._world.loop.forget(self._listener.fileno())
        self._listener.close()
        for connection in list(self._connections.values()):
            self._drop(connection)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            return
        if wire.peer(accepted)[1] not in self._welcome() or len(self._connections) >= _CONNECTIONS_MAX:
            accepted.close()
            return
        accepted.setblocking(False)
        connection = Connection(accepted)
        self._connections[accepted.fileno()] = connection
        self._world.loop.watch(accepted.fileno(), loop.READ, lambda events: self._ready(connection, events))

    def _welcome(self) -> set[int]:
        return {0, os.geteuid(), self._world.settings.daemon_uid} - {-1}

    def _ready(self, connection: Connection, events: int) -> None:
        if events & loop.WRITE:
            self._flush(connection)
        if events & (loop.READ | loop.HANG_UP) and connection.socket.fileno() >= 0:
            self._read(connection)

    def _read(self, connection: Connection) -> None:
        try:
            data, fds = wire.receive(connection.socket)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            self._drop(connection)
            return
        try:
            messages = connection.inbox.feed(data, fds)
        except errors.AgentkError as error:
            self.send(connection, {"id": None, "error": error.to_status()})
            self._drop(connection)
            return
        for message, mine in messages:
            self._serve(connection, message, mine)

    def _serve(self, connection: Connection, message: wire.Message, fds: list[int]) -> None:
        number = message.get("id")

        def answer(result: wire.Message | errors.AgentkError) -> None:
            if isinstance(result, errors.AgentkError):
                self.send(connection, {"id": number, "error": result.to_status()})
            else:
                self.send(connection, {"id": number, "ok": result})

        try:
            verb = str(message.get("verb"))
            if verb == "hello":
                connection.hears = True
                answer(verbs.hello(self._world))
            elif verb == "take_fds":
                connection.borrows = True
                self._lend_all(connection)
                answer({})
            elif verb == "give_fds":
                handing.receive(self._world, message.get("names", []), fds)
                fds = []
                answer({})
            elif verb in verbs.LASTING:
                self._last(connection, message, fds)
            else:
                verbs.find(verb)(self._world, message, answer)
        except errors.AgentkError as error:
            answer(error)
        except (OSError, ValueError, TypeError, KeyError) as error:
            answer(errors.AgentkError(f"{type(error).__name__}: {error}"))
        finally:
            for fd in fds:
                os.close(fd)

    def _last(self, connection: Connection, message: wire.Message, fds: list[int]) -> None:
        if connection.socket.fileno() < 0:
            return  # an earlier message of the same read was its last
        caller = Caller(_Line(self, connection), message.get("id"))
        verbs.LASTING[str(message["verb"])](self._world, message, fds, caller)
        if not caller.answered:
            connection.callers.append(caller)

    def _room(self, connection: Connection) -> None:
        """Its callers may go on. What they send may make room again, which must not lead back here."""
        if connection.making_room or not connection.callers:
            return
        connection.making_room = True
        try:
            for caller in list(connection.callers):
                caller.room()
            connection.callers = [caller for caller in connection.callers if not caller.answered]
        finally:
            connection.making_room = False

    def send(self, connection: Connection, message: wire.Message, fds: Sequence[int] = ()) -> None:
        """Now or when there is room. One that has left is sent nothing; one that does not read is let go."""
        if connection.socket.fileno() < 0:
            return  # it left before its answer came
        connection.outbox.put(message, fds)
        self._flush(connection)
        if connection.outbox.waiting_bytes > _WAITING_MAX_BYTES:
            self._drop(connection)

    def _flush(self, connection: Connection) -> None:
        try:
            done = connection.outbox.flush(connection.socket)
        except OSError:
            self._drop(connection)
            return
        events = loop.READ if done else loop.READ | loop.WRITE
        self._world.loop.watch(
            connection.socket.fileno(), events, lambda events: self._ready(connection, events)
        )
        if connection.outbox.waiting_bytes < FULL_BYTES:
            self._room(connection)

    def _drop(self, connection: Connection) -> None:
        fd = connection.socket.fileno()
        if fd < 0:
            return
        self._connections.pop(fd, None)
        self._world.loop.forget(fd)
        connection.socket.close()
        connection.inbox.close()
        connection.outbox.close()
        callers, connection.callers = connection.callers, []
        for caller in callers:
            caller.gone()

    def _notify(self, note: dict[str, object]) -> None:
        for connection in list(self._connections.values()):
            if connection.hears:
                self.send(connection, note)

    def _lend(self, names: handing.Names, fds: list[int]) -> None:
        for connection in list(self._connections.values()):
            if connection.borrows and fds:
                self.send(connection, {"note": "fds", "names": names}, fds)

    def _lend_all(self, connection: Connection) -> None:
        for names, fds in handing.portions(self._world):
            self.send(connection, {"note": "fds", "names": names}, fds)
