"""How soon who waits is let go on: from the moment that a place is free to the decision who has it.

    python -m tests.bench.scheduling [--rounds 500]

A place on the machine: one agent ends, and the ledger of all claims says which of those that wait may start. A turn on
a ModelRoute: one call ends, and the next in line goes on, by the loop that it waits on. What comes after the decision
(a start, or a thaw) is in `python -m tests.bench.room`, which needs jails.
"""

import argparse
import asyncio
import statistics
import time

from agentk.broker.turns import Settings, Turns
from agentk.control import admission
from agentk.control.claims import Amount, Claim, State
from agentk.control.sharing import Node

WAITING = (10, 100, 1_000)
_RUNNING = 8


def places(waiting: int, rounds: int) -> list[float]:
    """Seconds until it is known who has the place of one that ended."""
    ledger = admission.Ledger(Node(10_000, _RUNNING), time.monotonic)
    for number in range(_RUNNING + waiting):
        ledger.note(_claim(number, "holds" if number < _RUNNING else "waits"))
    assert ledger.admitted() == []
    seconds, running = [], list(range(_RUNNING))
    for number in range(rounds):
        ended = running.pop(0)
        begun = time.perf_counter()
        ledger.note(_claim(ended, "rests"))
        [key] = ledger.admitted()
        seconds.append(time.perf_counter() - begun)
        running.append(int(key[1]))
        ledger.note(_claim(running[-1], "holds"))
        ledger.forget(_claim(ended).key)
        ledger.note(_claim(_RUNNING + waiting + number, "waits"))
    return seconds


async def turns(waiting: int, rounds: int) -> list[float]:
    """Seconds from the end of a call to the first moment of the next one in line."""
    line = Turns(Settings(max_concurrent=1, max_waiting=2 * waiting + 2))
    seconds, freed = list[float](), 0.0

    async def caller(number: int) -> None:
        nonlocal freed
        while len(seconds) < rounds:
            async with line.turn(f"u{number}", cost_tokens=100) as turn:
                now = time.perf_counter()
                if freed:
                    seconds.append(now - freed)
                await asyncio.sleep(0)  # a call takes a while: the others come into line
                freed = 0.0 if sum(line.waiting().values()) < waiting else time.perf_counter()
                turn.charge(100)

    await asyncio.gather(*(caller(number) for number in range(waiting + 1)))
    return seconds[:rounds]


def _claim(number: int, state: State = "rests") -> Claim:
    made = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"
    return Claim(("bench", str(number)), 0, made, Amount(1, 100, 1 << 20), state)


def told(seconds: list[float]) -> str:
    p95 = statistics.quantiles(seconds, n=20)[-1]
    return f"{statistics.median(seconds) * 1e6:,.0f} µs | {p95 * 1e6:,.0f} µs"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=500)
    rounds = parser.parse_args().rounds
    print(
        "| that wait | a place is free → who has it, median | p95 | a turn is free → the next, median | p95 |"
    )
    print("|---|---|---|---|---|")
    for waiting in WAITING:
        print(
            f"| {waiting:,} | {told(places(waiting, rounds))} | {told(asyncio.run(turns(waiting, rounds)))} |"
        )


if __name__ == "__main__":
    main()
