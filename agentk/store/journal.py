"""The journal: what every guest did to the world, written before it was done, and what came of it.

Append-only and hash-chained (`journal_chain`), sealed and anchored elsewhere, verifiable by anyone who may read it
(`journal_verifying` says what that proves). One thread writes, with group commit; a call costs one synced commit that
it shares with its neighbours, and anchoring costs none of its own: a seal is written and anchored once in so many
records or seconds. Until then the chain alone covers the newest records.

Must never: tell a caller that something is written before it is on the disk; do an effect; retry one.
"""

import asyncio
import contextlib
import functools
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from agentk.api import errors
from agentk.store import journal_anchor as anchors
from agentk.store import journal_bodies as bodies
from agentk.store import journal_chain as chain
from agentk.store import journal_opening as opening
from agentk.store import journal_reading as reading
from agentk.store import journal_retention as retention
from agentk.store import journal_verifying as verifying
from agentk.store import journal_writing as writing
from agentk.store import readers, writer
from agentk.store.journal_words import Intent, Known, Outcome, Unsettled

__all__ = ["Intent", "Journal", "Known", "Outcome", "Settings", "Unsettled"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

# From here on redaction and compression are worth a thread: below, the way there and back costs more.
_APART_BYTES = 64 * 1024


def as_it_is(data: bytes) -> bytes:
    return data


@dataclass(frozen=True)
class Settings:
    redact: Callable[[bytes], bytes] = as_it_is  # what every body and meta goes through before it is stored
    kept: retention.Retention = field(default_factory=retention.Retention)
    seal_records: int = 1000  # after so many records they are sealed and anchored …
    seal_seconds: float = 2.0  # … or at the first commit after so long, or by sweep() or close()


class Journal:
    """Opened once a process; its methods are for asyncio, from any loop."""

    def __init__(
        self, folder: Path, anchor: anchors.Anchor, settings: Settings, opened: opening.Opened
    ) -> None:
        self.path = folder / opening.DATABASE
        self.notices = opened.notices  # what a person should be told about this opening
        self._anchor, self._settings = anchor, settings
        self._conn, self._lock_fd, self._ledger = opened.conn, opened.lock_fd, opened.ledger
        self._unsealed, self._sealed_at = 0, time.monotonic()
        self._abandoned: set[asyncio.Task[None]] = set()
        self._just_ended = reading.just_ended(opened.conn)
        self._closed = False
        self._save_anchor(opened.sealed)
        self._readers = readers.Readers(self.path)
        self._writer = writer.Writer(
            opened.conn, self._committed, self._seal_if_due, "journal-write", opened.ledger.finish
        )

    @classmethod
    def open(cls, folder: Path, anchor: anchors.Anchor, settings: Settings | None = None) -> "Journal":
        """Open (first: make) journal.db in `folder`, which must exist and be ours alone.

        Intents that an earlier process left are `unknown` from here on. A damaged file is set aside and a new journal
        begun; `notices` tells. Raises Unavailable with the reason.
        """
        opened = opening.open_journal(folder, anchor.load())
        return cls(folder, anchor, settings or Settings(), opened)

    def close(self) -> None:
        """Write what is queued, seal and anchor it, give the lock back. Repeatable. Intents in flight stay open."""
        if self._closed:
            return
        self._closed = True
        self._writer.close()
        self._readers.close()
        try:
            self._conn.execute("BEGIN IMMEDIATE")
            tx = writer.Tx(self._conn)
            self._ledger.job(self._end)(tx)
            self._ledger.finish(tx)
            self._conn.execute("COMMIT")
            self._save_anchor(self._ledger.committed())
        except (
            sqlite3.Error,
            ValueError,
            LookupError,
            TypeError,
        ):  # what was acknowledged is on the disk all the same
            logger.exception("the journal was closed without a seal")
        finally:
            self._conn.close()
            os.close(self._lock_fd)

    # Calls

    async def intend(self, intent: Intent) -> str:
        """Write down what is about to happen; returns its effect id once that is on the disk.

        Raises Conflict when the idempotency key is taken. A caller cancelled meanwhile need not settle: nothing was
        done yet, and the journal says so itself.
        """
        draft = await self._draft("intent", intent)
        draft = draft._replace(amounts=chain.text(intent.reserved), meta=self._meta(intent.meta))
        cell = writing.Cell()
        try:
            return await self._writer.run(
                self._ledger.job(functools.partial(self._ledger.intend, draft=draft, cell=cell))
            )
        except asyncio.CancelledError:
            task = asyncio.get_running_loop().create_task(self._abandon(cell), name="journal-abandon")
            self._abandoned.add(task)
            task.add_done_callback(self._abandoned.discard)
            raise

    async def settle(self, effect_id: str, outcome: Outcome) -> None:
        """Write down what came of it. Raises Conflict when it was settled before; `unknown` may be settled once more,
        by whoever found out. Cancelling the caller does not stop the write."""
        answer = await self._body(outcome.body, effect_id)
        told = self._settlement(outcome, answer)
        await self._writer.run(
            self._ledger.job(functools.partial(self._ledger.settle, effect=effect_id, told=told))
        )

    async def local(self, intent: Intent, work: Callable[[writer.Tx], Outcome]) -> Outcome:
        """Do `work` on guests' state and record it, both or neither. What `work` raises is raised, and undone."""
        draft = await self._draft("local", intent)

        def do(tx: writer.Tx) -> Outcome:
            outcome = work(tx)
            body = self._prepare(outcome.body, draft.run)
            self._ledger.append(tx, self._ended(draft, intent, outcome, body))
            return outcome

        return await self._writer.run(self._ledger.job(do))

    async def record(self, intent: Intent, outcome: Outcome) -> str:
        """Something without an effect: a denial, a note. Its key stays free. Returns its effect id."""
        draft = await self._draft("note", intent)
        told = self._ended(draft, intent, outcome, await self._body(outcome.body, draft.run))
        return await self._writer.run(self._ledger.job(lambda tx: self._ledger.append(tx, told)[1]))

    def known(self, uid: str, attempt: int, key: str) -> Known | None:
        """The call that used this idempotency key, if any. See Known."""
        slot = chain.slot(self._ledger.key, uid, attempt, key)
        return self._readers.now(lambda conn: reading.known(conn, slot)) if slot is not None else None

    def digest(self, method: str, body: bytes) -> str:
        """Equal to Known.digest when the call is the same. (Not after a secret was declared that it contains.)"""
        return reading.digest(method, self._settings.redact(body))

    def stand_in(self, *parts: bytes) -> str:
        """What stands for these as they are, secrets included: the same again, in this journal alone, and nothing that
        they could be found out by."""
        return chain.stand_in(self._ledger.key, parts)

    def unknown(self) -> list[Unsettled]:
        """Effects whose outcome nobody knows: in flight, or left behind. Oldest first."""
        return sorted(
            (
                Unsettled(
                    effect, one.record, one.draft.at / 1e6, one.draft.uid, one.draft.run, one.draft.attempt,
                    one.draft.namespace, one.draft.agent, one.draft.method, one.in_flight,
                    json.loads(one.draft.amounts),
                )
                for effect, one in list(self._ledger.open.items())
            ),
            key=lambda one: one.record,
        )  # fmt: skip

    def left_behind(self, uid: str, attempt: int, start: str) -> list[str]:
        """Idempotency keys, that begin so, of calls which the process before this one left this agent in doubt about:
        those whose outcome nobody knows, then those whose answer it may not have got. Oldest first."""
        found = [
            (one.record, one.draft.key)
            for one in list(self._ledger.open.values())
            if not one.in_flight and (one.draft.uid, one.draft.attempt) == (uid, attempt)
        ]
        ended = [key for *whose, key in self._just_ended if whose == [uid, attempt]]
        return [key for key in (*(key for _, key in sorted(found)), *ended) if key.startswith(start)]

    # Guests' state and reading

    async def write(self, work: Callable[[writer.Tx], T]) -> T:
        """Change guests' state without a record. Never touch the journal's own tables."""
        return await self._writer.run(work)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """A small read, here and now, in one snapshot."""
        return self._readers.now(work)

    async def read_apart(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """A large read, in a thread."""
        return await self._readers.apart(work)

    async def verify(self, head: Mapping[str, Any] | None = None) -> verifying.Verdict:
        """Seal, then prove everything there is against the anchor, and against a `head` that somebody kept."""
        await self.seal()
        return await self._readers.apart(lambda conn: verifying.verify(conn, self._anchor.load(), head))

    async def head(self) -> dict[str, Any] | None:
        """The newest record as it is sealed and anchored now. Who keeps it can have the journal held against it."""
        await self.seal()
        return self._anchor.load()

    # Keeping

    async def erase(self, what: str, reason: str = "") -> int:
        """Erase the bodies of an effect, or one by its digest; what it was cannot be found out from what is left.

        A body shared within the run goes for all its records. Returns how many went; repeatable. Raises NotFound.
        """
        found = await self._readers.apart(functools.partial(reading.bodies_of, what=what))
        if not found:
            raise errors.NotFound(f"the journal has no body of {what}")
        meta = {"what": what, "reason": reason}
        gone = await self._writer.run(
            self._ledger.job(lambda tx: self._ledger.erase(tx, found, _now(), meta))
        )
        if gone:
            await asyncio.to_thread(self._empty_log)
        return gone

    async def seal(self) -> None:
        """Seal and anchor what is not yet. Returns when the anchor has been told."""
        await self._writer.run(self._ledger.job(lambda tx: self._ledger.seal(tx, _now())))
        await self._writer.run(lambda tx: None)  # the anchor is told after the commit, before the next one

    async def sweep(self, now_seconds: float | None = None) -> None:
        """Seal what a quiet journal left unsealed, and let go of what is old or too much. Call it now and then."""
        at = _now() if now_seconds is None else int(now_seconds * 1e6)
        await self.seal()
        step = self._ledger.job(
            functools.partial(retention.step, ledger=self._ledger, kept=self._settings.kept, at=at)
        )
        while await self._writer.run(step):
            continue
        await self.seal()

    async def _abandon(self, cell: writing.Cell) -> None:
        """Its caller was cancelled before it could begin: say so, if the intent was written at all."""
        told = self._settlement(Outcome("cancelled", b"", meta={"reason": "never begun"}), None)

        def settle(tx: writer.Tx) -> None:
            if cell.effect:
                self._ledger.settle(tx, cell.effect, told)

        with contextlib.suppress(
            errors.AgentkError
        ):  # closed, or the disk refuses: unknown at the next opening
            await self._writer.run(self._ledger.job(settle))

    async def _draft(self, kind: Any, intent: Intent) -> writing.Draft:
        """Without amounts and meta, which an intent has of its own and the others with their outcome."""
        _must_be_text(intent)
        return writing.Draft(
            kind, _now(), intent.uid, intent.run, intent.attempt, intent.namespace, intent.agent, intent.method,
            intent.parent, intent.key, intent.trace, asked=await self._body(intent.body, intent.run),
        )  # fmt: skip

    def _ended(
        self, draft: writing.Draft, intent: Intent, outcome: Outcome, answer: bodies.Body | None
    ) -> writing.Draft:
        return draft._replace(
            status=outcome.status,
            amounts=chain.text(outcome.used),
            meta=self._meta({**intent.meta, **outcome.meta}),
            answer=answer,
        )

    def _settlement(self, outcome: Outcome, answer: bodies.Body | None) -> writing.Settlement:
        return writing.Settlement(
            _now(), outcome.status, chain.text(outcome.used), self._meta(outcome.meta), answer
        )

    def _meta(self, meta: Mapping[str, Any]) -> str:
        return self._settings.redact(chain.text(meta).encode()).decode("utf-8", "replace") if meta else "{}"

    async def _body(self, data: bytes, owner: str) -> bodies.Body | None:
        if len(data) < _APART_BYTES:
            return self._prepare(data, owner)
        return await asyncio.to_thread(self._prepare, data, owner)

    def _prepare(self, data: bytes, owner: str) -> bodies.Body | None:
        return bodies.prepare(self._settings.redact(data), owner)

    # In the writer's thread

    def _committed(self, changed: Iterable[tuple[str, int]]) -> None:
        self._save_anchor(self._ledger.committed())

    def _seal_if_due(self, changed: int) -> Callable[[writer.Tx], None] | None:
        self._unsealed += changed
        at = time.monotonic()
        if self._unsealed < self._settings.seal_records and (
            not self._unsealed or at - self._sealed_at < self._settings.seal_seconds
        ):
            return None
        self._unsealed, self._sealed_at = 0, at
        return self._ledger.job(lambda tx: self._ledger.seal(tx, _now()))

    def _end(self, tx: writer.Tx) -> None:
        self._ledger.own(tx, "closed", _now(), {})
        self._ledger.seal(tx, _now())

    def _save_anchor(self, sealed: chain.Head | None) -> None:
        if sealed is None:
            return
        mac = chain.head_mac(self._ledger.key, self._ledger.journal, sealed)
        state = {"journal": self._ledger.journal, "record": sealed.number, "hash": sealed.hash.hex()}
        try:
            self._anchor.save({**state, "mac": mac.hex(), "at": _now()})
        except (
            Exception
        ):  # whatever keeps it is another store: the chain goes on, and the next seal tries again
            logger.exception("the journal's anchor could not be saved")

    def _empty_log(self) -> None:
        """What was erased is still in the write-ahead log until that is emptied. Readers may delay it."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None, timeout=5)) as conn:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _now() -> int:
    return time.time_ns() // 1000


def _must_be_text(intent: Intent) -> None:
    """Half a surrogate pair, from a guest's JSON, can be neither stored nor hashed."""
    try:
        "\0".join((intent.key, intent.trace, intent.parent, intent.run, intent.method, intent.uid)).encode()
    except UnicodeEncodeError as error:
        raise errors.BadRequest("the call's key, trace or method is not valid Unicode") from error
