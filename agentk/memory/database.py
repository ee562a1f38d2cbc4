"""memory.db: opened once by the daemon, written by one thread, read by a few others.

What callers queue while a commit syncs shares the next one, in turn by whose it is; each job has a savepoint of its
own, so one that raises undoes only itself. A caller hears of success only once it is on the disk. Nothing here knows
what a page is.
"""

import asyncio
import concurrent.futures
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from agentk.api import errors
from agentk.memory import driver, lines, tables
from agentk.memory.driver import Conn

DATABASE = "memory.db"
# They bound how long the first of a batch waits for the last.
_BATCH, _BATCH_SECONDS = 64, 0.02
# At once. Apart, so that who looks a page up does not wait for those who look at every vector.
_READERS = {False: 2, True: 4}
_ENDINGS = ("-wal", "-shm", "")  # the log first: SQLite would replay it into a new file

T = TypeVar("T")
Work = Callable[[Conn], T]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    run: Callable[[Conn], Any]
    alone: bool  # in no transaction
    future: "concurrent.futures.Future[Any]"


@dataclass
class Opened:
    conn: Conn
    notices: list[str] = field(default_factory=list)


def open_file(folder: Path) -> Opened:
    """Open (first: make) memory.db. A damaged one is set aside; `notices` tell. Raises Unavailable with the reason."""
    path, notices = folder / DATABASE, list[str]()
    try:
        try:
            conn = _sound(path)
        except driver.error_types() as error:
            if not driver.damaged(error):
                raise
            notices.append(_set_aside(folder, str(error)))
            conn = _sound(path)
    except driver.Missing as missing:
        raise errors.Unavailable(f"agents can have no memory here: {missing}") from missing
    except OSError as error:
        raise errors.Unavailable(f"{path} cannot be opened: {error}") from error
    except driver.error_types() as error:
        raise errors.Unavailable(f"{path} cannot be opened: {error}") from error
    return Opened(conn, notices)


def _sound(path: Path) -> Conn:
    conn = driver.connect(path)
    try:
        newer = tables.migrate(conn)
        if newer:
            raise errors.Unavailable(
                f"{path} was written by a newer agentk: it has the unknown migration {newer}",
                hint="install that version again",
            )
        # Who ended in the middle of forgetting left what it forgot in the log.
        checkpoint(conn)
    except BaseException:
        conn.close()
        raise
    return conn


def checkpoint(conn: Conn) -> bool:
    """Take the log back into the file and cut it to nothing. False while somebody still reads from it."""
    row = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return bool(row) and row[0] == 0


def _set_aside(folder: Path, damage: str) -> str:
    name = f"{DATABASE}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    for ending in _ENDINGS:
        file = folder / f"{DATABASE}{ending}"
        if file.exists():
            file.rename(folder / f"{name}{ending}")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return f"memory.db was damaged ({damage}); it was set aside as {name}, and a new one was begun"


