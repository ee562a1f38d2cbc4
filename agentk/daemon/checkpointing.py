"""Checkpoints, taken and brought back: here the memory, the workspaces, the objects and the journal meet.

Each is a directory of the daemon's, made as UID.half and kept by one rename; its pages are in memory.db. What is in a
workspace is read and written by the launcher's child with the agent's own rights: here it is a stream, kept as it comes
and never looked into. Everything is repeatable, so who dies in the middle does it again.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from agentk.api import errors, kinds
from agentk.broker import crash
from agentk.broker.memories import Standing
from agentk.control import saving
from agentk.control.acting import RESTORED_FROM, Beginning
from agentk.control.clock import parse_stamp
from agentk.daemon import checkpoint_files as files
from agentk.daemon import checkpoint_room, descriptors
from agentk.daemon.checkpoint_room import HALF, Place
from agentk.daemon.memoryhouse import Memoryhouse
from agentk.memory import checkpoints, keeping, pages
from agentk.memory.driver import Conn
from agentk.store import journal_words as entries
from agentk.store import store as stores
from agentk.store.journal import Journal

_TAR, _TOLD = "workspace.tar", "told.json"
_LEFT_OUT = 20
_PIPE_BYTES = 4096  # the smallest there is, which is also the most of one read

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
        journal: Journal,
        most_bytes: int = checkpoint_room.DEFAULT_BYTES,
    ) -> None:
        """`most_bytes`: of one namespace, where its Quotas say nothing."""
        self.room = checkpoint_room.Room(folder, store, most_bytes, _TAR)
        self._folder, self._store, self._memory, self._hands = folder, store, memory, hands
        self._journal = journal
        # By uid of the agent: one thing is done with it at a time.
        self._busy: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._done = folder / "restored"
        self._done.mkdir(mode=0o700, parents=True, exist_ok=True)

    # taking

    async def take(self, checkpoint: Object) -> dict[str, Any]:
        """What its status says. Raises NotFound, TooLarge, Unavailable."""
        namespace, uid = str(checkpoint["metadata"]["namespace"]), str(checkpoint["metadata"]["uid"])
        final, half = self._folder / uid, self._folder / f"{uid}{HALF}"
        if (final / _TOLD).exists():
            return self._told(uid)
        name = str(checkpoint["spec"]["agentRef"]["name"])
        agent = await self._store.get(kinds.AGENT, namespace, name)
        async with self._alone(agent):
            return await self._take(checkpoint, agent, half, final)

    async def _take(self, checkpoint: Object, agent: Object, half: Path, final: Path) -> dict[str, Any]:
        uid = str(checkpoint["metadata"]["uid"])
        place = await self.room.begin(checkpoint)
        await asyncio.to_thread(files.anew, half)
        try:
            told = await self._taken(agent, uid, half, place)
            await asyncio.to_thread(files.write, half / _TOLD, {"agent": _plain(agent), "status": told})
            crash.crashpoint("checkpoint.written")
            await asyncio.to_thread(files.keep, half, final)
        except OSError as error:
            await self._undo(uid, half)
            raise errors.Unavailable(f"the checkpoint cannot be written: {error.strerror}") from None
        except errors.AgentkError:
            await self._undo(uid, half)
            raise
        crash.crashpoint("checkpoint.kept")
        amounts = {key: told[key] for key in ("pages", "files", "bytes")}
        await self._note(agent, "checkpoint.take", checkpoint, _maker(checkpoint), amounts)
        return told

    @contextlib.asynccontextmanager
    async def _alone(self, agent: Object) -> AsyncIterator[None]:
        """Two at once would be two halves; the second waits for its turn."""
        lock = self._busy.setdefault(str(agent["metadata"]["uid"]), asyncio.Lock())
        async with lock:
            yield

    async def _note(
        self, agent: Object, method: str, checkpoint: Object, by: str, told: Mapping[str, Any]
    ) -> None:
        """On record, beside what people did with its memory."""
        metadata = agent["metadata"]
        name, uid = str(checkpoint["metadata"]["name"]), str(metadata["uid"])
        asked = json.dumps({"name": name, "by": by}).encode()
        place = str(metadata["namespace"]), str(metadata["name"]), uid, 1, f"{uid}-people"
        intent = entries.Intent(*place, method, asked, meta={"dialect": "control"})
        await self._journal.record(intent, entries.Outcome("ok", json.dumps(told).encode()))

    async def _undo(self, uid: str, half: Path) -> None:
        self.room.forget(uid)
        await asyncio.to_thread(shutil.rmtree, half, True)
        await self._memory.db.write(lambda conn: checkpoints.drop(conn, uid))

    async def _taken(self, agent: Object, uid: str, half: Path, place: Place) -> dict[str, Any]:
        """Pages are taken once the workspace begins to come, and before the rest of it can: with a box that stands
        still, since even the smallest stream is longer than what is read first and what the pipe holds."""
        metadata, status = agent["metadata"], agent.get("status") or {}
        ours, out = os.pipe()
        fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        reader = descriptors.Reader(ours)
        packing = asyncio.get_running_loop().create_task(
            self._packed(str(metadata["namespace"]), str(metadata["uid"]), out, reader), name="checkpoint"
        )
        try:
            first = await reader.read()
            made = await self._pages(agent, uid)
            head = await self._journal.head() or {}
            crash.crashpoint("checkpoint.memory")
            files.widen(ours)
            size = await self._written(half / _TAR, first, reader, place)
            carried = await packing
        finally:
            packing.cancel()
            await asyncio.gather(packing, return_exceptions=True)
            reader.close()
        stopped = "Running" if status.get("phase") == "Running" and carried is not None else "Stopped"
        told: dict[str, Any] = {
            "agentUID": str(metadata["uid"]),
            "takenAt": stores.now_text(),
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

    async def _written(self, path: Path, first: bytes, reader: descriptors.Reader, place: Place) -> int:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            held, data = bytearray(), first
            while data:
                place.take(len(data))
                held += data
                if len(held) >= files.AT_ONCE_BYTES:
                    await asyncio.to_thread(file.write, held)
                    held = bytearray()
                data = await reader.read()
            await asyncio.to_thread(file.write, held)
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
        for path in (self._folder / uid, self._folder / f"{uid}{HALF}"):
            await asyncio.to_thread(shutil.rmtree, path, True)
        self.room.forget(uid)

    async def sweep(self) -> None:
        """What was deleted while nobody listened goes."""
        kept = {path.name.removesuffix(HALF) for path in self._folder.iterdir() if path != self._done}
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

    async def begin(self, agent: Object, beginning: Beginning) -> str:
        """Before a box of an agent starts: the Checkpoint that it was told to be restored from, once, or else the
        newest one when it is to begin with that. Returns its name. Raises AgentkError: then it does not start."""
        async with self._alone(agent):
            uid = str(agent["metadata"]["uid"])
            asked = str((agent["metadata"].get("annotations") or {}).get(RESTORED_FROM) or "")
            done = self._done_for(uid)
            if asked and done.get("from") != asked:
                named = str(agent["metadata"]["namespace"]), asked.partition("@")[0]
                checkpoint: Object | None = await self._store.get(kinds.CHECKPOINT, *named)
            elif done.get("attempt") == beginning.attempt:
                return str(done["name"])  # somebody died, or was refused, before its box was there
            else:
                checkpoint = await self._newest(agent) if beginning.newest else None
            if checkpoint is None:
                return ""
            by = "OnFailure" if done.get("from", "") == asked else "restore"
            await self._begin(agent, checkpoint, beginning)
            name = str(checkpoint["metadata"]["name"])
            await self._note(agent, "checkpoint.restore", checkpoint, by, {"attempt": beginning.attempt})
            told = {"from": asked, "attempt": beginning.attempt, "name": name}
            await asyncio.to_thread(files.write, self._done / uid, told)
            crash.crashpoint("restore.done")
            return name

    async def _begin(self, agent: Object, checkpoint: Object, beginning: Beginning) -> None:
        namespace, uid = str(agent["metadata"]["namespace"]), str(agent["metadata"]["uid"])
        name, chosen = str(checkpoint["metadata"]["name"]), str(checkpoint["metadata"]["uid"])
        if not (self._folder / chosen / _TOLD).exists():
            raise errors.Conflict(f'checkpoint "{name}" is not Ready', kind="checkpoints", name=name)
        path = self._folder / chosen / _TAR
        if path.stat().st_size:
            await self._put(namespace, uid, path, beginning.host_uid, beginning.size_bytes)
        crash.crashpoint("restore.workspace")
        await self._bring(agent, name, chosen)
        crash.crashpoint("restore.memory")

    async def _newest(self, agent: Object) -> Object | None:
        """Of those taken before its last process ended. One of what it left when it had failed is none of them."""
        last = (agent.get("status") or {}).get("lastTermination") or {}
        began, ended = _at(last.get("startedAt")), _at(last.get("finishedAt"))
        there = (await self._store.list(kinds.CHECKPOINT, str(agent["metadata"]["namespace"]))).items
        fitting = []
        for one in there:
            status = one.get("status") or {}
            at = _at(status.get("takenAt"))
            own = status.get("phase") == "Ready" and status.get("agentUID") == agent["metadata"]["uid"]
            late = at > ended or (status.get("consistency") == "Stopped" and at >= began)
            if own and not late and (self._folder / str(one["metadata"]["uid"]) / _TOLD).exists():
                fitting.append((at, str(one["metadata"]["name"]), one))
        return max(fitting)[2] if fitting else None

    def _done_for(self, uid: str) -> dict[str, Any]:
        """What an agent was brought back from last; {} when that is not known."""
        try:
            return dict(json.loads((self._done / uid).read_text()))
        except (OSError, ValueError):
            return {}

    async def _put(self, namespace: str, uid: str, path: Path, host_uid: int, size_bytes: int | None) -> None:
        source, ours = os.pipe()
        files.widen(ours)
        writer = descriptors.Writer(ours)
        loop = asyncio.get_running_loop()
        putting = loop.create_task(
            self._hands.put_workspace(namespace, uid, source, host_uid=host_uid, size_bytes=size_bytes),
            name="restore",
        )
        feeding = loop.create_task(files.fed(path, writer), name="feed restore")
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


def _maker(checkpoint: Object) -> str:
    """Who made the object, as the API knows it."""
    owners = checkpoint["metadata"].get("managedFields") or ()
    first = next((str(one.get("manager", "")) for one in owners if not one.get("subresource")), "")
    return "automatic" if saving.is_automatic(checkpoint) else first or "somebody"


def _at(stamp: Any) -> float:
    """Seconds since the epoch; 0 of none."""
    try:
        return parse_stamp(str(stamp)).timestamp() if stamp else 0.0
    except ValueError:
        return 0.0


def _plain(agent: Object) -> dict[str, Any]:
    """What a person would apply."""
    metadata = agent["metadata"]
    notes = {
        key: text for key, text in (metadata.get("annotations") or {}).items() if "agentk.dev/" not in key
    }
    told = {"name": metadata["name"], "labels": metadata.get("labels") or {}, "annotations": notes}
    return {"apiVersion": agent["apiVersion"], "kind": agent["kind"], "metadata": told, "spec": agent["spec"]}
