"""What is claimed of kernels for agents that agentk was made to surpass, beside what is measured here, as one table.

    python -m tests.bench.promises [--rounds 200] [--vectors 10000x1536,100000x384]

Each line is measured by the bench that it names, on this machine, now. The claims are those projects' own words: what
was measured for them, on which machine, and with how much, they do not say.
"""

import argparse
import importlib
import importlib.util
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench import context, pages, scheduling

BUDGET, TURNS = 4_000, 500
_WAITING = (100, 1_000)


def used_and_cached() -> tuple[str, str]:
    told = context.run(context.Managed, BUDGET, TURNS, None, context.tokenizer("gpt-4o"))
    words = told["found"]["words"]
    found = f"{sum(hit for hit, _ in words)} of {len(words)}"
    about = f"{TURNS} turns within {BUDGET:,} tokens; {found} planted facts found by words"
    return f"{told['full']:.0%} ({about})", f"{told['prefix']:.0%} of what is sent is the prompt before"


def swapped_in(rounds: int) -> str:
    ways = pages.measured(rounds)[pages.SIZES[-1]]
    warm, cold = ways["fault"], ways["from the disk"]
    return (
        f"{_ms(warm.median)}, p95 {_ms(warm.p95)}; from a cold disk {_ms(cold.median)}, p95 {_ms(cold.p95)}"
        f" (among {pages.SIZES[-1]:,} pages)"
    )


def searched(size: str) -> str:
    if importlib.util.find_spec("numpy") is None:
        return "numpy is not installed here"
    memory_search = importlib.import_module("tests.bench.memory_search")
    many, dims = (int(part) for part in size.split("x"))
    with tempfile.TemporaryDirectory(prefix="akb-") as folder:
        took = memory_search.measured(Path(folder), many, dims, 20).took
    whole, raw = took["search by a question"], statistics.median(took["raw sqlite-vec"])
    ratio = statistics.median(whole) / raw
    return f"{_told(whole)}, {ratio:.2f}× raw sqlite-vec ({many:,} vectors of {dims}, and words)"


def checkpointed() -> str:
    """By the bench of checkpoints, which makes real ones."""
    if importlib.util.find_spec("tests.bench.checkpoints") is None:
        return "not measured here"
    told: str = importlib.import_module("tests.bench.checkpoints").promised()
    return told


def scheduled(rounds: int) -> str:
    told = [f"{_told(scheduling.places(many, rounds))} ({many:,} that wait)" for many in _WAITING]
    return "; ".join(told)


def _told(seconds: list[float]) -> str:
    return f"{_ms(statistics.median(seconds))}, p95 {_ms(statistics.quantiles(seconds, n=20)[-1])}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--vectors", default="10000x1536,100000x384")
    given = parser.parse_args()
    sizes: list[str] = given.vectors.split(",")
    used, cached = used_and_cached()
    lines: tuple[tuple[str, str, str, Callable[[], str]], ...] = (
        ("context used", "92 %", "context", lambda: used),
        ("prompt cache hits", "75 %", "context", lambda: cached),
        ("swap-in of a page", "45 ms", "pages", lambda: swapped_in(given.rounds)),
        ("search", "85 ms", "memory_search", lambda: "; ".join(map(searched, sizes))),
        ("checkpoint", "25 ms", "checkpoints", checkpointed),
        ("scheduling: a place is free → who has it", "3 ms", "scheduling", lambda: scheduled(given.rounds)),
    )
    print("| what | claimed | measured, median | by `python -m tests.bench.` |\n|---|---|---|---|")
    for what, claimed, bench, measure in lines:
        print(f"| {what} | {claimed} | {measure()} | `{bench}` |", flush=True)


if __name__ == "__main__":
    main()
