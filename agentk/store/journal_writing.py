"""What happens in the journal's writer thread: records are numbered, linked and stored; intents wait to be settled.

Everything remembered here between calls repeats what the database says, and is dropped whenever a transaction may
have been undone: a head taken from memory must never be one that the disk does not have.
"""

import functools
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from agentk.api import errors
from agentk.store import journal_bodies as bodies
from agentk.store import journal_chain as chain
from agentk.store import journal_words as words
from agentk.store import writer

T = TypeVar("T")

# Heads of runs kept in memory; a run that is not among them costs one look-up.
_RUNS_MAX = 10_000
# Records whose idempotency key no other call may use.
_TAKES_KEY = ("intent", "local")


class Draft(NamedTuple):
    """A record before it has its place. Texts are already redacted JSON."""

    kind: words.Kind
    at: int
    uid: str = ""
    run: str = ""
    attempt: int = 0
    namespace: str = ""
    agent: str = ""
    method: str = ""
    parent: str = ""
    key: str = ""
    trace: str = ""
    status: str = ""
    amounts: str = "{}"
    meta: str = "{}"
    asked: bodies.Body | None = None
    answer: bodies.Body | None = None


class Settlement(NamedTuple):
    """An outcome before it is stored."""

    at: int
    status: words.Status
    amounts: str
    meta: str
    answer: bodies.Body | None


class Line(NamedTuple):
    """Where one run's chain has got to."""

    last: int  # id of its newest record
    seq: int
    hash: bytes


@dataclass(frozen=True)
class Open:
    """An intent that may still be settled."""

    record: int
    draft: Draft  # without its body
    in_flight: bool


@dataclass
class Cell:
    """Carries an effect id out of the writer thread to a caller that may be gone by then."""

    effect: str = ""


