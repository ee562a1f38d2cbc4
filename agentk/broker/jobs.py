"""Runs in the background: those that go on, and what came of those that ended, kept for an hour.

What came of one is on the disk before anybody is told, in one transaction with its record, so it outlives the daemon.
One that the daemon did not live to see the end of ended with it, and what it had done by then nobody knows: that is
told.
What an agent may have running, and kept, is bounded; the oldest goes first.
"""

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from agentk.api import errors
from agentk.broker.words import Call, Guest
from agentk.store import journal_words as entries
from agentk.store import writer
from agentk.store.journal import Journal

KEPT_SECONDS = 3600.0
RUNNING_MAX = 16  # of one agent
KEPT_MAX = 64
KEPT_MAX_BYTES = 16 * 1024 * 1024
_LONGEST_SECONDS = 25 * 3600.0  # no run takes longer: a row that still says so is of a daemon that died
_CANCEL_SECONDS = 10.0

_log = logging.getLogger(__name__)

Answer = dict[str, Any]
Run = Callable[[], Awaitable[Answer]]
Cancel = Callable[[str, str], Awaitable[None]]


@dataclass
class _Job:
    call: Call
    effect: str
    task: asyncio.Task[None] | None = None
    reason: str = ""  # once it has ended
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Jobs:
    def __init__(
        self,
        journal: Journal,
        cancel: Cancel,
        redact: Callable[[bytes], bytes],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`cancel`: end the command of this box and id, however far it is; repeatable. `redact`: as the journal's, for
        what is kept lies beside it."""
        self._journal, self._cancel, self._redact, self._now = journal, cancel, redact, now
        self._running: dict[tuple[str, str], _Job] = {}  # (agent's uid, effect)

    async def begin(self, call: Call, effect: str, run: Run) -> None:
        """Answers when it is on the disk that it runs. Raises TooManyRequests."""
        uid = call.guest.uid
        if sum(job.call.guest.uid == uid for job in self._running.values()) >= RUNNING_MAX:
            raise errors.TooManyRequests(
                f"{RUNNING_MAX} runs are in the background already",
                hint="exec.poll waits for one to end, exec.cancel ends it",
                retry_after_seconds=1,
            )
        job = self._running[uid, effect] = _Job(call, effect)
        try:
            await self._journal.write(lambda tx: _began(tx, uid, effect, self._now()))
        except BaseException:
            del self._running[uid, effect]
            raise
        job.task = asyncio.create_task(self._see_through(job, run), name=f"exec {effect}")

    async def poll(self, guest: Guest, run: str, wait_seconds: float) -> Answer:
        """Raises NotFound, OutcomeUnknown, and what the run raised."""
        job = self._running.get((guest.uid, run))
        if job is not None and wait_seconds:
            try:
                async with asyncio.timeout(wait_seconds):
                    await job.ended.wait()
            except TimeoutError:
                pass
        if (guest.uid, run) in self._running:
            return {"id": run, "state": "Running"}
        return self._kept(guest, run)

    async def cancel(self, guest: Guest, run: str) -> bool:
        """Whether it was this that ended it. Raises NotFound."""
        job = self._running.get((guest.uid, run))
        if job is None or job.task is None:
            self._row(guest, run)
            return False
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._cancel(job.call.guest.box_id, run)
                await job.ended.wait()
        except TimeoutError:
            job.task.cancel()  # what runs it lets go of it then, whoever else does not answer
            await job.ended.wait()
        return job.reason == "Cancelled"

    async def sweep(self, uids: Collection[str]) -> None:
        """Forget what is too old, and all of agents that are not among `uids`. Repeatable."""
        now = self._now()

        def left(conn: sqlite3.Connection) -> list[tuple[str, bool]]:
            sql = "SELECT uid, ifnull(ended_at < ?, began_at < ?) FROM jobs"
            bounds = now - KEPT_SECONDS, now - _LONGEST_SECONDS
            return [(uid, bool(old)) for uid, old in conn.execute(sql, bounds)]

        found = self._journal.read(left)
        gone = {uid for uid, _ in found} - set(uids)
        if gone or any(old for _, old in found):
            await self._journal.write(lambda tx: _forget(tx, gone, now))

    async def close(self) -> None:
        """End all that run. Before the journal is closed; repeatable."""
        tasks = [job.task for job in self._running.values() if job.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _see_through(self, job: _Job, run: Run) -> None:
        try:
            told = {"answer": await run()}
            job.reason = str(told["answer"].get("reason"))
            status: entries.Status = "ok"
        except asyncio.CancelledError:
            told = {"error": errors.Cancelled("the run was ended").to_status()}
            job.reason, status = "Cancelled", "cancelled"
        except errors.AgentkError as error:
            told = {"error": error.to_status()}
            status = "unknown" if isinstance(error, errors.OutcomeUnknown) else "error"
        except Exception as error:  # noqa: BLE001 — a mistake of ours ends this run, not the guest's others
            _log.exception("a run in the background failed")
            told, status = (
                {"error": errors.AgentkError(f"internal error: {type(error).__name__}").to_status()},
                "error",
            )
        keeping = asyncio.ensure_future(self._keep(job, told, status))
        try:
            await asyncio.shield(keeping)
        except asyncio.CancelledError:
            await keeping
        finally:
            self._running.pop((job.call.guest.uid, job.effect), None)
            job.ended.set()

    async def _keep(self, job: _Job, told: Answer, status: entries.Status) -> None:
        guest, now = job.call.guest, self._now()
        body = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()

        def work(tx: writer.Tx) -> entries.Outcome:
            _ended(tx, guest.uid, job.effect, self._redact(body), now)
            return entries.Outcome(status, body)

        intent = entries.Intent(
            namespace=guest.namespace,
            agent=guest.name,
            uid=guest.uid,
            attempt=guest.attempt,
            run=guest.run_id,
            method="exec",
            body=json.dumps({"id": job.effect}).encode(),
            parent=job.effect,
            trace=job.call.trace,
        )
        try:
            await self._journal.local(intent, work)
        except (errors.AgentkError, sqlite3.Error):
            _log.exception("what came of a run in the background could not be kept")

    def _kept(self, guest: Guest, run: str) -> Answer:
        body = self._row(guest, run)
        if body is None:
            raise errors.OutcomeUnknown(
                "agentk ended while it ran, and it with it: what it had done by then is not known",
                hint="look at what it was to change; then run it again",
            )
        told = json.loads(body)
        if "error" in told:
            raise errors.from_status(told["error"])
        answer: Answer = told["answer"]
        return answer

    def _row(self, guest: Guest, run: str) -> bytes | None:
        """What came of it; None when nobody saw that. Raises NotFound."""
        since = self._now() - KEPT_SECONDS

        def read(conn: sqlite3.Connection) -> Any:
            sql = "SELECT answer FROM jobs WHERE uid = ? AND id = ? AND (ended_at IS NULL OR ended_at >= ?)"
            return conn.execute(sql, (guest.uid, run, since)).fetchone()

        row = self._journal.read(read)
        if row is None:
            raise errors.NotFound(
                "this agent has no such run in the background", hint="what came of one is kept for an hour"
            )
        answer: bytes | None = row[0]
        return answer


def _began(tx: writer.Tx, uid: str, run: str, now: float) -> None:
    _forget_old(tx, now)
    tx.conn.execute("INSERT INTO jobs (uid, id, began_at) VALUES (?, ?, ?)", (uid, run, now))


def _ended(tx: writer.Tx, uid: str, run: str, answer: bytes, now: float) -> None:
    tx.conn.execute(
        "UPDATE jobs SET ended_at = ?, answer = ? WHERE uid = ? AND id = ?", (now, answer, uid, run)
    )
    _forget_old(tx, now)
    rows = tx.conn.execute(
        "SELECT id, length(answer) FROM jobs WHERE uid = ? AND ended_at IS NOT NULL ORDER BY ended_at DESC",
        (uid,),
    ).fetchall()
    total = 0
    for number, (one, size) in enumerate(rows):
        total += size
        if one != run and (number >= KEPT_MAX or total > KEPT_MAX_BYTES):
            tx.conn.execute("DELETE FROM jobs WHERE uid = ? AND id = ?", (uid, one))


def _forget(tx: writer.Tx, uids: set[str], now: float) -> None:
    tx.conn.executemany("DELETE FROM jobs WHERE uid = ?", [(uid,) for uid in uids])
    _forget_old(tx, now)


def _forget_old(tx: writer.Tx, now: float) -> None:
    tx.conn.execute("DELETE FROM jobs WHERE ended_at < ?", (now - KEPT_SECONDS,))
    tx.conn.execute("DELETE FROM jobs WHERE ended_at IS NULL AND began_at < ?", (now - _LONGEST_SECONDS,))
