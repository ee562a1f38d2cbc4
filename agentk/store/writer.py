"""The one thread that writes, with group commit: what callers queue while a commit syncs shares the next one.

Each queued function runs in a savepoint, so one that raises undoes only itself. A caller hears of success only
after COMMIT, which is synced to the disk. Nothing here knows what an object is.
"""

import asyncio
import concurrent.futures
import logging
import queue
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from agentk.api import errors

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Bounds how long the first of a batch waits for the last.
_BATCH_MAX = 256

_Future = asyncio.Future[Any] | concurrent.futures.Future[Any]
_Answers = list[tuple[_Future, Any, BaseException | None]]


@dataclass
class Tx:
    """What a queued function works with: the connection and the changes the batch has made so far."""

    conn: sqlite3.Connection
    changed: list[tuple[str, int]] = field(default_factory=list)  # (kind, id of the change row)


class Undo(Exception, Generic[T]):
    """Raised by a queued function to roll itself back and still answer (a dry run)."""

    def __init__(self, answer: T) -> None:
        super().__init__("undone")
        self.answer = answer


@dataclass(frozen=True)
class _Job:
    run: Callable[[Tx], Any]
    loop: asyncio.AbstractEventLoop | None  # None: a thread waits for it
    future: _Future


class Writer:
    """Owns `conn` until close. After each commit its thread tells `committed` what changed and asks `upkeep`,
    with the number of changes, for something to do in a transaction of its own. `finish` is the last to write in
    each transaction: what need be written once for all of a batch."""

    def __init__(
        self,
        conn: sqlite3.Connection,
        committed: Callable[[list[tuple[str, int]]], None],
        upkeep: Callable[[int], Callable[[Tx], None] | None],
        name: str,
        finish: Callable[[Tx], None] | None = None,
    ) -> None:
        self._conn = conn
        self._finish = finish or _nothing_more
        self._committed = committed
        self._upkeep = upkeep
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[Tx], T]) -> T:
        """Run `work` in the writer's transaction; returns when it is on the disk.

        A cancelled caller does not stop the write. Raises what `work` raises, or Unavailable with the reason when
        the disk refuses; then nothing of it was written.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue(_Job(work, loop, future))
        return await future

    def run_here(self, work: Callable[[Tx], T]) -> T:
        """As `run`, for a thread that is not the loop's: blocks it."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._queue(_Job(work, None, future))
        return future.result()

    def _queue(self, job: _Job) -> None:
        with self._closing:
            if self._closed:
                raise errors.Unavailable("the store is closed")
            self._jobs.put(job)

    def close(self) -> None:
        """Write what is queued, then end the thread. Repeatable."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        open_for_more = True
        while open_for_more:
            job = self._jobs.get()
            batch: list[_Job] = []
            while job is not None:
                batch.append(job)
                if len(batch) == _BATCH_MAX:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            open_for_more = job is not None
            if batch:
                self._commit(batch)

    def _commit(self, batch: list[_Job]) -> None:
        tx = Tx(self._conn)
        try:
            self._conn.execute("BEGIN IMMEDIATE")
            answers = [self._one(job, tx) for job in batch]
            self._finish(tx)
            self._conn.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            tx.changed.clear()
            reason = refused(error)
            answers = [(job.future, None, reason) for job in batch]
        by_loop: dict[asyncio.AbstractEventLoop | None, _Answers] = defaultdict(list)
        for job, answer in zip(batch, answers, strict=True):
            by_loop[job.loop].append(answer)
        for loop, told in by_loop.items():
            if loop is None:
                _resolve(told)
            else:
                tell(loop, _resolve, told)
        if tx.changed:  # after the answers: who wrote goes on before everyone who watches
            self._committed(tx.changed)
        work = self._upkeep(len(tx.changed))
        if work is not None:
            self._keep_up(work)

    def _keep_up(self, work: Callable[[Tx], None]) -> None:
        tx = Tx(self._conn)
        try:
            self._conn.execute("BEGIN IMMEDIATE")
            work(tx)
            self._finish(tx)
            self._conn.execute("COMMIT")
        except Exception:  # a full disk, say: whoever writes next hears of it, and upkeep comes again
            logger.exception("the store's upkeep failed")
            self._roll_back()
        else:
            if tx.changed:
                self._committed(tx.changed)

    def _one(self, job: _Job, tx: Tx) -> tuple[_Future, Any, BaseException | None]:
        mark = len(tx.changed)
        tx.conn.execute("SAVEPOINT one")
        try:
            answer = job.run(tx)
        except BaseException as error:
            if not tx.conn.in_transaction:  # SQLite gave up the whole transaction, not only this savepoint
                if isinstance(error, sqlite3.Error):
                    raise
                raise sqlite3.OperationalError(str(error)) from error
            tx.conn.execute("ROLLBACK TO one")
            tx.conn.execute("RELEASE one")
            del tx.changed[mark:]
            if isinstance(error, Undo):
                return job.future, error.answer, None
            return job.future, None, refused(error) if isinstance(error, sqlite3.Error) else error
        tx.conn.execute("RELEASE one")
        return job.future, answer, None

    def _roll_back(self) -> None:
        try:
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")
        except sqlite3.Error:  # it already rolled back by itself
            return


def _nothing_more(tx: Tx) -> None:
    return


def refused(error: sqlite3.Error) -> errors.AgentkError:
    """What the database said, as an error a person can act on."""
    hint = {
        "SQLITE_FULL": "free some space on the disk that holds the state directory",
        "SQLITE_CORRUPT": "stop the daemon and start it again: it sets the damaged file aside",
        "SQLITE_NOTADB": "stop the daemon and start it again: it sets the damaged file aside",
    }.get(str(getattr(error, "sqlite_errorname", "")), "")
    return errors.Unavailable(f"the store refused: {error}", hint=hint, retry_after_seconds=1)


def tell(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *args: object) -> None:
    """Call something in another thread's loop; a loop that has ended needs to hear nothing."""
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _resolve(answers: _Answers) -> None:
    for future, answer, error in answers:
        if future.done():  # the caller was cancelled
            continue
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)
