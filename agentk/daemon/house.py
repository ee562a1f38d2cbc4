"""The house: every room is built here, once, and handed to the others as plain functions. The daemon itself.

Started by the keeper with a socket that listens already. It never holds root: what needs root is asked of the
launcher. Its exit code tells the keeper what to do next.
"""

import asyncio
import contextlib
import importlib.metadata
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, kinds, parts
from agentk.broker import crash as calls_crash
from agentk.control import (
    checkpoints,
    clock,
    crash,
    environments,
    images,
    loop,
    opened,
    preparing,
    seeing,
    sharing,
)
from agentk.daemon import (
    checkpointing,
    contexthouse,
    desk,
    flooding,
    furnishing,
    gatehouse,
    hosting,
    http,
    indexes,
    keeper,
    ports,
    serving,
    settings,
    sockets,
    visiting,
)
from agentk.daemon.services import Services
from agentk.data import files
from agentk.data.places import Places
from agentk.runtime import box, hands, jails, kernel, uids
from agentk.runtime.launcher import doors
from agentk.store import changes, events, sources
from agentk.store import store as stores

_BACKUP_CHECK_SECONDS = 3600.0
_SOURCES_KEPT_SECONDS = 24 * 3600.0  # a source nobody uses: the next apply of the same files is quick
_FDS_AN_AGENT = 8  # duplicates of its FIFOs and listeners, and room for its logs being read
_FDS_OF_OURS = 1024  # its own, and eight for each visit to a box

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """What the keeper hands over."""

    socket_fd: int
    owner_uid: int  # who may talk to the control socket
    ready_fd: int = -1


