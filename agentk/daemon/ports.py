"""spec.ports: listeners on the host's own loopback that lead into boxes, for as long as their agents are there.

A port is the agent's, not the box's: it stays when the agent is started again, and whoever connects while no box runs
is hung up on. One that cannot be had is told in the agent's status and tried again; it stops nobody. Nothing but the
loopback is ever listened on.
"""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentk.api import errors, kinds, objects
from agentk.control.opened import Opened
from agentk.daemon import visiting
from agentk.store import feeding
from agentk.store.store import Store

HOST = "127.0.0.1"
_BACKLOG = 128
_MOST = 256  # connections at once, of all agents: each costs two descriptors
_MOST_OF_ONE = 64
_RETRY_SECONDS = 15.0
_CROWDED_SECONDS = 1.0
_CHUNK_BYTES = 32 * 1024

_log = logging.getLogger(__name__)

Object = Mapping[str, Any]


@dataclass
class _Port:
    name: str
    inside: int
    asked: int  # 0: any
    listener: socket.socket | None = None
    message: str = ""

    @property
    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = {"name": self.name, "containerPort": self.inside}
        port = self.listener.getsockname()[1] if self.listener else self.asked
        return (
            told | ({"hostPort": port} if port else {}) | ({"message": self.message} if self.message else {})
        )


@dataclass
class _Agent:
    uid: str
    box_id: str = ""  # of the box that runs now
    ports: dict[str, _Port] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    retry: asyncio.TimerHandle | None = None


class Ports:
    def __init__(self, store: Store, hands: visiting.Hands, opened: Opened) -> None:
        self._hands, self._opened = hands, opened
        self._agents: dict[str, _Agent] = {}
        self._feed = feeding.Feed(store, asyncio.sleep, (kinds.AGENT,), self._hear)

    async def run(self) -> None:
        """Until cancelled; then nothing listens any more."""
        try:
            since = await self._feed.prime()
            await self._feed.run(kinds.AGENT, since[kinds.AGENT.plural])
        finally:
            agents = list(self._agents.values())
            for agent in agents:
                self._close(agent)
            await asyncio.gather(*(task for agent in agents for task in agent.tasks), return_exceptions=True)

    def _hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        uid = str(obj["metadata"]["uid"])
        status = {} if gone else obj.get("status") or {}
        wanted = [] if gone else obj["spec"].get("ports") or []
        over = gone or objects.is_deleting(dict(obj)) or status.get("phase") in kinds.FINAL_PHASES
        agent = self._agents.get(uid)
        if agent is None and not wanted:
            return
        agent = agent or self._agents.setdefault(uid, _Agent(uid))
        agent.box_id = str(status.get("boxID") or "") if status.get("phase") == "Running" else ""
        before = {one.get("name"): one.get("hostPort") for one in status.get("ports") or ()}
        self._want(agent, [] if over else wanted, before)
        if gone:
            self._agents.pop(uid, None)
            if agent.retry is not None:
                agent.retry.cancel()  # or it would tell of an agent that was forgotten
            self._opened.forget(uid)

    def _want(self, agent: _Agent, wanted: Sequence[Object], before: Mapping[Any, Any]) -> None:
        """Listen for exactly these. A port that was chosen before is chosen again, when it can be had."""
        names = {str(one["name"]) for one in wanted}
        for port in [port for name, port in agent.ports.items() if name not in names]:
            self._shut(agent.ports.pop(port.name))
        for one in wanted:
            name, inside, asked = str(one["name"]), int(one["containerPort"]), int(one.get("hostPort") or 0)
            had = agent.ports.get(name)
            if had is None or had.asked != asked:
                if had is not None:
                    self._shut(had)
                had = agent.ports[name] = _Port(name, inside, asked)
            had.inside = inside
            if had.listener is None:
                self._listen(agent, had, asked or int(before.get(name) or 0))
        self._tell(agent)

    def _tell(self, agent: _Agent) -> None:
        self._opened.tell(agent.uid, [port.told for port in agent.ports.values()])
        waits = any(port.listener is None for port in agent.ports.values())
        if waits and agent.retry is None:
            agent.retry = asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._again, agent)

    def _again(self, agent: _Agent) -> None:
        agent.retry = None
        for port in agent.ports.values():
            if port.listener is None:
                self._listen(agent, port, port.asked)
        self._tell(agent)

    def _listen(self, agent: _Agent, port: _Port, number: int) -> None:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                made.bind((HOST, number))
            except OSError:
                if port.asked:
                    raise
                made.bind((HOST, 0))  # somebody has the one that was chosen before
            made.listen(_BACKLOG)
        except OSError as error:
            made.close()
            port.message = f"{HOST}:{number} cannot be listened on: {error.strerror}"
            return
        port.listener, port.message = made, ""
        self._accept_from(agent, port)

    def _accept_from(self, agent: _Agent, port: _Port) -> None:
        if port.listener is not None:
            asyncio.get_running_loop().add_reader(port.listener.fileno(), self._accept, agent, port)

    def _accept(self, agent: _Agent, port: _Port) -> None:
        assert port.listener is not None
        loop = asyncio.get_running_loop()
        try:
            caller, _ = port.listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                loop.remove_reader(port.listener.fileno())
                loop.call_later(_CROWDED_SECONDS, self._accept_from, agent, port)
            return
        running = sum(len(one.tasks) for one in self._agents.values())
        if not agent.box_id or len(agent.tasks) >= _MOST_OF_ONE or running >= _MOST:
            caller.close()
            return
        caller.setblocking(False)
        task = loop.create_task(self._serve(agent.box_id, port.inside, caller), name=f"port {port.name}")
        agent.tasks.add(task)
        task.add_done_callback(agent.tasks.discard)

    async def _serve(self, box_id: str, inside: int, caller: socket.socket) -> None:
        with caller:
            try:
                made = await self._hands.connect(box_id, inside)
            except errors.AgentkError as error:
                _log.debug("port %d of %s: %s", inside, box_id, error)
                return
            with made:
                made.setblocking(False)
                await _join(caller, made)

    def _shut(self, port: _Port) -> None:
        if port.listener is not None:
            asyncio.get_running_loop().remove_reader(port.listener.fileno())
            port.listener.close()
            port.listener = None

    def _close(self, agent: _Agent) -> None:
        for port in agent.ports.values():
            self._shut(port)
        agent.ports.clear()
        if agent.retry is not None:
            agent.retry.cancel()
        for task in agent.tasks:
            task.cancel()


async def _join(one: socket.socket, other: socket.socket) -> None:
    """Both ways until both have ended, or one breaks."""
    pumps = {asyncio.ensure_future(_pump(one, other)), asyncio.ensure_future(_pump(other, one))}
    try:
        done, rest = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        if rest and all(pump.result() for pump in done):
            await asyncio.wait(rest)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(source: socket.socket, sink: socket.socket) -> bool:
    """True when the source has ended in order, and the sink was told."""
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(source, _CHUNK_BYTES):
            await loop.sock_sendall(sink, data)
    except OSError:
        return False
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
    return True