class Database:
    """Its methods are for asyncio, from any loop."""

    def __init__(self, folder: Path) -> None:
        opened = open_file(folder)
        self.path, self.notices = folder / DATABASE, opened.notices
        self._conn = opened.conn
        self._jobs = lines.Line[_Job]()
        self._gate = threading.Lock()
        self._closed = False
        self._idle = {mapped: queue.LifoQueue[Conn]() for mapped in (False, True)}
        self._threads = {
            scan: ThreadPoolExecutor(many, thread_name_prefix=f"memory-{'scan' if scan else 'read'}")
            for scan, many in _READERS.items()
        }
        self._writer = threading.Thread(target=self._work, name="memory-write", daemon=True)
        self._writer.start()

    async def write(self, work: Work[T], whose: str = "") -> T:
        """Run `work` in a transaction; returns when it is on the disk. A cancelled caller does not stop it. `whose` it
        is says who takes turns; "" is agentk itself."""
        answer: T = await asyncio.wrap_future(self._queue(work, alone=False, whose=whose))
        return answer

    async def truncate(self) -> bool:
        """Leave nothing of what was deleted in the log; False when a reader kept it from that."""
        cut: bool = await asyncio.wrap_future(self._queue(checkpoint, alone=True))
        return cut

    def copy(self, final: Path) -> None:
        """All there is when it returns, in one new file (0600), while others read and write. For a thread: it waits."""

        def done(work: Callable[[Conn], T]) -> T:
            answer: T = self._queue(work, alone=True).result()
            return answer

        copying = done(lambda conn: driver.Copying(conn, final))
        try:
            while done(lambda conn: copying.step()):
                continue
        finally:
            try:
                done(lambda conn: copying.close())
            except errors.Unavailable:
                if self._closed:  # meanwhile: its thread has ended
                    with suppress(*driver.error_types()):
                        copying.close()
                raise

    async def read(self, work: Work[T], *, scan: bool = False) -> T:
        """Run `work` in a thread, in one snapshot. `scan`: it looks at many vectors, not at a page alone."""
        if self._closed:
            raise errors.Unavailable("the memory is closed")
        return await asyncio.get_running_loop().run_in_executor(
            self._threads[scan], self._reading, work, scan
        )

    def close(self) -> None:
        """Write what is queued, take the log back, and let go. Repeatable."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
        self._jobs.close()
        self._writer.join()
        for threads in self._threads.values():
            threads.shutdown(cancel_futures=True)
        for idle in self._idle.values():
            with suppress(queue.Empty):
                while True:
                    idle.get_nowait().close()
        with suppress(*driver.error_types()):
            checkpoint(self._conn)
        self._conn.close()

    def _queue(
        self, work: Callable[[Conn], Any], *, alone: bool, whose: str = ""
    ) -> "concurrent.futures.Future[Any]":
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            self._jobs.join(_Job(work, alone, future), whose)
        except lines.Closed:
            raise errors.Unavailable("the memory is closed") from None
        return future

    def _reading(self, work: Work[T], scan: bool) -> T:
        try:
            conn = self._take(scan)
            try:
                conn.execute("BEGIN")
                try:
                    return work(conn)
                finally:
                    conn.execute("COMMIT")
            finally:
                self._idle[scan].put(conn)
        except driver.error_types() as error:
            raise driver.refused(error) from error

    def _take(self, scan: bool) -> Conn:
        try:
            return self._idle[scan].get_nowait()
        except queue.Empty:
            return driver.connect(self.path, reading=True, mapped=scan)

    # the writer's thread

    def _work(self) -> None:
        while (job := self._jobs.next()) is not None:
            if job.alone:
                _tell(job.future, self._alone(job))
            else:
                self._commit(job)

    def _alone(self, job: _Job) -> Any:
        try:
            return job.run(self._conn)
        except driver.error_types() as error:
            return driver.refused(error)
        except Exception as error:  # noqa: BLE001 it is the caller's, and is told there
            return error

    def _commit(self, first: _Job) -> None:
        batch, answers = [first], list[Any]()
        try:
            self._conn.execute("BEGIN IMMEDIATE")
            ends = time.monotonic() + _BATCH_SECONDS
            while len(answers) < len(batch):
                answers.append(self._one(batch[-1]))
                if len(batch) < _BATCH and time.monotonic() < ends:
                    batch += filter(None, (self._jobs.next_if(lambda job: not job.alone),))
            self._conn.execute("COMMIT")
        except driver.error_types() as error:
            with suppress(*driver.error_types()):  # it may have rolled back by itself
                self._conn.execute("ROLLBACK")
            answers = [driver.refused(error)] * len(batch)
        for job, answer in zip(batch, answers, strict=True):
            _tell(job.future, answer)

    def _one(self, job: _Job) -> Any:
        self._conn.execute("SAVEPOINT one")
        try:
            answer = job.run(self._conn)
        except Exception as error:  # noqa: BLE001 it is the caller's, and is told there
            # Where SQLite gave up the whole transaction there is no savepoint: that raises, and nobody's is kept.
            self._conn.execute("ROLLBACK TO one")
            self._conn.execute("RELEASE one")
            return driver.refused(error) if isinstance(error, driver.error_types()) else error
        self._conn.execute("RELEASE one")
        return answer


def _tell(future: "concurrent.futures.Future[Any]", answer: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
