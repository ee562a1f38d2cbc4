"""A page that is in the window, a page that comes back from memory.db, and what pages of a window weigh in memory.

    python -m tests.bench.pages [--rounds 300]

Access: a page of a window is looked up and told that it was of use. Fault: a page that left is read from memory.db,
in a room of so many pages, byte for byte, and put back into a window of 1,000: once where the kernel has the file in
its cache, once where it has nothing of it. Beside that the same through a mapped file, and as many reads of the
same file, cold, with nothing else. And what the same costs an agent that asks for a page by its id.
"""

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from agentk.memory import database, driver, keeping, recalling, window
from agentk.memory.driver import Conn
from agentk.memory.window import Slot, Window
from tests.memory import test_memory_by_route

SIZES = (1_000, 10_000, 100_000)
LIMITS = keeping.Limits(10**7, 2**40, 10**7, 2**40)
TEXT = "Item {n} is of some length, as messages of people are, and has a few words of its own: {n}. " * 4
WAYS = ("access", "fault", "from the disk", "two raw reads", "mapped, from the disk")
_WEIGHED = 50  # windows
_BLOCK = 4096


@dataclass(frozen=True)
class Times:
    """Of one way, in seconds."""

    wall: list[float]
    cpu: list[float]  # of the thread: what others do on the machine is not in it

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.wall, n=20)[-1]

    @property
    def cpu_p95(self) -> float:
        return statistics.quantiles(self.cpu, n=20)[-1]