def run(places: Places, chosen: settings.Settings, start: Start) -> int:
    """Until told to stop. Returns the exit code for the keeper."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)  # no daemon without its keeper
    _set_up_log(chosen)
    for room in (crash, calls_crash):
        room.arm_once(os.environ.get("AGENTK_CRASH_DIR", ""))
    return asyncio.run(House(places, chosen, start).live())


class House:
    def __init__(self, places: Places, chosen: settings.Settings, start: Start) -> None:
        self._places, self._settings, self._start = places, chosen, start
        self._began = time.time()
        self._exit_code = keeper.EXIT_STOP
        self._sources = places.state / "store" / "sources"
        self._indexes = indexes.Indexes(places.state / "store" / "indexes.json")
        # Under root our own uid is the first of the block that the keeper claimed; else there is one uid for all.
        own = os.getuid()
        self._block = None if own == start.owner_uid else range(own, own + uids.SIZE)

    async def live(self) -> int:
        """Open, serve, close, in the order that loses nothing."""
        listener = sockets.adopt(self._start.socket_fd)
        history = events.Retention(age_seconds=self._settings.event_retention_seconds)
        log = changes.Retention(age_seconds=self._settings.change_retention_seconds)
        self._store = stores.Store.open(self._places.state / "store", stores.Settings(log, history))
        for notice in self._store.notices:
            _log.warning("%s", notice)
        self._jails = jails.Jails(self._places.launcher_socket)
        self._packages = environments.Environments(
            self._jails,
            self._places.state / "store" / "environments",
            clock.BootClock(),
            self._indexes.sources,
            -1 if self._block is None else self._block[-1],
        )
        self._images = images.Images(self._jails, clock.BootClock())
        self._gatehouse: gatehouse.Gatehouse | None = None
        try:
            gate = self._gatehouse = self._open_gate()
            reach = hands.Hands(self._jails)
            folder = self._places.state / "store" / "checkpoints"
            known = self._store, gate.memory, reach, gate.journal, self._settings.checkpoint_bytes
            self._checkpointing = checkpointing.Checkpointing(folder, *known)
            self._visits = visiting.Room(reach, self._jails.descriptors, gate.secrecy.redact)
            self._opened = opened.Opened()
            marker = self._places.state / "store" / "furnished"
            await furnishing.furnish(self._store, files.folder("manifests"), marker, version())
            services = self._services(gate)
            self._ending = services.ending
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, services.ending.set)
            eternal = [
                asyncio.create_task(self._jails.run(), name="launcher"),
                asyncio.create_task(gate.run(), name="gate"),
                asyncio.create_task(self._steward().run(), name="steward"),
                asyncio.create_task(self._packages.run(), name="environments"),
                asyncio.create_task(self._back_up(), name="backups"),
                asyncio.create_task(ports.Ports(self._store, reach, self._opened).run(), name="ports"),
            ]
            for task in eternal:
                task.add_done_callback(self._must_not_end)
            self._ready()
            app = http.app(self._store, services)
            await serving.serve(
                app, listener, services.ending, grace_seconds=self._settings.shutdown_grace_seconds
            )
            await self._visits.close()
            for task in eternal:
                task.cancel()
            await asyncio.gather(*eternal, return_exceptions=True)
        finally:
            await self._images.close()
            if self._gatehouse is not None:
                await self._gatehouse.close()
            self._jails.close()
            self._store.close()
        return self._exit_code

    def _open_gate(self) -> gatehouse.Gatehouse:
        gate = gatehouse.Gatehouse(
            self._store,
            self._jails,
            version(),
            self._settings.ca_pem(),
            self._settings.journal,
            self._settings.sentence_model,
        )
        for notice in (*gate.journal.notices, *gate.memory.db.notices):
            _log.warning("%s", notice)
        return gate

    def _must_not_end(self, task: asyncio.Task[None]) -> None:
        """An eternal task that ends is an error: the keeper starts everything again."""
        if not task.cancelled() and not self._ending.is_set():
            _log.critical("%s ended", task.get_name(), exc_info=task.exception())
            self._exit_code = 1
            self._ending.set()

    def _ready(self) -> None:
        if self._start.ready_fd >= 0:
            with contextlib.suppress(OSError):
                os.write(self._start.ready_fd, b"ready")
                os.close(self._start.ready_fd)
        _notify_systemd()
        _log.info("serving on %s", self._places.socket)

    def _steward(self) -> loop.Steward:
        kept = self._checkpointing
        ceiling = agents_ceiling()
        wanted = self._settings.max_agents or ceiling
        if wanted > ceiling:
            _log.warning("maxAgents %d is above what open files allow here: %d", wanted, ceiling)
        node = sharing.Node(
            boxes=ceiling,
            running=min(wanted, ceiling),
            cpu_millis=self._settings.max_cpu_millis,
            memory_bytes=self._settings.max_memory_bytes,
            slice_seconds=self._settings.time_slice_seconds,
        )
        return loop.Steward(
            self._store,
            {"nsjail": self._jails, "podman": self._jails, "process": self._jails},
            clock.BootClock(),
            loop.Settings(node=node, workers=self._settings.max_starts_at_once),
            stage=self._stage,
            host_uid=self._host_uid,
            release_host_uid=self._released,
            host_uids=seeing.HostUids(self._store.hand_over_host_uid, self._store.host_uids),
            collect=self._collect,
            lives=self._gatehouse.lives if self._gatehouse else None,
            memory=self._gatehouse.memory.source if self._gatehouse else None,
            checkpointed=checkpoints.Source(kept.take, kept.drop, kept.begin, kept.sweep, kept.room.used),
            certificates=self._gatehouse.authorities.bundle if self._gatehouse else None,
            preparations=preparing.Preparing(self._packages, self._images),
            doors=self._door,
            ports=self._opened,
        )

    def _door(self, agent_uid: str) -> str:
        """Of an agent without a jail, where the launcher makes it."""
        rootless = self._block is None
        folder = doors.open_folder(self._places.run, self._places.instance, rootless)
        return str(folder / agent_uid / doors.GATE)

    async def _stage(self, digest: str) -> str:
        archive = await self._store.get_blob(digest)
        return str(await asyncio.to_thread(sources.stage, self._sources, digest, archive))

    async def _host_uid(self, namespace: str, agent_uid: str) -> int:
        if self._block is None:
            return -1
        return await self._store.host_uid(namespace, agent_uid, self._block[1:-2])

    async def _released(self, agent_uid: str) -> None:
        self._checkpointing.forget(agent_uid)
        await self._store.release_host_uid(agent_uid)

    async def _collect(self) -> None:
        """Sources, archives and environments that nobody names go, a day after they were last used."""
        there = {
            kind: (await self._store.list(kind)).items
            for kind in (kinds.AGENT, kinds.POOL, kinds.TOOL, kinds.TASK, kinds.SCHEDULE)
        }
        named = [parts.of(kind, obj) or {} for kind, objs in there.items() for obj in objs]
        used = {part.get("source", {}).get("digest", "") for part in named}
        used |= await asyncio.to_thread(self._checkpointing.sources)
        gone = await self._store.collect_blobs(used, _SOURCES_KEPT_SECONDS)
        if gone:
            await asyncio.to_thread(sources.collect, self._sources, used)
        await self._checkpointing.sweep()
        await self._packages.collect(environments.used_by([*there[kinds.AGENT], *there[kinds.POOL]]))

    async def _back_up(self) -> None:
        while True:
            try:
                made = await self._store.backup_if_due()
                if made:
                    _log.info("backed up to %s", made)
            except (errors.AgentkError, OSError) as error:
                _log.error("the daily backup failed: %s", error)
            await asyncio.sleep(_BACKUP_CHECK_SECONDS)

    # what the control API asks for

    def _services(self, gate: gatehouse.Gatehouse) -> Services:
        return Services(
            log_folder=lambda namespace, uid: self._places.state / "logs" / f"{namespace}_{uid}",
            counters=self._jails.counters,
            findings=self._findings,
            status=self._status,
            shutdown=self._shutdown,
            indexes=self._indexes.keep,
            allowed_uids=frozenset({self._start.owner_uid}),
            version=version(),
            desk=desk.Desk(
                gate.journal,
                gate.budgets,
                gate.guests,
                gate.methods,
                gate.rules,
                gate.accounts.path,
                gate.accounts.add,
                gatehouse.now,
                gate.gate.call,
                gate.approvals.answers,
                windows=contexthouse.Windows(gate, gatehouse.now),
            ),
            visits=self._visits,
            tools=gate.tools,
            memory=gate.memory,
            kept=self._checkpointing.agent_of,
            routes=hosting.routes(gate.hosting, gate.agentos),
        )

    async def _findings(self) -> Sequence[box.Finding]:
        probe = await self._jails.probe()
        return probe.findings

    async def _status(self) -> Mapping[str, Any]:
        return {
            "version": version(),
            "pid": os.getpid(),
            "uid": os.getuid(),
            "state": str(self._places.state),
            "socket": str(self._places.socket),
            "startedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._began)),
            "objects": self._store.counts(),
            "maxAgents": min(self._settings.max_agents or agents_ceiling(), agents_ceiling()),
        }

    async def _shutdown(self, kill_agents: bool) -> None:
        self._exit_code = keeper.EXIT_STOP_AGENTS if kill_agents else keeper.EXIT_STOP
        self._ending.set()


def agents_ceiling() -> int:
    """How many agents may run at once: bounded by open files, which each costs some of."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, (hard - min(_FDS_OF_OURS, hard // 4)) // _FDS_AN_AGENT)


def version() -> str:
    try:
        return importlib.metadata.version("agentk")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _notify_systemd() -> None:
    """READY=1 for a unit of Type=notify (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told)


def _set_up_log(chosen: settings.Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.addFilter(flooding.Flood())
    handler.setFormatter(_JsonLines() if chosen.log_format == "json" else plain)
    logging.basicConfig(level=chosen.log_level.upper(), handlers=[handler], force=True)
