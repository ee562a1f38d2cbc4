"""Proves that a journal is whole: every record as it was written, none missing, none moved, none cut off the end.

Pure over a read-only connection. What it proves, honestly: up to the anchored seal, that the file holds exactly what
the daemon wrote, even against someone who has the file and its key. After it, only that nobody without the key (it
lies in this file) changed anything: up to one seal's interval of the newest records could be rewritten by who reads it.
Guests' state is not covered: it changes by nature.
"""

import hmac
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from agentk.store import journal_bodies as bodies
from agentk.store import journal_chain as chain
from agentk.store import journal_writing as writing

_WIDTH = len(chain.COLUMNS)
_AT = {name: place for place, name in enumerate(chain.COLUMNS)}


class Bad(NamedTuple):
    """A record that is not what was written, and why."""

    record: int
    reason: str

    def __str__(self) -> str:
        return f"record {self.record}: {self.reason}"


@dataclass(frozen=True)
class Verdict:
    """`bad` is the first record that breaks the chain. `gaps` are earlier breaks, found when the journal was opened."""

    records: int
    anchored_through: int  # proved even against who has the key; 0: no anchor
    bad: Bad | None
    gaps: tuple[Bad, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.bad is None and not self.gaps


def verify(
    conn: sqlite3.Connection, anchored: dict[str, Any] | None, kept: Mapping[str, Any] | None = None
) -> Verdict:
    """Walk the whole journal. `anchored` is what its Anchor loads; `kept`, a head that was exported earlier, must be
    in it as well. Takes about 15 µs a record."""
    with _any_text(conn):
        rows = dict(conn.execute("SELECT key, value FROM meta WHERE key IN ('key', 'journal')"))
        key, journal = rows.get("key"), rows.get("journal")
        if not isinstance(key, bytes) or not isinstance(journal, str):
            return Verdict(0, 0, Bad(1, "the journal's key is missing"))
        walk = _Walk(conn, key, journal, anchored)
        bad = walk.run()
        if (
            bad is not None and bad.record < walk.first
        ):  # no checkpoint accounts for what is before the first record
            bad = _Walk(conn, key, journal, anchored).blindly() or bad
        if bad is None and kept is not None:
            bad = _missing_head(conn, journal, walk, kept)
    return Verdict(walk.count, walk.anchored_through, bad, tuple(walk.gaps), tuple(walk.notes))


def _missing_head(
    conn: sqlite3.Connection, journal: str, walk: "_Walk", kept: Mapping[str, Any]
) -> Bad | None:
    """What is wrong with the record that somebody kept the hash of."""
    number = _whole(kept.get("record"))
    if kept.get("journal") != journal:
        return Bad(number, "the head that was kept is of another journal")
    if number < walk.first:
        walk.notes.append(f"record {number}, whose hash was kept, is older than the oldest record")
        return None
    row = conn.execute("SELECT hash FROM records WHERE id = ?", (number,)).fetchone()
    if row is None:
        return Bad(number, "is missing: its hash was kept")
    same = chain.stored(number, row[0]).hash.hex() == kept.get("hash")
    return None if same else Bad(number, "is not the record whose hash was kept")


def at_opening(conn: sqlite3.Connection, key: bytes, journal: str, anchored: dict[str, Any] | None) -> str:
    """The quick look, before anything is added: is the end there, and the record that was anchored? "" if so."""
    if anchored is not None and anchored.get("journal") != journal:
        return f"this is not the journal that was anchored ({_count(anchored)} records); what it held is not here"
    row = conn.execute("SELECT id, hash FROM records ORDER BY id DESC LIMIT 1").fetchone()
    last = chain.stored(*row) if row else chain.genesis(journal)
    if anchored is not None:
        if last.number < _count(anchored):
            return f"records after {last.number} are missing: the anchor knows {_count(anchored)}"
        row = conn.execute("SELECT hash FROM records WHERE id = ?", (_count(anchored),)).fetchone()
        if row and chain.stored(0, row[0]).hash.hex() != anchored.get("hash"):
            return f"record {_count(anchored)} is not the one that was anchored"
    head = conn.execute("SELECT last, hash, mac FROM head").fetchone()
    wrong = _wrong_head(head, last, key, journal)
    return f"record {last.number + 1}: {wrong}" if wrong else ""


class _Walk:
    def __init__(
        self, conn: sqlite3.Connection, key: bytes, journal: str, anchored: dict[str, Any] | None
    ) -> None:
        self._conn, self._key, self._journal, self._anchored = conn, key, journal, anchored
        self._last = chain.genesis(journal)
        self._runs: dict[tuple[Any, Any], chain.Head] = {}
        self._trimmed = _whole(writing.own_meta(conn, "trimmed").get("through"))
        self._erased = set(_erased(conn))
        self._bodies, self._newest_body = 0, 0
        self._newest: dict[tuple[Any, Any], int] = {}
        self._blind = False
        self._gone: Bad | None = (
            None  # the first body that went without a word; perhaps the word is what is missing
        )
        self.first: int = conn.execute("SELECT min(id) FROM records").fetchone()[0] or 0
        self.count = self.anchored_through = 0
        self.gaps: list[Bad] = []
        self.notes: list[str] = []

    def run(self) -> Bad | None:
        bad = self._start() or self._check_anchor()
        return bad or self._rows() or self._end() or self._gone

    def blindly(self) -> Bad | None:
        """Only how records follow each other from the first one there: what was before it is not believed."""
        self._blind, self._last = True, chain.Head(self.first - 1, b"")
        return self._rows()

    def _rows(self) -> Bad | None:
        for row in self._conn.execute(f"{chain.SELECT} ORDER BY id"):
            bad = self._record(row)
            if bad:
                return bad
        return None

    def _start(self) -> Bad | None:
        """Begin where the last checkpoint says that the records which went ended."""
        told = writing.own_meta(self._conn, "checkpoint")
        if told and chain.meta_mac(self._key, told) != _digest(told.get("mac")):
            return Bad(writing.newest_own(self._conn, "checkpoint"), "is not what was written")
        through = told.get("through", 0)
        if self.first and self.first != through + 1:
            return Bad(
                min(through, self.first - 2) + 1, f"is missing; the first record there is {self.first}"
            )
        if told:
            self._last = chain.Head(through, bytes.fromhex(told["hash"]))
            self._runs = {
                (uid, run): chain.Head(seq, bytes.fromhex(digest)) for uid, run, seq, digest in told["runs"]
            }
        return None

    def _check_anchor(self) -> Bad | None:
        state = self._anchored
        if state is None:
            self.notes.append("there is no anchor: the chain alone was verified")
            return None
        if state.get("journal") != self._journal:
            return Bad(1, f"this is not the journal that was anchored ({state.get('journal')})")
        mac = chain.head_mac(self._key, self._journal, chain.Head(_count(state), _digest(state.get("hash"))))
        if not hmac.compare_digest(mac, _digest(state.get("mac"))):
            return Bad(_count(state), "its anchor is not one that this journal made, or the key was changed")
        if _count(state) < self.first:
            self.notes.append("the anchor is older than the oldest record: the chain alone was verified")
        return None

    def _record(self, row: tuple[Any, ...]) -> Bad | None:
        number, expected = row[0], self._last.number + 1
        if number != expected:
            return Bad(expected, "is missing")
        owner, seq = (row[_AT["uid"]], row[_AT["run"]]), row[_AT["seq"]]
        run = self._runs.get(owner, chain.Head(0, chain.BEGINNING))
        digest = chain.link(run.hash, self._last.hash, row[:_WIDTH])
        if self._blind and (owner not in self._runs or number == self.first):
            digest, run = row[_WIDTH], chain.stored(seq - 1, b"")
        if row[_WIDTH] != digest or not isinstance(digest, bytes):
            return Bad(number, "is not what was written, or what was before it is not")
        if seq != run.number + 1:
            return Bad(number, f"is number {seq} of its run, after {run.number}")
        if self._anchored and number == _count(self._anchored):
            if digest.hex() != self._anchored.get("hash"):
                return Bad(number, "is not the record that was anchored")
            self.anchored_through = number
        for name in ("asked", "answer"):
            why = self._body(number, row[_AT[name]], row[_AT[f"{name}_digest"]])
            if why:
                return Bad(number, why)
        if owner == ("", ""):
            bad = self._own(number, row[_AT["kind"]], row[_AT["meta"]])
            if bad:
                return bad
        self._last, self._runs[owner] = chain.Head(number, digest), chain.Head(seq, digest)
        self._newest[owner] = number
        self.count += 1
        return None

    def _body(self, record: int, number: int | None, digest: bytes | None) -> str:
        if number is None:
            return ""
        row = self._conn.execute("SELECT codec, salt, data FROM bodies WHERE id = ?", (number,)).fetchone()
        if number > self._newest_body:
            self._newest_body = number
            self._bodies += row is not None
        if row is None:
            if record > self._trimmed:
                self._gone = self._gone or Bad(record, f"its body {number} is missing")
            return ""
        if row == (bodies.ERASED, b"", b""):
            if number not in self._erased:
                self._gone = self._gone or Bad(record, f"its body {number} was erased, and no record says so")
            return ""
        if number in self._erased:
            return f"its body {number} was erased, and is there"
        told = [type(value) for value in row] == [int, bytes, bytes]
        return "" if told and bodies.digest(*row) == digest else f"its body {number} is not what was written"

    def _own(self, number: int, kind: str, text: str) -> Bad | None:
        meta = json.loads(text)
        if kind == "opened" and "broken" in meta:
            self.gaps.append(Bad(number, f"when the journal was opened, {meta['broken']}"))
        for uid, run, seq, digest in meta.get("runs", ()) if kind == "seal" and not self._blind else ():
            if self._runs.get((uid, run)) != (seq, bytes.fromhex(digest)):
                return Bad(number, f"seals another head of run {run}")
        return None

    def _end(self) -> Bad | None:
        if self._anchored and self._last.number < _count(self._anchored):
            return Bad(
                self._last.number + 1, f"is missing: the anchor knows {_count(self._anchored)} records"
            )
        heads = self._conn.execute("SELECT last, hash, mac FROM head").fetchall()
        wrong = _wrong_head(heads[0] if len(heads) == 1 else None, self._last, self._key, self._journal)
        if wrong:
            return Bad(self._last.number + 1, wrong)
        runs = {
            (row[0], row[1]): row[2:]
            for row in self._conn.execute("SELECT uid, run, last, seq, hash FROM runs")
        }
        if runs != {owner: (self._newest.get(owner), *head) for owner, head in self._runs.items()}:
            return Bad(self._last.number + 1, "the heads of the runs are not what was written")
        there = self._conn.execute("SELECT count(*) FROM bodies").fetchone()[0]
        if there != self._bodies:
            return Bad(self._last.number + 1, f"{there - self._bodies} bodies belong to no record")
        return None


def _wrong_head(row: tuple[Any, ...] | None, last: chain.Head, key: bytes, journal: str) -> str:
    if row is None:
        return "" if not last.number else "the journal's head is missing"
    if row[0] != last.number:
        return (
            f"is missing: the journal's head is record {row[0]}"
            if last.number < _whole(row[0])
            else "was added"
        )
    if row[1] != last.hash or row[2] != chain.head_mac(key, journal, last):
        return "the journal's head is not what was written"
    return ""


def _erased(conn: sqlite3.Connection) -> Iterator[int]:
    for (text,) in conn.execute("SELECT meta FROM records WHERE uid = '' AND kind = 'erased'"):
        try:
            yield from json.loads(text)["bodies"]
        except (ValueError, LookupError, TypeError):  # the walk names this record
            continue


def _count(state: dict[str, Any]) -> int:
    return _whole(state.get("record"))


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _digest(text: object) -> bytes:
    try:
        return bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        return b""


@contextmanager
def _any_text(conn: sqlite3.Connection) -> Iterator[None]:
    """Text that is no longer UTF-8 must be found wrong, not fail to be read."""
    before = conn.text_factory
    conn.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        conn.text_factory = before
