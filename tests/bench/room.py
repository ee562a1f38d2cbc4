"""A machine too small for all: how soon who has priority gets a place, how evenly equals share, how many pass.

    python -m tests.bench.room [--rounds 30] [--seconds 10] [--short 200]

Moments are CLOCK_MONOTONIC, one for the whole machine: what an agent prints as its first or last act, and when the
kernel's freezer says that a group stands still, looked at without a pause.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from agentk.api import kinds
from agentk.client.client import Client, Selection
from tests.bench import daemons

CLOCK = "import time; print(time.clock_gettime(time.CLOCK_MONOTONIC), flush=True)"
PYTHON = "/usr/bin/python3"
SPIN = ["/usr/bin/taskset", "-c", "0", "/bin/sh", "-c", "while :; do :; done"]
LEFT_ALONE_SECONDS = 1.2  # who has just begun to run is not frozen
SLICE_SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--short", type=int, default=200)
    asked = parser.parse_args()
    one_place = {"AGENTK_MAX_AGENTS": "1"}
    with daemons.running(one_place) as client:
        preempting(client, asked.rounds)
    with daemons.running(one_place) as client:
        waiting(client, asked.rounds)
    with daemons.running() as client:
        shares(client, "4 of weight 100 on one CPU", [100] * 4, asked.seconds)
        shares(client, "weights 100, 100, 200, 400 on one CPU", [100, 100, 200, 400], asked.seconds)
    with daemons.running(one_place | {"AGENTK_TIME_SLICE": f"{SLICE_SECONDS:g}s"}) as client:
        shares(client, "3 on one place by slices of 1 s", [100] * 3, 3 * asked.seconds)
    with daemons.running() as client:
        short(client, asked.short)


def preempting(client: Client, rounds: int) -> None:
    frozen, first, thawed = list[float](), list[float](), list[float]()
    put(client, "low", SPIN)
    group = freezer(running(client, "low"))
    for number in range(rounds):
        time.sleep(LEFT_ALONE_SECONDS)
        begin = now()
        put(client, f"high-{number}", [PYTHON, "-c", f"{CLOCK}; {CLOCK}"], priority=9)
        frozen.append(when(lambda: group() == "FROZEN") - begin)
        back = when(lambda: group() == "THAWED")
        began, ended = printed(client, f"high-{number}")
        first.append(began - begin)
        thawed.append(back - ended)
    tell("request → the low one stands still", frozen)
    tell("request → first instruction of the high one", first)
    tell("last instruction of the high one → the low one goes on", thawed)


def waiting(client: Client, rounds: int) -> None:
    """Each has the only place, and ends; the next is ready all the while."""
    names = [f"next-{number}" for number in range(rounds)]
    for name in names:
        put(client, name, [PYTHON, "-c", f"{CLOCK}; time.sleep(0.2); {CLOCK}"])
    spans = sorted(printed(client, name) for name in names)
    tell(
        "place is free → first instruction of who waits", [b[0] - a[1] for a, b in itertools.pairwise(spans)]
    )


def shares(client: Client, what: str, weights: list[int], seconds: float) -> None:
    names = [f"hog-{number}" for number in range(len(weights))]
    for name, weight in zip(names, weights, strict=True):
        limits = {"cpu": "2", "memory": "64Mi", "pids": 16, "ephemeral-storage": "1Mi"}
        put(client, name, SPIN, resources={"weight": weight, "limits": limits})
    for name in names:
        daemons.until(client, name, lambda status: bool(status.get("boxID")))
    before = burnt(client, names)
    time.sleep(seconds)
    used = [after - was for after, was in zip(burnt(client, names), before, strict=True)]
    fair = [sum(used) * weight / sum(weights) for weight in weights]
    off = [abs(mine - due) / due for mine, due in zip(used, fair, strict=True)]
    told = " ".join(f"{mine / sum(used):.1%}" for mine in used)
    print(f"{what}: {told}; off by at most {max(off):.1%} in {seconds:g} s", flush=True)
    for name in names:
        client.delete(kinds.AGENT, "default", name)
    for name in names:
        gone(client, name)


def short(client: Client, count: int) -> None:
    names = [f"short-{number}" for number in range(count)]
    begin = now()
    for name in names:
        put(client, name, ["/bin/true"])
    for name in names:
        daemons.until(client, name, lambda status: status.get("phase") == "Succeeded")
    seconds = now() - begin
    print(f"short agents: {count} in {seconds:.1f} s, {count / seconds * 3600:,.0f} an hour", flush=True)


# what they share


def put(client: Client, name: str, command: list[str], **spec: Any) -> None:
    client.apply(kinds.AGENT, "default", daemons.agent(name, command, **spec))


def running(client: Client, name: str) -> daemons.Json:
    return daemons.until(client, name, lambda status: status.get("phase") == "Running")


def printed(client: Client, name: str) -> tuple[float, float]:
    done = daemons.until(client, name, lambda status: status.get("phase") in ("Succeeded", "Failed"))
    # CRI: TIME STREAM TAG TEXT; a line that came in two pieces has an empty end.
    texts = [line.split(" ", 3)[3] for line in Path(done["logPath"]).read_text().splitlines()]
    first, last = (float(text) for text in texts if text)
    return first, last


def burnt(client: Client, names: Iterable[str]) -> list[int]:
    paths = (kinds.AGENT.path("default", name, "counters") for name in names)
    return [client.request("GET", path)["counters"]["cpuUsec"] for path in paths]


def gone(client: Client, name: str) -> None:
    while any(
        one["metadata"]["name"] == name for one in client.list(Selection(kinds.AGENT, "default")).items
    ):
        time.sleep(0.01)


def freezer(status: Mapping[str, Any]) -> Callable[[], str]:
    """What the kernel says of the group of a box."""
    uid = str(status["boxID"]).rpartition("-")[0]
    top = Path("/sys/fs/cgroup")
    v1 = next(iter(top.glob(f"freezer/agentk-*/default/{uid}/box*/freezer.state")), None)
    if v1 is None:
        v1 = next(iter(top.glob(f"freezer/agentk-*/default/{uid}/box*/*/freezer.state")), None)
    if v1 is not None:
        return lambda: v1.read_text().strip()
    v2 = next(path for path in top.rglob("cgroup.events") if uid in str(path) and "box" in path.parent.name)
    return lambda: "FROZEN" if "frozen 1" in v2.read_text() else "THAWED"


def when(true: Callable[[], bool]) -> float:
    while not true():
        pass
    return now()


def now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def tell(what: str, took: list[float]) -> None:
    middle, high = statistics.median(took), sorted(took)[int(len(took) * 0.95)]
    print(f"{what}: p50 {middle * 1e3:.1f} ms, p95 {high * 1e3:.1f} ms of {len(took)}", flush=True)


if __name__ == "__main__":
    main()