class Ledger:
    """Belongs to the writer thread; only `open` is read from outside."""

    def __init__(self, key: bytes, journal: str) -> None:
        self.key = key
        self.journal = journal
        self.open: dict[str, Open] = {}
        self._tx: writer.Tx | None = None
        self._undecided = False  # the transaction `_tx` has not been heard of since
        self._before: dict[str, Open | None] = {}  # what `open` held before that transaction
        self._sealed: chain.Head | None = None
        self._last: chain.Head | None = None
        self._runs: dict[tuple[str, str], Line] = {}
        self._unwritten: set[tuple[str, str]] = set()  # of `_runs`, what finish() writes
        self._salts = bodies.Salts()
        self._next_body: int | None = None
        self._shared: dict[bytes, tuple[int, bytes]] = {}
        self._undo: list[Callable[[], object]] = []  # of the job that runs now

    def job(self, work: Callable[[writer.Tx], T]) -> Callable[[writer.Tx], T]:
        """For Writer.run: `work` may append; when it raises, nothing of it is remembered."""

        def run(tx: writer.Tx) -> T:
            self._begin(tx)
            self._undo = []
            try:
                return work(tx)
            except BaseException:  # only this job is undone: those before it in the transaction stay
                for undo in reversed(self._undo):
                    undo()
                raise

        return run

    def finish(self, tx: writer.Tx) -> None:
        """For Writer: the last thing in a transaction. Where each chain has got to is written once for all jobs."""
        if not self._unwritten or self._last is None:
            return
        rows = [(*owner, *self._runs[owner]) for owner in self._unwritten]
        tx.conn.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", rows)
        mac = chain.head_mac(self.key, self.journal, self._last)
        tx.conn.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?, ?)", (*self._last, mac))
        self._unwritten.clear()

    def committed(self) -> chain.Head | None:
        """The transaction is on the disk. Returns the seal to be anchored, if it made one."""
        self._undecided = False
        self._before = {}
        sealed, self._sealed = self._sealed, None
        return sealed

    def append(self, tx: writer.Tx, draft: Draft, effect: str = "", of: int | None = None) -> tuple[int, str]:
        """Store one record; returns its id and effect id. Raises Conflict when its idempotency key is taken."""
        conn, owner = tx.conn, (draft.uid, draft.run)
        last = self.last(conn)
        had = self._runs.get(owner)
        run = had or _load_run(conn, owner)
        asked, asked_digest = self._store(conn, draft.asked)
        answer, answer_digest = self._store(conn, draft.answer)
        number, seq = last.number + 1, run.seq + 1
        if not effect and draft.uid:
            effect = chain.effect_id(self.key, draft.uid, draft.run, draft.method, asked_digest, seq)
        slot = chain.slot(self.key, draft.uid, draft.attempt, draft.key) if draft.kind in _TAKES_KEY else None
        columns = (
            number, run.last, seq, draft.at, draft.kind, draft.uid, draft.run, draft.attempt, draft.namespace,
            draft.agent, draft.method, effect, of, draft.parent, draft.key, slot, draft.trace, draft.status,
            draft.amounts, draft.meta, asked, asked_digest, answer, answer_digest,
        )  # fmt: skip
        head = chain.Head(number, chain.link(run.hash, last.hash, columns))
        try:
            conn.execute(chain.INSERT, (*columns, head.hash))
        except sqlite3.IntegrityError as error:
            if slot is None or ".slot" not in str(error):
                raise
            raise errors.Conflict(f"the idempotency key {draft.key!r} is used by another call") from error
        self._undo.append(functools.partial(self._go_back, last, owner, had))
        self._last, self._runs[owner] = head, Line(number, seq, head.hash)
        self._unwritten.add(owner)
        tx.changed.append(("records", number))
        return number, effect

    def intend(self, tx: writer.Tx, draft: Draft, cell: Cell) -> str:
        number, effect = self.append(tx, draft)
        self._now_open(effect, Open(number, draft._replace(asked=None), in_flight=True))
        cell.effect = effect
        return effect

    def settle(self, tx: writer.Tx, effect: str, told: Settlement, kind: words.Kind = "result") -> None:
        """Raises Conflict when there is nothing to settle. An `unknown` effect may be settled once more, better."""
        pending = self.open.get(effect)
        if pending is None:
            raise errors.Conflict(f"effect {effect or '(none)'} was settled before, or never begun")
        draft = pending.draft._replace(
            kind=kind,
            at=told.at,
            key="",
            status=told.status,
            amounts=told.amounts,
            meta=told.meta,
            answer=told.answer,
        )
        self.append(tx, draft, effect, pending.record)
        still = Open(pending.record, pending.draft, in_flight=False) if told.status == "unknown" else None
        self._now_open(effect, still)

    def own(self, tx: writer.Tx, kind: words.Kind, at: int, meta: dict[str, Any]) -> int:
        """A record of the journal's own chain."""
        return self.append(tx, Draft(kind, at, meta=chain.text(meta)))[0]

    def seal(self, tx: writer.Tx, at: int) -> None:
        """Bind the heads of all runs since the last seal into the journal's own chain, to be anchored."""
        since = newest_own(tx.conn, "seal")
        if self.last(tx.conn).number == since:
            return
        rows = tx.conn.execute(
            "SELECT uid, run, seq, hash FROM records WHERE id > ? AND uid <> '' ORDER BY id", (since,)
        )
        heads = {(uid, run): [uid, run, seq, digest.hex()] for uid, run, seq, digest in rows}
        self.own(
            tx,
            "seal",
            at,
            {"runs": list(heads.values()), "open": sorted(one.record for one in self.open.values())},
        )
        self._sealed = self._last
        self._shared.clear()  # bodies are shared within a seal's segment only, so segments can be trimmed one by one
        if len(self._runs) > _RUNS_MAX:
            self.forget_heads(tx)

    def erase(self, tx: writer.Tx, numbers: set[int], at: int, meta: dict[str, Any]) -> int:
        """Tombstones in place of bodies, and a record that says so. Returns how many there still were."""
        self._shared.clear()  # what is erased is not to be pointed at again
        gone = sorted(number for number in numbers if bodies.erase(tx.conn, number))
        if gone:
            self.own(tx, "erased", at, {**meta, "bodies": gone})
        return len(gone)

    def drop(self, which: Callable[[Open], bool]) -> None:
        """Forget open effects: their records went."""
        for effect in [effect for effect, one in self.open.items() if which(one)]:
            self._now_open(effect, None)

    def forget_heads(self, tx: writer.Tx) -> None:
        """Write them all, then look them up again: there may be too many, or some may go."""
        self.finish(tx)
        self._runs.clear()

    def last(self, conn: sqlite3.Connection) -> chain.Head:
        """The newest record."""
        if self._last is None:
            row = conn.execute("SELECT id, hash FROM records ORDER BY id DESC LIMIT 1").fetchone()
            self._last = chain.stored(*row) if row else chain.genesis(self.journal)
        return self._last

    def _store(self, conn: sqlite3.Connection, body: bodies.Body | None) -> tuple[int | None, bytes | None]:
        if body is None:
            return None, None
        if body.content and body.content in self._shared:
            return self._shared[body.content]
        if self._next_body is None:
            self._next_body = next_body(conn)
        number, salt = self._next_body, self._salts.next()
        digest = bodies.digest(body.codec, salt, body.data)
        conn.execute("INSERT INTO bodies VALUES (?, ?, ?, ?)", (number, body.codec, salt, body.data))
        self._next_body += 1
        self._undo.append(self._forget_bodies)
        if body.content:
            self._shared[body.content] = number, digest
        return number, digest

    def _begin(self, tx: writer.Tx) -> None:
        if tx is self._tx:
            return
        if self._undecided:  # no commit was heard of
            self._forget()
            for effect, pending in list(self._before.items()):
                self._now_open(effect, pending)
            self._before, self._sealed = {}, None
        self._tx, self._undecided = tx, True

    # Known at once, not after the commit: a caller hears of its commit before this thread comes back to say so here.
    def _now_open(self, effect: str, pending: Open | None) -> None:
        self._before.setdefault(effect, self.open.get(effect))
        if pending is None:
            self.open.pop(effect, None)
        else:
            self.open[effect] = pending

    def _forget(self) -> None:
        self._last = None
        self._runs, self._unwritten = {}, set()
        self._forget_bodies()

    def _forget_bodies(self) -> None:
        self._next_body, self._shared = None, {}

    def _go_back(self, last: chain.Head, owner: tuple[str, str], had: "Line | None") -> None:
        """Before a record that was undone. What finish() is to write is still true of the ones before it."""
        self._last = last
        if had is None:
            self._runs.pop(owner, None)
            self._unwritten.discard(owner)
        else:
            self._runs[owner] = had


