"""Journalled calls a second at full durability: `state.put` through the whole gate, beside a bare writer thread.

    python -m tests.bench.gate_journal [--seconds 2] [--rounds 3]

Both commit to the same disk with synchronous=FULL and group commit, taking turns. The bare thread inserts one row of
as many bytes; the gate parses, judges, reserves, writes the value and its chained record in one transaction, settles.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agentk.broker import gate, policy
from agentk.broker.budgets import Budgets
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.calling import state
from agentk.broker.words import Call, Guest
from agentk.store.journal import Journal
from agentk.store.journal_anchor import StateAnchor
from tests.bench.store_writes import Bare

CALLERS = (1, 32)
GUEST = Guest("u", "default", "a", 1, "u-1", "u-1")
VALUE = "v" * 200


async def unheard(item: Any) -> None:
    return


def built(folder: Path) -> tuple[gate.Gate, Journal]:
    anchor: list[str] = []
    journal = Journal.open(folder, StateAnchor(lambda: anchor[-1] if anchor else None, anchor.append))
    budgets = Budgets()
    budgets.put("u", Owner("agent", "a"), Limits(), 0.0)
    rules = policy.read("baseline", {"level": "baseline"})
    none: Any = None
    rooms = gate.Rooms(
        state.methods(journal=journal), lambda guest: rules, journal, budgets, lambda guest: ("u",), none
    )
    return gate.Gate(rooms), journal


async def measure(write: Callable[[int], Awaitable[object]], callers: int, seconds: float) -> float:
    until = time.perf_counter() + seconds

    async def loop(number: int) -> int:
        done = 0
        while time.perf_counter() < until:
            await write(number)
            done += 1
        return done

    began = time.perf_counter()
    counts = await asyncio.gather(*(loop(number) for number in range(callers)))
    return sum(counts) / (time.perf_counter() - began)


async def compare(callers: int, seconds: float, rounds: int) -> tuple[float, float, float]:
    """Bare and journalled writes a second, and the median of their ratios."""
    with tempfile.TemporaryDirectory(prefix="agentk-bench-", dir=".") as folder:
        place = Path(folder)
        made, journal = built(place)
        bare = Bare(place / "bare.db")
        rates = []
        try:

            async def put(number: int) -> object:
                params = {"key": f"k{number}", "value": VALUE}
                return await made.call(Call(GUEST, "state.put", params), unheard)

            for _ in range(rounds):
                plain = await measure(lambda number: bare.write(VALUE * 3), callers, seconds)
                rates.append((plain, await measure(put, callers, seconds)))
        finally:
            bare.close()
            journal.close()
    ratio = statistics.median(ours / plain for plain, ours in rates)
    return statistics.median(a for a, _ in rates), statistics.median(b for _, b in rates), ratio


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print("| callers | bare writer | journalled calls | |\n|---|---|---|---|")
    for callers in CALLERS:
        plain, ours, ratio = asyncio.run(compare(callers, asked.seconds, asked.rounds))
        print(f"| {callers} | {plain:,.0f}/s | {ours:,.0f}/s | {ratio:.2f}× |", flush=True)


if __name__ == "__main__":
    main()
