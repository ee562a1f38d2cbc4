"""The memory of the house: objects, what changed, events and blobs, behind one class.

Writes go through one thread and are on the disk when they return; reads never wait for them. Everything that
must hold together happens inside one function in the writer's transaction, never across an await.
"""

import asyncio
import functools
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agentk.api import errors, kinds
from agentk.store import (
    archives,
    backups,
    bells,
    blobs,
    changes,
    changing,
    events,
    host_uids,
    listing,
    opening,
    readers,
    rows,
    watching,
    writer,
)

Object = dict[str, Any]
Objects = list[Object]  # `list` is a verb in the class
Digests = list[str]


@dataclass(frozen=True)
class Settings:
    log: changes.Retention = field(default_factory=changes.Retention)
    history: events.Retention = field(default_factory=events.Retention)
    sweep_changes: int = 1000  # after so many changes the log is compacted …
    sweep_seconds: float = 60.0  # … or at the first change after so long


class Store:
    """Opened once a process; its methods are for asyncio, from any loop."""

    def __init__(self, folder: Path, opened: opening.Opened, settings: Settings) -> None:
        self.folder = folder
        self.notices = opened.notices  # what a person should be told about this opening
        self.blobs = blobs.Blobs(folder / "blobs")
        self._lock_fd = opened.lock_fd
        self._conn = opened.conn
        self._settings = settings
        self._bells = bells.Bells()
        self._unswept, self._swept_at = 0, time.monotonic()
        self._readers = readers.Readers(folder / opening.DATABASE)
        self._writer = writer.Writer(opened.conn, self._bells.ring, self._sweep_if_due, "store-write")
        self._closed = False

    @classmethod
    def open(cls, path: Path, settings: Settings | None = None) -> "Store":
        """Open the store in the directory `path`, which must exist and be ours alone.

        Raises Unavailable with the reason: missing, not writable, locked by a pid, newer schema, network file
        system. A damaged database is set aside and replaced from the newest backup; `notices` tells.
        """
        return cls(path, opening.open_database(path), settings or Settings())

    def close(self) -> None:
        """Write what is queued, end every watch, give the lock back. Repeatable."""
        if self._closed:
            return
        self._closed = True
        self._bells.close()
        self._writer.close()
        self._readers.close()
        self._conn.close()
        os.close(self._lock_fd)

    # Notes: small texts of the daemon's own, such as another store's anchor

    def note(self, name: str) -> str | None:
        """A small read, here and now."""
        row = self._readers.now(
            lambda conn: conn.execute("SELECT value FROM meta WHERE key = ?", (f"note/{name}",)).fetchone()
        )
        return None if row is None else str(row[0])

    def keep_note(self, name: str, text: str) -> None:
        """Blocks until it is on the disk: never call it on the loop."""
        told = (f"note/{name}", text)
        self._writer.run_here(
            lambda tx: (
                tx.conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", told) and None
            )
        )

    # Objects

    async def create(
        self, obj: Object, *, dry_run: bool = False, now: str = "", in_live_namespace: bool = False
    ) -> Object:
        """A new object, with its uid and resourceVersion.

        Raises AlreadyExists; with `in_live_namespace`, NotFound or Forbidden when its namespace is missing or ending.
        """
        kind = kinds.find(str(obj.get("apiVersion")), str(obj.get("kind")))
        made = changing.make(kind, obj, now or now_text(), str(uuid.uuid4()))
        return await self._write(lambda tx: changing.create(tx, made, in_live_namespace), dry_run=dry_run)

    async def get(self, kind: kinds.Kind, namespace: str | None, name: str) -> Object:
        """Raises NotFound."""
        found = await self.find(kind, namespace, name)
        if found is None:
            raise changing.name_of(kind, namespace, name).missing()
        return found

    async def find(
        self, kind: kinds.Kind, namespace: str | None, name: str, *, known: Object | None = None
    ) -> Object | None:
        """As get; None when it does not exist. `known`, when that is still what is stored: a large object is then not
        read anew."""
        named = changing.name_of(kind, namespace, name)
        row = self._readers.now(lambda conn: rows.load(conn, named.key, named.namespace, named.name))
        if row and known and (row.uid, str(row.rv)) == _version(known):
            return known
        return row.object() if row else None

    async def list(
        self,
        kind: kinds.Kind,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        cont: str = "",
        heads: bool = False,
    ) -> listing.Page:
        """Objects in order of namespace and name. Pages of one list agree with each other. With `heads` large ones may
        come without what makes them large: Skills as `skillspecs.head`.

        Raises Expired when the token is too old, BadRequest for a bad token or selector.
        """
        matches = listing.matcher(labels, fields)
        return await self._readers.apart(
            lambda conn: listing.page(conn, kind, namespace or "", matches, limit, cont, heads)
        )

    async def modify(
        self,
        kind: kinds.Kind,
        namespace: str | None,
        name: str,
        change: changing.Change,
        *,
        dry_run: bool = False,
        expect_resource_version: str | None = None,
        now: str = "",
        in_live_namespace: bool = False,
    ) -> Object:
        """Replace an object with `change(object)`, atomically; None comes in when there is none, and makes it.

        `change` must be pure and quick: it runs in the writer's thread. Returning None deletes; returning the same
        writes nothing. An object that is being deleted goes when its last finalizer does. Raises Conflict when the
        object is not at `expect_resource_version`, NotFound, and whatever `change` raises.
        """
        named = changing.name_of(kind, namespace, name)
        when, uid = now or now_text(), str(uuid.uuid4())
        return await self._write(
            lambda tx: changing.modify(
                tx, named, change, when, uid, expect_resource_version, in_live_namespace
            ),
            dry_run=dry_run,
        )

    async def amend(
        self, kind: kinds.Kind, obj: Mapping[str, Any], change: Callable[[Object], Object]
    ) -> Object | None:
        """`modify` of this very object; None when it is gone, or another one has its name."""
        metadata = obj["metadata"]

        def changed(found: Object | None) -> Object:
            if found is None or found["metadata"]["uid"] != metadata["uid"]:
                raise errors.NotFound("it is gone")
            return change(found)

        try:
            return await self.modify(kind, metadata.get("namespace"), metadata["name"], changed)
        except errors.NotFound:
            return None

    async def set_status(
        self, kind: kinds.Kind, namespace: str | None, name: str, uid: str, status: Object
    ) -> Object | None:
        """Write a status; an equal one writes nothing. None when the object is gone or another by that name."""
        named = changing.name_of(kind, namespace, name)
        return await self._writer.run(lambda tx: changing.set_status(tx, named, uid, status))

    async def delete(
        self,
        kind: kinds.Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        now: str = "",
        grace_seconds: int | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Delete, or mark for deletion while finalizers wait (the answer then has them). Repeatable while it waits.

        Raises NotFound, and Conflict when `uid` or `resource_version` is not the object's.
        """
        named = changing.name_of(kind, namespace, name)
        return await self._write(
            lambda tx: changing.delete(tx, named, uid, resource_version, now or now_text(), grace_seconds),
            dry_run=dry_run,
        )

    async def dependents(self, uid: str) -> Objects:
        """Objects whose ownerReferences name `uid`."""
        return self._readers.now(functools.partial(rows.owned, owner=uid))

    def watch(
        self,
        kind: kinds.Kind | None,
        namespace: str | None = None,
        since: str = "",
        *,
        labels: str = "",
        fields: str = "",
        bookmark_seconds: float | None = None,
        heads: bool = False,
    ) -> AsyncIterator[watching.Change]:
        """Every change after the resourceVersion `since`, in order; "" or "0": first ADDED for all there is.

        A change that takes an object out of the selection is DELETED, one that brings it in ADDED. With `heads` as in
        a list; what is DELETED has come down to that anyhow. A BOOKMARK
        comes after `bookmark_seconds` of silence. Raises Expired when `since` is too old or from before a restore,
        BadRequest when it is no resourceVersion. Ends when the store closes.
        """
        matches = listing.matcher(labels, fields)
        wanted = watching.Wanted(kind, namespace or "", matches, bookmark_seconds, heads)
        return watching.watch(self._readers, self._bells, wanted, since)

    async def record_event(
        self, involved: Mapping[str, Any], type: str, reason: str, message: str, now: str, component: str
    ) -> Object:
        """Say what happened to `involved` (an object or a reference). The same within ten minutes is counted."""
        what = events.Happening(involved, type, reason, message, component)
        return await self._writer.run(lambda tx: events.record(tx, what, now, self._settings.history))

    def resource_version(self) -> str:
        """Of the store as a whole, now."""
        return str(self._readers.now(rows.newest))

    def epoch(self) -> str:
        """Another one after each restore."""
        return self._readers.now(rows.epoch)

    def counts(self) -> dict[str, int]:
        """Number of objects by kind ("agents.agentk.dev", "secrets")."""
        return self._readers.now(rows.counts)

    # Sources and host uids

    async def put_blob(self, data: bytes, expected: str = "") -> str:
        """Store bytes under their digest ("sha256:…"), synced. Repeatable. See Blobs.put."""
        return await asyncio.to_thread(self.blobs.put, data, expected)

    async def get_blob(self, digest: str) -> bytes:
        """Raises NotFound; Unavailable when the disk has damaged it."""
        return await asyncio.to_thread(self.blobs.get, digest)

    async def collect_blobs(self, in_use: set[str], older_than_seconds: float) -> Digests:
        """Remove blobs not in `in_use` that were last sent longer ago; returns their digests."""
        return await asyncio.to_thread(self.blobs.collect, in_use, older_than_seconds)

    async def host_uid(self, namespace: str, agent_uid: str, block: range) -> int:
        """The host uid of an agent, its own until released. Raises Unavailable when the block is used up."""
        return await self._writer.run(lambda tx: host_uids.allocate(tx, namespace, agent_uid, block))

    async def hand_over_host_uid(self, giver: str, namespace: str, taker: str) -> int | None:
        """Of a box that waits, to the agent that gets it; None when the agent has one of its own."""
        return await self._writer.run(lambda tx: host_uids.hand_over(tx, giver, namespace, taker))

    async def release_host_uid(self, agent_uid: str) -> None:
        """Only once no file of that uid is left. Repeatable."""
        await self._writer.run(lambda tx: host_uids.release(tx, agent_uid))

    async def host_uids(self) -> dict[str, int]:
        """Host uid by agent uid."""
        return self._readers.now(host_uids.held)

    # Keeping

    async def backup(self, archive: Path, parts: Mapping[str, archives.Save] | None = None) -> None:
        """Write objects, blobs and `parts` to one tar file (0600), while all goes on. Back: archives.restore."""
        await asyncio.to_thread(archives.write, self.folder, self.blobs, archive, parts or {})

    async def backup_if_due(self, every_seconds: float = 86400.0, keep: int = 7) -> Path | None:
        """Copy the database to backups/ when the newest copy is older; the newest `keep` stay."""
        return await asyncio.to_thread(backups.save_if_due, self.folder, time.time(), every_seconds, keep)

    async def sweep(self, now_seconds: float | None = None) -> None:
        """Let go of old changes and Events. Also happens by itself after enough writes."""
        at = time.time() if now_seconds is None else now_seconds
        await self._writer.run(lambda tx: self._sweep(tx, at))

    def _sweep(self, tx: writer.Tx, now: float) -> None:
        events.expire(tx, self._settings.history, now)
        changes.compact(tx, self._settings.log, now)

    def _sweep_if_due(self, changed: int) -> Callable[[writer.Tx], None] | None:
        """Called in the writer's thread after each commit: the next thing to do there, if any."""
        self._unswept += changed
        at = time.monotonic()
        if self._unswept < self._settings.sweep_changes and (
            not self._unswept or at - self._swept_at < self._settings.sweep_seconds
        ):
            return None
        self._unswept, self._swept_at = 0, at
        return lambda tx: self._sweep(tx, time.time())

    async def _write(self, work: Callable[[writer.Tx], Object], *, dry_run: bool) -> Object:
        return await self._writer.run(functools.partial(_undone, work) if dry_run else work)


def now_text(after_seconds: float = 0.0) -> str:
    """Now, or some time after it, as Kubernetes writes it."""
    return (datetime.now(UTC) + timedelta(seconds=after_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _version(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]


def _undone(work: Callable[[writer.Tx], Object], tx: writer.Tx) -> Object:
    """What `work` would have written; a resourceVersion only if it would have written nothing."""
    before = len(tx.changed)
    made = work(tx)
    if len(tx.changed) > before:
        made["metadata"].pop("resourceVersion", None)
    raise writer.Undo(made)
