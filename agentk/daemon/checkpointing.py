"""Checkpoints, taken and brought back: here the memory, the workspaces, the objects and the journal meet.

Each is a directory of the daemon's, made as UID.half and kept by one rename; its pages are in memory.db. What is in a
workspace is read and written by the launcher's child with the agent's own rights: here it is a stream, kept as it comes
and never looked into. Everything is repeatable, so who dies in the middle does it again.
"""

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from agentk.api import errors, kinds
from agentk.broker import crash
from agentk.broker.memories import Standing
from agentk.control.acting import RESTORED_FROM
from agentk.daemon import descriptors
from agentk.daemon.memoryhouse import Memoryhouse
from agentk.memory import checkpoints, keeping, pages
from agentk.memory.driver import Conn
from agentk.store import store as stores

_TAR, _TOLD = "workspace.tar", "told.json"
_HALF = ".half"
_LEFT_OUT = 20

Object = Mapping[str, Any]


class Hands(Protocol):
    """What of a runtime carries workspaces, as `runtime.hands.Hands`."""

    async def take_workspace(self, namespace: str, uid: str, out: int) -> Mapping[str, Any]: ...
    async def put_workspace(
        self, namespace: str, uid: str, source: int, *, host_uid: int, size_bytes: int | None
    ) -> Mapping[str, Any]: ...


