"""What `agentk audit` asks of a journal of many records, beside plain SQL on the same rows.

    python -m tests.bench.audit_query [--records 100000] [--rounds 200]

A hundred agents, each with as many records, all mixed. Asked of one of them: its newest hundred calls as the API tells
them, a page from the middle of them, and what is unknown. Plain SQL reads the same hundred rows with their bodies:
from the journal, where an agent has no index, and from a copy that has one. All take turns.
"""

import argparse
import asyncio
import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from agentk.daemon import answers, audits
from agentk.store import journal_calls as telling
from agentk.store import journal_words as words
from agentk.store.journal import Journal
from agentk.store.journal_anchor import StateAnchor

AGENTS, LIMIT = 100, 100
_AT_ONCE = 64
_RAW = (
    "SELECT r.*, a.data, b.data FROM records AS r LEFT JOIN bodies AS a ON a.id = r.asked"
    " LEFT JOIN bodies AS b ON b.id = r.answer WHERE r.uid = ? ORDER BY r.id DESC LIMIT ?"
)
Way = Callable[[str], object]


async def filled(folder: Path, records: int) -> float:
    """Seconds a record."""
    anchor: list[str] = []
    journal = Journal.open(folder, StateAnchor(lambda: anchor[-1] if anchor else None, anchor.append))
    begun = time.perf_counter()
    for first in range(0, records, _AT_ONCE):
        some = range(first, min(first + _AT_ONCE, records))
        await asyncio.gather(*(journal.record(*_call(number)) for number in some))
    took = time.perf_counter() - begun
    journal.close()
    return took / records


def measured(records: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of every question, by way."""
    die = random.Random(7)
    with tempfile.TemporaryDirectory(prefix="akb-") as place:
        folder = Path(place)
        asyncio.run(filled(folder, records))
        shutil.copyfile(folder / "journal.db", folder / "indexed.db")
        with closing(sqlite3.connect(folder / "indexed.db")) as conn, conn:
            conn.execute("CREATE INDEX raw ON records (uid, id)")
        with (
            closing(sqlite3.connect(folder / "journal.db")) as ours,
            closing(sqlite3.connect(folder / "indexed.db")) as indexed,
        ):
            middle = {f"u{n}": _continued(ours, f"u{n}", records // AGENTS // 2) for n in range(AGENTS)}
            ways: dict[str, Way] = {
                "newest hundred": lambda uid: _told(ours, telling.page(ours, uid, with_bodies=False)),
                "a hundred from the middle": lambda uid: _told(
                    ours, telling.page(ours, uid, cont=middle[uid], with_bodies=False)
                ),
                "what is unknown": lambda uid: telling.unknown(ours, uid, LIMIT, False),
                "plain SQL, no index": lambda uid: ours.execute(_RAW, (uid, LIMIT)).fetchall(),
                "plain SQL, an index": lambda uid: indexed.execute(_RAW, (uid, LIMIT)).fetchall(),
            }
            took: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(rounds):
                for way, ask in ways.items():
                    uid = f"u{die.randrange(AGENTS)}"
                    begun = time.perf_counter()
                    ask(uid)
                    took[way].append(time.perf_counter() - begun)
    return took


def _call(number: int) -> tuple[words.Intent, words.Outcome]:
    agent = f"u{number % AGENTS}"
    asked = f'{{"key": "k{number}", "value": "{"v" * (number % 200)}"}}'.encode()
    intent = words.Intent("default", f"a{agent}", agent, 1, f"{agent}-1", "state.put", asked)
    return intent, words.Outcome("ok", b"{}", {"calls": 1})


def _told(conn: sqlite3.Connection, page: telling.Page) -> bytes:
    """As `agentk audit` is answered."""
    items: list[dict[str, Any]] = [
        audits.as_json(one, False) | {"about": audits.about(conn, one), "why": audits.why(conn, one)}
        for one in page.calls
    ]
    assert len(items) == LIMIT
    return answers.encoded({"kind": "CallList", "items": items})


def _continued(conn: sqlite3.Connection, uid: str, after: int) -> str:
    cont = ""
    while after > 0:
        page = telling.page(conn, uid, cont=cont, limit=min(after, 1000), with_bodies=False)
        cont, after = page.cont, after - len(page.calls)
    return cont


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args()
    print(f"{given.records:,} records of {AGENTS} agents\n")
    print("| what is asked | median | p95 |\n|---|---|---|")
    for way, took in measured(given.records, given.rounds).items():
        p95 = statistics.quantiles(took, n=20)[-1]
        print(f"| {way} | {statistics.median(took) * 1e3:.2f} ms | {p95 * 1e3:.2f} ms |")


if __name__ == "__main__":
    main()
