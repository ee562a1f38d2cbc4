"""Acknowledged writes a second at full durability: the store beside a bare writer thread with group commit.

    python -m tests.bench.store_writes [--seconds 2] [--rounds 3]

Both commit to the same disk with synchronous=FULL, taking turns. The bare thread inserts one row of the same bytes
and knows nothing of objects; the store checks, numbers, logs and indexes each object and wakes watchers.
"""

import argparse
import asyncio
import itertools
import json
import queue
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agentk.api import kinds
from agentk.store.store import Store

CALLERS = (1, 32)

Write = Callable[[int], Awaitable[object]]


class Bare:
    """The least that acknowledges after a commit: a queue, a thread, one INSERT a call."""

    def __init__(self, path: Path) -> None:
        self.conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            self.conn.execute(f"PRAGMA {pragma}").fetchall()
        self.conn.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
        self.jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    async def write(self, body: str) -> None:
        future = asyncio.get_running_loop().create_future()
        self.jobs.put((body, future, asyncio.get_running_loop()))
        await future

    def close(self) -> None:
        self.jobs.put(None)
        self.thread.join()
        self.conn.close()

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            batch = [job]
            while len(batch) < 256 and not self.jobs.empty():
                job = self.jobs.get()
                if job is None:
                    self.jobs.put(None)
                    break
                batch.append(job)
            self.conn.execute("BEGIN IMMEDIATE")
            for body, _, _ in batch:
                self.conn.execute("INSERT INTO t (body) VALUES (?)", (body,))
            self.conn.execute("COMMIT")
            batch[0][2].call_soon_threadsafe(_answer, [future for _, future, _ in batch])


def _answer(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        future.set_result(None)


def agent(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "agentk.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "bench"}},
        "spec": {
            "runtimeRef": {"name": "nsjail"},
            "command": ["python3", "main.py"],
            "resources": {"limits": {"cpu": "500m", "memory": "256Mi", "pids": 64}},
            "restartPolicy": "OnFailure",
            "env": [{"name": "LOG_LEVEL", "value": "info"}],
        },
    }


async def rate(write: Write, callers: int, seconds: float) -> float:
    """Acknowledged calls a second."""
    numbers, done = itertools.count(), 0
    end = time.perf_counter() + seconds

    async def call() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await write(next(numbers))
            done += 1

    start = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    return done / (time.perf_counter() - start)


async def measure(folder: Path, callers: int, seconds: float) -> dict[str, float]:
    """One round of each, one after the other on the same disk."""
    body = json.dumps(agent("a000000"))
    bare = Bare(folder / "bare.db")
    rates = {"bare writer": await rate(lambda n: bare.write(body), callers, seconds)}
    bare.close()
    (folder / "store").mkdir()
    store = Store.open(folder / "store")
    rates["create"] = await rate(lambda n: store.create(agent(f"a{n:06}")), callers, seconds)
    made = (await store.list(kinds.AGENT, limit=64)).items
    uids = [(obj["metadata"]["name"], obj["metadata"]["uid"]) for obj in made]

    async def status(n: int) -> None:
        name, uid = uids[n % len(uids)]
        await store.set_status(kinds.AGENT, "default", name, uid, {"phase": "Running", "attempt": n})

    rates["set_status"] = await rate(status, callers, seconds)
    store.close()
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    print(f"{'':24}{'writes/s':>10}{'of bare':>10}")
    for callers in CALLERS:
        rounds = []
        for _ in range(chosen.rounds):
            with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
                rounds.append(asyncio.run(measure(Path(folder), callers, chosen.seconds)))
        for what in rounds[0]:
            figure = statistics.median(one[what] for one in rounds)
            ratio = statistics.median(one[what] / one["bare writer"] for one in rounds)
            print(f"{what:14}{callers:3} callers{figure:10,.0f}{ratio:9.2f}x")


if __name__ == "__main__":
    main()
