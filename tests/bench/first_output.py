"""From apply to an agent's first instruction, beside raw nsjail with Python and a plain subprocess.

    python -m tests.bench.first_output [--rounds 30]

All three run the same interpreter and print CLOCK_MONOTONIC, which is one for the whole machine, as their first act;
what is told is that minus the moment before the request. They take turns, one round after the other.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from agentk.api import kinds
from agentk.client.client import Client
from agentk.runtime import finding
from tests.bench import daemons

PROGRAM = "import time; print(time.clock_gettime(time.CLOCK_MONOTONIC), flush=True)"
PYTHON = "/usr/bin/python3"
# The least that gives a jail: the same namespaces, the host's /usr, no seccomp, no limits.
RAW = [
    "-Mo",
    "--really_quiet",
    "-u",
    "1000:1900000000:1",
    "-g",
    "1000:1900000000:1",
    "-R",
    "/usr",
    "-T",
    "/tmp",
]
RAW += ["-s", "usr/bin:/bin", "-s", "usr/lib:/lib", "-s", "usr/lib64:/lib64", "--rlimit_as", "inf", "-D", "/"]
RAW += ["--nice_level", "0"]  # nsjail's own is 19: beside other work that would measure the scheduler


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    nsjail = finding.nsjail()
    if nsjail is None:
        sys.exit("there is no nsjail here")
    with daemons.running() as client:
        ways: dict[str, Callable[[int], float]] = {
            "plain subprocess": lambda _: spawned([PYTHON, "-c", PROGRAM]),
            "raw nsjail": lambda _: spawned([str(nsjail), *RAW, "--", PYTHON, "-c", PROGRAM]),
            "agentk apply": lambda number: applied(client, number),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 2):
            for name, way in ways.items():
                seconds = way(number)
                if number >= 2:  # the first ones warm caches
                    took[name].append(seconds)
    base = statistics.median(took["raw nsjail"])
    print(f"{'way':<18}{'median ms':>10}{'p95 ms':>9}{'ratio to raw nsjail':>21}")
    for name, seconds in took.items():
        middle, high = statistics.median(seconds), sorted(seconds)[int(len(seconds) * 0.95)]
        print(f"{name:<18}{middle * 1e3:>10.1f}{high * 1e3:>9.1f}{middle / base:>20.2f}x")


def spawned(command: list[str]) -> float:
    begin = time.monotonic()
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout) - begin


def applied(client: Client, number: int) -> float:
    name = f"first-{number}"
    obj = daemons.agent(name, ["/usr/bin/python3", "-c", PROGRAM])
    begin = time.monotonic()
    client.apply(kinds.AGENT, "default", obj)
    done = daemons.until(client, name, lambda status: status.get("phase") in ("Succeeded", "Failed"))
    # CRI: TIME STREAM TAG TEXT; the end of the line may have come apart
    text = Path(done["logPath"]).read_text().split()[3]
    client.delete(kinds.AGENT, "default", name)
    return float(text) - begin


if __name__ == "__main__":
    main()