class Checkpointing:
    def __init__(
        self,
        folder: Path,
        store: stores.Store,
        memory: Memoryhouse,
        hands: Hands,
        head: Callable[[], Awaitable[Mapping[str, Any] | None]],
    ) -> None:
        """`head` of the journal."""
        self._folder, self._store, self._memory, self._hands, self._head = folder, store, memory, hands, head
        self._done = folder / "restored"
        self._done.mkdir(mode=0o700, parents=True, exist_ok=True)

    # taking

    async def take(self, checkpoint: Object) -> dict[str, Any]:
        """What its status says. Raises NotFound, TooLarge, Unavailable."""
        namespace, uid = str(checkpoint["metadata"]["namespace"]), str(checkpoint["metadata"]["uid"])
        final, half = self._folder / uid, self._folder / f"{uid}{_HALF}"
        if (final / _TOLD).exists():
            return self._told(uid)
        name = str(checkpoint["spec"]["agentRef"]["name"])
        agent = await self._store.get(kinds.AGENT, namespace, name)
        await asyncio.to_thread(_anew, half)
        try:
            told = await self._taken(agent, uid, half)
            await asyncio.to_thread(_write, half / _TOLD, {"agent": _plain(agent), "status": told})
            crash.crashpoint("checkpoint.written")
            await asyncio.to_thread(_keep, half, final)
        except OSError as error:
            await self._undo(uid, half)
            raise errors.Unavailable(f"the checkpoint cannot be written: {error.strerror}") from None
        except errors.AgentkError:
            await self._undo(uid, half)
            raise
        crash.crashpoint("checkpoint.kept")
        return told

    async def _undo(self, uid: str, half: Path) -> None:
        await asyncio.to_thread(shutil.rmtree, half, True)
        await self._memory.db.write(lambda conn: checkpoints.drop(conn, uid))

    async def _taken(self, agent: Object, uid: str, half: Path) -> dict[str, Any]:
        """Pages are taken once the workspace begins to come, and so with a box that stands still."""
        metadata, status = agent["metadata"], agent.get("status") or {}
        ours, out = os.pipe()
        reader = descriptors.Reader(ours)
        packing = asyncio.get_running_loop().create_task(
            self._packed(str(metadata["namespace"]), str(metadata["uid"]), out, reader), name="checkpoint"
        )
        try:
            first = await reader.read()
            made = await self._pages(agent, uid)
            head = await self._head() or {}
            crash.crashpoint("checkpoint.memory")
            size = await self._written(half / _TAR, first, reader)
            carried = await packing
        finally:
            packing.cancel()
            await asyncio.gather(packing, return_exceptions=True)
            reader.close()
        stopped = "Running" if status.get("phase") == "Running" and carried is not None else "Stopped"
        told: dict[str, Any] = {
            "agentUID": str(metadata["uid"]),
            "takenAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "consistency": "Frozen" if carried and carried.get("stood_still") else stopped,
            "pages": made.pages,
            "files": int((carried or {}).get("files", 0)),
            "bytes": size + made.bytes,
            "leftOut": list((carried or {}).get("refused", ()))[:_LEFT_OUT],
        }
        return told | (
            {"journal": {"record": head["record"], "hash": head["hash"]}} if "record" in head else {}
        )

    async def _packed(
        self, namespace: str, uid: str, out: int, reader: descriptors.Reader
    ) -> Mapping[str, Any] | None:
        """None where there is no workspace: it never started."""
        try:
            return await self._hands.take_workspace(namespace, uid, out)
        except errors.NotFound:
            return None
        finally:
            os.close(out)

    async def _pages(self, agent: Object, uid: str) -> checkpoints.Taken:
        standing = self._standing(agent)
        if standing is None:
            return checkpoints.Taken(0, 0)

        def work(conn: Conn) -> checkpoints.Taken:
            room = keeping.room(conn, standing.memory, standing.owner, standing.account)
            return checkpoints.take(conn, room, uid, time.time(), standing.limits)

        try:
            return await self._memory.db.write(work)
        except keeping.Full as error:
            raise errors.TooLarge(
                f"the memory is full: {error}", hint="delete checkpoints, or raise spec.limits"
            ) from None

    async def _written(self, path: Path, first: bytes, reader: descriptors.Reader) -> int:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            data = first
            while data:
                await asyncio.to_thread(file.write, data)
                data = await reader.read()
            size = file.tell()
            file.flush()
            await asyncio.to_thread(os.fsync, fd)
        return size

    def _standing(self, agent: Object) -> Standing | None:
        try:
            return self._memory.known.standing(agent)
        except errors.NotFound:
            return None

    # letting go

    async def drop(self, uid: str) -> None:
        """Everything of one. Repeatable."""
        await self._memory.db.write(lambda conn: checkpoints.drop(conn, uid))
        await self._memory.db.truncate()
        crash.crashpoint("checkpoint.dropped")
        for path in (self._folder / uid, self._folder / f"{uid}{_HALF}"):
            await asyncio.to_thread(shutil.rmtree, path, True)

    async def sweep(self) -> None:
        """What was deleted while nobody listened goes."""
        kept = {path.name.removesuffix(_HALF) for path in self._folder.iterdir() if path != self._done}
        kept |= {*await self._memory.db.read(checkpoints.all_of)}
        done = list(self._done.iterdir())
        # Whoever is listed now may be newer than what was looked at; never the other way round.
        there = {str(obj["metadata"]["uid"]) for obj in (await self._store.list(kinds.CHECKPOINT)).items}
        agents = {str(obj["metadata"]["uid"]) for obj in (await self._store.list(kinds.AGENT)).items}
        for uid in kept - there:
            await self.drop(uid)
        for path in done:
            if path.name not in agents:
                path.unlink(missing_ok=True)

    def sources(self) -> set[str]:
        """Digests of what agents were made of that may be restored."""
        found = set()
        for path in self._folder.glob(f"*/{_TOLD}"):
            agent = json.loads(path.read_text())["agent"]
            found.add(str((agent["spec"].get("source") or {}).get("digest", "")))
        return found

    def forget(self, agent_uid: str) -> None:
        """An agent is gone: of what it was restored from nothing is noted. Repeatable."""
        (self._done / agent_uid).unlink(missing_ok=True)

    # bringing back

    async def begin(self, agent: Object, host_uid: int, size_bytes: int | None) -> None:
        """Before a box of an agent starts: what it was told to be restored from, once. Raises AgentkError: then it
        does not start."""
        asked = str((agent["metadata"].get("annotations") or {}).get(RESTORED_FROM) or "")
        if not asked or self._is_done(agent, asked):
            return
        namespace, uid = str(agent["metadata"]["namespace"]), str(agent["metadata"]["uid"])
        name = asked.partition("@")[0]
        checkpoint = await self._store.get(kinds.CHECKPOINT, namespace, name)
        chosen = str(checkpoint["metadata"]["uid"])
        if not (self._folder / chosen / _TOLD).exists():
            raise errors.Conflict(f'checkpoint "{name}" is not Ready', kind="checkpoints", name=name)
        if (self._folder / chosen / _TAR).stat().st_size:
            await self._put(namespace, uid, self._folder / chosen / _TAR, host_uid, size_bytes)
        crash.crashpoint("restore.workspace")
        await self._bring(agent, name, chosen)
        crash.crashpoint("restore.memory")
        await asyncio.to_thread(_write, self._done / uid, {"from": asked})
        crash.crashpoint("restore.done")

    def _is_done(self, agent: Object, asked: str) -> bool:
        try:
            return bool(json.loads((self._done / str(agent["metadata"]["uid"])).read_text())["from"] == asked)
        except (OSError, ValueError, KeyError):
            return False

    async def _put(self, namespace: str, uid: str, path: Path, host_uid: int, size_bytes: int | None) -> None:
        source, ours = os.pipe()
        writer = descriptors.Writer(ours)
        loop = asyncio.get_running_loop()
        putting = loop.create_task(
            self._hands.put_workspace(namespace, uid, source, host_uid=host_uid, size_bytes=size_bytes),
            name="restore",
        )
        feeding = loop.create_task(_fed(path, writer), name="feed restore")
        try:
            await asyncio.wait({putting, feeding}, return_when=asyncio.FIRST_COMPLETED)
            told = await putting
        finally:
            for task in (putting, feeding):
                task.cancel()
            await asyncio.gather(putting, feeding, return_exceptions=True)
            writer.close()
            os.close(source)
        if told.get("refused"):
            raise errors.RuntimeRefused(f"its workspace does not come back whole: {told['refused'][0]}")

    async def _bring(self, agent: Object, name: str, uid: str) -> None:
        standing = self._standing(agent)
        wanted = int(self._told(uid).get("pages", 0))
        if standing is None:
            if wanted:
                raise errors.Conflict(
                    f'checkpoint "{name}" has pages, and the agent has no memory', hint="spec.memory: {}"
                )
            return

        def work(conn: Conn) -> None:
            if checkpoints.taken(conn, uid) is None:
                if wanted:
                    raise pages.Unusable("its pages went with the memory that they were of")
                return
            room = keeping.room(conn, standing.memory, standing.owner, standing.account)
            checkpoints.bring(conn, uid, room, standing.limits)

        try:
            await self._memory.db.write(work)
        except pages.Unusable as error:
            raise errors.Conflict(f'checkpoint "{name}": {error}') from None
        except keeping.Full as error:
            raise errors.TooLarge(f"the memory is full: {error}", hint="raise spec.limits") from None
        await self._memory.db.truncate()
        self._memory.wake(standing.memory)

    def _told(self, uid: str) -> dict[str, Any]:
        return dict(json.loads((self._folder / uid / _TOLD).read_text())["status"])

    def agent_of(self, uid: str) -> dict[str, Any]:
        """The object as it was: its spec, labels and annotations. Raises NotFound."""
        try:
            return dict(json.loads((self._folder / uid / _TOLD).read_text())["agent"])
        except OSError:
            raise errors.NotFound("the checkpoint is not there") from None


def _plain(agent: Object) -> dict[str, Any]:
    """What a person would apply."""
    metadata = agent["metadata"]
    notes = {
        key: text for key, text in (metadata.get("annotations") or {}).items() if "agentk.dev/" not in key
    }
    told = {"name": metadata["name"], "labels": metadata.get("labels") or {}, "annotations": notes}
    return {"apiVersion": agent["apiVersion"], "kind": agent["kind"], "metadata": told, "spec": agent["spec"]}


async def _fed(path: Path, writer: descriptors.Writer) -> None:
    with path.open("rb") as file, contextlib.suppress(BrokenPipeError):
        while data := await asyncio.to_thread(file.read, 256 * 1024):
            await writer.write(data)
    writer.close()


def _anew(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)


def _write(path: Path, told: object) -> None:
    """Whole or not at all."""
    scratch = path.with_name(f"{path.name}.new")
    with scratch.open("w") as file:
        json.dump(told, file)
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(path)
    _sync(path.parent)


def _keep(half: Path, final: Path) -> None:
    _sync(half)
    half.rename(final)
    _sync(final.parent)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