class Room:
    """A room of so many pages, and the ways to one of them."""

    def __init__(self, file: Path, writer: Conn, many: int, small: Window) -> None:
        self.file, self.many, self._small = file, many, small
        self._room = _filled(writer, many)
        self._places = {one.id: one for one in _windowed(many).slots}
        self._reader = driver.connect(file, reading=True)
        self._mapped = driver.connect(file, reading=True, mapped=True)
        self._die = random.Random(7)

    def ready(self) -> None:
        for conn in (self._reader, self._mapped):
            self._fault(conn)

    def access(self, number: int) -> None:
        found = self._places[f"p{number % 1_000 + 1:016x}"]
        self._places[found.id] = replace(found, accesses=found.accesses + 1, used=float(number))

    def fault(self, number: int) -> None:
        self._fault(self._reader)

    def mapped(self, number: int) -> None:
        self._fault(self._mapped)

    def raw(self, number: int) -> None:
        """What any index and any table must read at least: a leaf of each."""
        fd = os.open(self.file, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        blocks = self.file.stat().st_size // _BLOCK
        for _ in range(2):
            assert os.pread(fd, _BLOCK, self._die.randrange(blocks) * _BLOCK)
        os.close(fd)

    def cold(self) -> None:
        """The kernel lets go of the file. What is mapped stays, so nothing is mapped meanwhile."""
        self._mapped.execute("PRAGMA mmap_size = 0").fetchall()
        fd = os.open(self.file, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        self._mapped.execute(f"PRAGMA mmap_size = {1 << 30}").fetchall()

    def close(self) -> None:
        self._reader.close()
        self._mapped.close()

    def _fault(self, conn: Conn) -> None:
        number = self._die.randrange(1, self.many + 1)
        [page] = keeping.get(conn, [self._room.id], [f"p{self.many:06x}{number:010x}"])
        assert page.content
        recalling.brought(self._small, [f"p{number % 1_000 + 1:016x}"], 2.0)


def measured(rounds: int) -> dict[int, dict[str, Times]]:
    """By size and way."""
    small = _windowed(1_000)
    with tempfile.TemporaryDirectory(prefix="akb-") as folder:
        file = Path(folder) / database.DATABASE
        writer = database.open_file(Path(folder)).conn
        rooms = [Room(file, writer, many, small) for many in SIZES]
        database.checkpoint(writer)
        _synced(file)  # what is not on the disk yet cannot be let go of
        for room in rooms:
            room.ready()
        times = {room.many: {way: Times([], []) for way in WAYS} for room in rooms}
        for number in range(rounds):
            for room in rooms:
                _timed(times[room.many]["access"], room.access, number)
                _timed(times[room.many]["fault"], room.fault, number)
        for number in range(rounds):
            for room in rooms:
                for way, act in zip(WAYS[2:4], (room.fault, room.raw), strict=True):
                    room.cold()
                    _timed(times[room.many][way], act, number)
        for number in range(rounds):  # apart: what it reads ahead others would wait for
            for room in rooms:
                room.cold()
                _timed(times[room.many][WAYS[4]], room.mapped, number)
        for room in rooms:
            room.close()
        writer.close()
    return times


def _synced(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def recalled(rounds: int) -> Times:
    """The whole of an agent's `memory.recall` by id: its intent and its answer in the journal, and a note of who was
    told, are on the disk before the agent hears of it."""

    async def act() -> Times:
        times = Times([], [])
        with tempfile.TemporaryDirectory(prefix="akb-") as folder:
            async with test_memory_by_route.world(Path(folder), {}) as there:
                said = [
                    await there.call("remember", content=TEXT.format(n=number)) for number in range(rounds)
                ]
                for one in said:
                    begun = time.perf_counter()
                    await there.call("recall", ids=[one["id"]])
                    times.wall.append(time.perf_counter() - begun)
        return times

    return asyncio.run(act())


def weight() -> float:
    """Bytes of memory that 1,000 pages of a window take, in a process that has nothing else to do."""
    command = [sys.executable, "-m", "tests.bench.pages", "--weigh"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _timed(times: Times, act: Callable[[int], object], number: int) -> None:
    cpu, begun = time.thread_time(), time.perf_counter()
    act(number)
    times.wall.append(time.perf_counter() - begun)
    times.cpu.append(time.thread_time() - cpu)


def _slot(number: int, *, resident: bool) -> Slot:
    page = f"p{number:016x}"
    return Slot(
        page, "user", page.encode(), page.encode(), 120, 120, 0.5, number, page, 1.0, resident=resident
    )


def _windowed(many: int, every: int = 10) -> Window:
    """Every tenth page is in it."""
    return Window(tuple(_slot(number, resident=number % every == 0) for number in range(1, many + 1)))


def _filled(conn: Conn, many: int) -> keeping.Room:
    room = keeping.room(conn, f"m{many}", "a", "a")
    conn.execute("BEGIN")
    for number in range(1, many + 1):
        text = TEXT.format(n=number)
        page = keeping.fresh("user", text, 120, id=f"p{many:06x}{number:010x}")
        keeping.put(conn, room, replace(page, unit=page.id), LIMITS)
    conn.execute("COMMIT")
    return room


def _weigh() -> float:
    first = _windowed(1_000, 1)
    before = _resident()
    kept = [_windowed(1_000, 1) for _ in range(_WEIGHED)]
    assert window.size(kept[0]) == window.size(first)
    return (_resident() - before) / len(kept)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _micros(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--weigh", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.weigh:
        print(_weigh())
        return
    print(f"| pages | {' | '.join(f'{way}, median | p95' for way in WAYS)} | CPU of a fault, p95 |")
    print("|" + "---|" * (2 * len(WAYS) + 2))
    for many, ways in measured(given.rounds).items():
        cells = [f"{_micros(times.median)} | {_micros(times.p95)}" for times in ways.values()]
        print(f"| {many:,} | {' | '.join(cells)} | {_micros(ways['fault'].cpu_p95)} |")
    told = recalled(given.rounds)
    print(f"\nmemory.recall by id, as an agent calls it: {_micros(told.median)}, p95 {_micros(told.p95)}")
    print(f"1,000 pages of a window take {weight() / 1024:,.0f} KiB (RSS of a process of its own)")


if __name__ == "__main__":
    main()
