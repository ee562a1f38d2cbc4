"""A page that is in the window, a page that comes back from the disk, and what pages of a window weigh in memory.

    python -m tests.bench.pages [--rounds 300]

Access: a page of a window is looked up and told that it was of use. Fault: a page that left is read from memory.db,
in a room of so many pages, byte for byte, and put back into a window of 1,000.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agentk.memory import database, driver, keeping, recalling, window
from agentk.memory.driver import Conn
from agentk.memory.window import Slot, Window

SIZES = (1_000, 10_000, 100_000)
LIMITS = keeping.Limits(10**7, 2**40, 10**7, 2**40)
TEXT = "Item {n} is of some length, as messages of people are, and has a few words of its own: {n}. " * 4


def slot(number: int, *, resident: bool) -> Slot:
    page = f"p{number:016x}"
    return Slot(
        page, "user", page.encode(), page.encode(), 120, 120, 0.5, number, page, 1.0, resident=resident
    )


def windowed(many: int) -> Window:
    """Every tenth page is in it."""
    return Window(tuple(slot(number, resident=number % 10 == 0) for number in range(1, many + 1)))


def filled(conn: Conn, many: int) -> keeping.Room:
    room = keeping.room(conn, f"m{many}", "a", "a")
    conn.execute("BEGIN")
    for number in range(1, many + 1):
        text = TEXT.format(n=number)
        page = keeping.fresh("user", text, 120, id=f"p{many:06x}{number:010x}")
        keeping.put(conn, room, replace(page, unit=page.id), LIMITS)
    conn.execute("COMMIT")
    return room


def measured(rounds: int, act: Callable[[int], object]) -> str:
    seconds = []
    for number in range(rounds):
        begun = time.perf_counter()
        act(number)
        seconds.append(time.perf_counter() - begun)
    p95 = statistics.quantiles(seconds, n=20)[-1]
    return f"{statistics.median(seconds) * 1e6:,.0f} µs | {p95 * 1e6:,.0f} µs"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300)
    rounds, die = parser.parse_args().rounds, random.Random(7)
    print("| pages | access, median | p95 | fault, median | p95 |")
    print("|---|---|---|---|---|")
    small = windowed(1_000)
    with tempfile.TemporaryDirectory() as folder:
        writer = database.open_file(Path(folder)).conn
        for many in SIZES:
            room, shown = filled(writer, many), windowed(many)
            reader = driver.connect(Path(folder) / database.DATABASE, reading=True)
            places = {one.id: one for one in shown.slots}

            def access(number: int, places: dict[str, Slot] = places) -> None:
                found = places[f"p{number % 1_000 + 1:016x}"]
                places[found.id] = replace(found, accesses=found.accesses + 1, used=float(number))

            def fault(
                number: int, many: int = many, room: keeping.Room = room, reader: Conn = reader
            ) -> None:
                [page] = keeping.get(reader, [room.id], [f"p{many:06x}{die.randrange(1, many + 1):010x}"])
                assert page.content
                recalling.brought(small, [f"p{number % 1_000 + 1:016x}"], 2.0)

            print(f"| {many:,} | {measured(rounds, access)} | {measured(rounds, fault)} |", flush=True)
            reader.close()
        writer.close()
    before = resident()
    kept = [windowed(1_000) for _ in range(50)]
    print(f"\nRSS of 1,000 pages of a window: {(resident() - before) / len(kept) / 1024:,.0f} KiB")
    assert window.size(kept[0])


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    main()
