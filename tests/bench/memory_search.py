"""Vectors of one agent searched, beside raw sqlite-vec at its defaults and numpy in memory; and a whole search by a
question. `python -m tests.bench.memory_search`. Needs numpy.

All take turns in one run, each with questions of its own that it has not seen.
"""

import argparse
import functools
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import numpy
import sqlite_vec

from agentk.memory import database, driver, keeping, search, vectors

NEIGHBOURS = 10
_FIRST = ["invoice", "deploy", "database", "cat", "garden", "ticket", "latency", "budget"]
WORDS = [*_FIRST, "jail", "memory", "socket", "winter", "paper", "river", "engine"]
EMBEDDER = "bench"
# What a cache in memory could be, with rows of a chunk.
_HOT = {"in memory, chunks of 64": 64, "in memory, chunks of 1,024": 1024, "in memory, plain rows": 0}
WIDE = keeping.Limits(10**7, 2**40, 10**7, 2**40)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--sizes", default="10000x1536,100000x384")
    given = parser.parse_args()
    for size in given.sizes.split(","):
        many, dims = (int(part) for part in size.split("x"))
        with tempfile.TemporaryDirectory(prefix="akb-") as folder:
            _tell(many, dims, measured(Path(folder), many, dims, given.rounds))


@dataclass(frozen=True)
class Measured:
    took: dict[str, list[float]]  # seconds of every question, by way
    same: float  # of what is found, what numpy finds, too
    filling: float  # seconds to keep a page
    size: int  # bytes of memory.db