def newest_own(conn: sqlite3.Connection, kind: str) -> int:
    """Id of the newest record of the journal's own of that kind; 0 when there is none."""
    row = conn.execute("SELECT max(id) FROM records WHERE uid = '' AND kind = ?", (kind,)).fetchone()
    return row[0] or 0


def own_meta(conn: sqlite3.Connection, kind: str) -> dict[str, Any]:
    """What the newest of them says; {} when there is none, or it does not read (verifying says so)."""
    row = conn.execute("SELECT meta FROM records WHERE id = ?", (newest_own(conn, kind),)).fetchone()
    try:
        meta = json.loads(row[0]) if row else {}
    except ValueError:
        return {}
    return meta if isinstance(meta, dict) else {}


def next_body(conn: sqlite3.Connection) -> int:
    """Ids of bodies have no gaps, and none is given twice: what was trimmed is remembered in the chain."""
    there = conn.execute("SELECT max(id) FROM bodies").fetchone()[0] or 0
    for kind in ("trimmed", "checkpoint"):
        there = max(there, own_meta(conn, kind).get("bodies", 0))
    return int(there) + 1


def _load_run(conn: sqlite3.Connection, owner: tuple[str, str]) -> Line:
    row = conn.execute("SELECT last, seq, hash FROM runs WHERE uid = ? AND run = ?", owner).fetchone()
    return Line(row[0], *chain.stored(row[1], row[2])) if row else Line(0, 0, chain.BEGINNING)
