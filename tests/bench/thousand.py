"""Many agents: objects acknowledged, real jails started, what the daemon weighs and what idling costs.

    python -m tests.bench.thousand [--objects 1000] [--boxes N] [--idle 10]

Boxes are `sleep` in real jails, as many as a fifth of the free memory allows. Beside them raw nsjail starts the same
number of the same jails, as many at once as there are CPUs.
"""

import argparse
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agentk.api import kinds
from agentk.client.client import Client, Selection
from agentk.runtime import probing
from tests.bench import daemons
from tests.bench.first_output import RAW

_BOX_MIB = 8  # nsjail, its guest and their page tables
_TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--boxes", type=int, default=0)
    parser.add_argument("--idle", type=float, default=10)
    chosen = parser.parse_args()
    boxes = chosen.boxes or min(1000, free_mib() // 5 // _BOX_MIB)
    with daemons.kept() as (_, client):
        begin = time.monotonic()
        for number in range(chosen.objects):
            client.apply(kinds.AGENT, "default", daemons.agent(f"object-{number}", ["true"], suspend=True))
        print(f"{chosen.objects} objects acknowledged in {time.monotonic() - begin:.2f} s")
        rate = started(client, boxes)
        raw = raw_rate(min(boxes, 200))
        print(f"{boxes} boxes: {rate:.0f} started a second; raw nsjail {raw:.0f}; ratio {rate / raw:.2f}x")
        pids = {name: int(pid) for name, pid in processes(client).items()}
        before = {name: ticks(pid) for name, pid in pids.items()}
        time.sleep(chosen.idle)
        for name, pid in pids.items():
            busy = (ticks(pid) - before[name]) / _TICK / chosen.idle * 100
            print(f"{name}: {rss_mib(pid)} MiB, {busy:.1f} % of one CPU while {boxes} boxes idle")


def started(client: Client, count: int) -> float:
    """Boxes a second, from the first apply until the last one runs."""
    begin = time.monotonic()
    for number in range(count):
        client.apply(kinds.AGENT, "default", daemons.agent(f"box-{number}", ["sleep", "100000"]))
    while True:
        items = client.list(Selection(kinds.AGENT, "default", fields="status.phase=Running")).items
        if len(items) >= count:
            return count / (time.monotonic() - begin)
        time.sleep(0.1)


def raw_rate(count: int) -> float:
    nsjail = str(probing.find_nsjail())

    def one(_: int) -> None:
        subprocess.run([nsjail, *RAW, "--", "/bin/true"], check=True, capture_output=True)

    begin = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, range(count)))
    return count / (time.monotonic() - begin)


def processes(client: Client) -> dict[str, int]:
    daemon = int(client.request("GET", "/agentk/v1/status")["pid"])
    keeper = int(Path(f"/proc/{daemon}/stat").read_text().rsplit(")", 1)[1].split()[1])
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    launcher = next(int(pid) for pid in children if int(pid) != daemon)
    return {"daemon": daemon, "launcher": launcher, "keeper": keeper}


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def rss_mib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20


def free_mib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    return 1024


if __name__ == "__main__":
    main()