def measured(folder: Path, many: int, dims: int, rounds: int) -> Measured:
    random = numpy.random.default_rng(7)
    made = random.standard_normal((many, dims), dtype=numpy.float32)
    made /= numpy.linalg.norm(made, axis=1, keepdims=True)
    raw, ours, room = _raw(folder, made), database.open_file(folder).conn, 0
    room, filling = _fill(ours, made)
    shelves = vectors.shelves(ours, [room])
    reading = driver.connect(folder / database.DATABASE, reading=True, mapped=True)
    hot = {name: _hot(made, chunk) for name, chunk in _HOT.items()}
    ways: dict[str, Callable[[Any], Any]] = {
        "raw sqlite-vec": lambda q: raw.execute(
            "SELECT rowid, distance FROM v WHERE e MATCH ? AND k = ?", (q.tobytes(), NEIGHBOURS)
        ).fetchall(),
        "numpy": lambda q: _best(made, q),
        "vectors of a room": lambda q: vectors.nearest(reading, shelves, q.tobytes(), NEIGHBOURS, None),
        **{name: functools.partial(_asked, conn) for name, conn in hot.items()},
        "of a room, one tag in fifty": lambda q: search.search(
            reading,
            [room],
            search.Asked("", NEIGHBOURS, {EMBEDDER: q.tobytes()}, keeping.Filter(tags=("t7",))),
        ),
        "search by a question": lambda q: search.search(
            reading, [room], search.Asked(_question(q), NEIGHBOURS, {EMBEDDER: q.tobytes()})
        ),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    same = 0
    for number in range(rounds + 2):
        question = random.standard_normal(dims, dtype=numpy.float32)
        question /= numpy.linalg.norm(question)
        for name, way in ways.items():
            began = time.perf_counter()
            way(question)
            if number >= 2:
                took[name].append(time.perf_counter() - began)
        found = {n for n, _ in vectors.nearest(reading, shelves, question.tobytes(), NEIGHBOURS, None)}
        same += len(found & {n + 1 for n in _best(made, question)})
    for conn in (*hot.values(), reading, ours, raw):
        conn.close()
    size = (folder / database.DATABASE).stat().st_size
    return Measured(took, same / (rounds + 2) / NEIGHBOURS, filling / many, size)


def _tell(many: int, dims: int, told: Measured) -> None:
    print(f"\n{many:,} vectors of {dims} numbers; {told.filling * 1e3:.2f} ms to keep a page; ", end="")
    print(f"{told.same:.0%} the same as numpy finds; {told.size / 2**20:.0f} MiB")
    print("| way | median | p95 | to raw |\n|---|---|---|---|")
    base = statistics.median(told.took["raw sqlite-vec"])
    for name, each in told.took.items():
        middle, late = statistics.median(each), sorted(each)[int(len(each) * 0.95)]
        print(f"| {name} | {middle * 1e3:.2f} ms | {late * 1e3:.2f} ms | {middle / base:.2f}× |")


def _raw(folder: Path, made: Any) -> driver.Conn:
    """As its own examples have it: one table, no partition, its own sizes, nothing mapped."""
    conn = driver.connect(folder / "raw.db")
    conn.execute("PRAGMA mmap_size = 0").fetchall()
    conn.execute(f"CREATE VIRTUAL TABLE v USING vec0(e float[{made.shape[1]}] distance_metric=cosine)")
    conn.execute("PRAGMA journal_mode = DELETE").fetchall()
    conn.execute("BEGIN")
    for number, vector in enumerate(made, 1):
        conn.execute("INSERT INTO v (rowid, e) VALUES (?, ?)", (number, vector.tobytes()))
    conn.execute("COMMIT")
    return conn


def _hot(made: Any, chunk: int) -> Any:
    """A copy of the vectors that is in memory alone, as a cache of memory.db could be. 0: rows of a plain table, each
    compared by sqlite-vec's own function."""
    conn = apsw.Connection(":memory:")
    conn.enable_load_extension(True)
    conn.load_extension(sqlite_vec.loadable_path())
    if chunk:
        conn.execute(
            f"CREATE VIRTUAL TABLE v USING vec0(shelf INTEGER PARTITION KEY, e float[{made.shape[1]}]"
            f" distance_metric=cosine, chunk_size={chunk})"
        )
    else:
        conn.execute("CREATE TABLE v (rowid INTEGER PRIMARY KEY, shelf INTEGER, e BLOB)")
    conn.execute("BEGIN")
    for number, vector in enumerate(made, 1):
        conn.execute("INSERT INTO v (rowid, shelf, e) VALUES (?, 1, ?)", (number, vector.tobytes()))
    conn.execute("COMMIT")
    return conn


def _asked(conn: driver.Conn, question: Any) -> Any:
    table = conn.execute("SELECT sql FROM sqlite_master WHERE name = 'v'").fetchone()[0]
    if "vec0" in table:
        select = "SELECT rowid, distance FROM v WHERE e MATCH ? AND k = ? AND shelf = 1"
    else:
        select = "SELECT rowid, vec_distance_cosine(e, ?) AS far FROM v WHERE shelf = 1 ORDER BY far LIMIT ?"
    return conn.execute(select, (question.tobytes(), NEIGHBOURS)).fetchall()


def _fill(conn: driver.Conn, made: Any) -> tuple[int, float]:
    room = keeping.room(conn, "memory/bench", "a", "a")
    began = time.perf_counter()
    conn.execute("BEGIN")
    for number, vector in enumerate(made):
        text = f"page {number} of {WORDS[number % 15]} {WORDS[number // 15 % 15]} {WORDS[number // 225 % 15]}"
        page = keeping.fresh("note", text, 10, tags=(f"t{number % 50}",))
        keeping.put(conn, room, page, WIDE, None, keeping.Vector(EMBEDDER, vector.tobytes()))
        if number % 1000 == 999:
            conn.execute("COMMIT")
            conn.execute("BEGIN")
    conn.execute("COMMIT")
    database.checkpoint(conn)
    return room.id, time.perf_counter() - began


def _best(made: Any, question: Any) -> list[int]:
    near = made @ question
    best = numpy.argpartition(-near, NEIGHBOURS)[:NEIGHBOURS]
    return [int(n) for n in best[numpy.argsort(-near[best])]]


def _question(vector: Any) -> str:
    first = array("f", vector.tobytes()[:8])
    return f"what about the {WORDS[int(abs(first[0]) * 1e6) % 15]} and the {WORDS[int(abs(first[1]) * 1e6) % 15]}?"


if __name__ == "__main__":
    main()
