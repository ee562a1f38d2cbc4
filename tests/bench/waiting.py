"""Boxes and commands that waited, beside cold ones, raw nsjail with Python, and, where there is Podman, its boxes and
`podman exec`.

    python -m tests.bench.waiting [--rounds 40]

Every program is the same Python that prints CLOCK_MONOTONIC, which is one for the whole machine, as its first act;
told is that minus the moment before the request, and until the request was answered or the program had ended. All
ways take turns. What is made beforehand (a waiting box, a container) is made between the rounds and not counted.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from agentk.runtime import finding, jails
from tests.bench import first_output
from tests.runtime import launching, podmans

PROGRAM = first_output.PROGRAM
_CONFIG = """[engine]
cgroup_manager="cgroupfs"
events_logger="file"
[containers]
default_ulimits=["nofile=1024:1024","nproc=4096:4096"]
"""
_PAUSE_SECONDS = 0.25  # a Python that waits for the next command is made meanwhile
_BESIDE = "beside"
Took = tuple[float, float]  # to the program's first act, to the end of the request


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    nsjail = finding.nsjail()
    if nsjail is None:
        sys.exit("there is no nsjail here")
    raw = [str(nsjail), *first_output.RAW, "--", first_output.PYTHON, "-c", PROGRAM]
    with launching.place() as there, container() as podman:
        there.launch()
        took = asyncio.run(measure(there, raw, podman, rounds))
    tell(took)


async def measure(
    there: launching.Place, raw: list[str], podman: list[str], rounds: int
) -> dict[str, list[Took]]:
    async with launching.connected(there) as runtime:
        await runtime.start(there.make("sleep", "100000", uid=_BESIDE))
        ways: dict[str, Callable[[int], Awaitable[Took]]] = {
            "raw nsjail and Python": lambda _: spawned(raw),
            "cold box": lambda number: started(there, runtime, number),
            "claimed box": lambda number: claimed(there, runtime, number),
            "cold command": lambda _: commanded(runtime, "/usr/bin/python3"),
            "warm command": lambda _: commanded(runtime, "python3"),
        }
        if not podmans.why_no_podman():
            ways["cold Podman box"] = lambda number: started(there, runtime, number, "podman")
            ways["claimed Podman box"] = lambda number: claimed(there, runtime, number, "podman")
        if podman:
            ways["podman exec"] = lambda _: spawned(podman)
        took: dict[str, list[Took]] = {name: [] for name in ways}
        for number in range(rounds + 2):
            for name, way in ways.items():
                found = await way(number)
                if number >= 2:  # the first ones warm caches
                    took[name].append(found)
    return took


async def spawned(command: list[str]) -> Took:
    begin = time.monotonic()
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout  # noqa: ASYNC221
    return float(said) - begin, time.monotonic() - begin


async def started(there: launching.Place, runtime: jails.Jails, number: int, kind: str = "nsjail") -> Took:
    wanted = there.python(PROGRAM, uid=f"cold-{kind}-{number}", runtime=kind)
    begin = time.monotonic()
    await runtime.start(wanted)
    answered = time.monotonic() - begin
    return await first_act(there, runtime, wanted.uid, begin), answered


async def claimed(there: launching.Place, runtime: jails.Jails, number: int, kind: str = "nsjail") -> Took:
    made = await runtime.start(there.make(uid=f"waits-{kind}-{number}", waits=True, runtime=kind))
    await asyncio.sleep(_PAUSE_SECONDS)
    wanted = there.python(PROGRAM, uid=f"warm-{kind}-{number}", runtime=kind)
    begin = time.monotonic()
    await runtime.claim(made.id, wanted)
    answered = time.monotonic() - begin
    return await first_act(there, runtime, wanted.uid, begin), answered


async def first_act(there: launching.Place, runtime: jails.Jails, uid: str, begin: float) -> float:
    await launching.ended(runtime, f"{uid}-1")
    found = float(there.log(uid=uid)[0]) - begin
    await runtime.release("default", uid)
    return found


async def commanded(runtime: jails.Jails, python: str) -> Took:
    await asyncio.sleep(_PAUSE_SECONDS)
    begin = time.monotonic()
    result = await runtime.exec(f"{_BESIDE}-1", [python, "-c", PROGRAM], 60)
    return float(result.stdout) - begin, time.monotonic() - begin


@contextlib.contextmanager
def container() -> Iterator[list[str]]:
    """The command of the same Python in a container that runs; [] where there is no Podman."""
    podman = shutil.which("podman")
    if podman is None or os.geteuid() != 0:
        yield []
        return
    with tempfile.TemporaryDirectory(prefix="agentk-bench-") as folder:
        root = Path(folder) / "root"
        for name in ("usr", "tmp", "proc", "sys", "dev", "etc", "run"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        config = Path(folder) / "containers.conf"
        runtime = 'runtime="runc"\n' if shutil.which("runc") else ""
        config.write_text(_CONFIG.replace("[engine]\n", f"[engine]\n{runtime}"))
        os.environ["CONTAINERS_CONF"] = str(config)
        run = [podman, "run", "--detach", "--network", "none", "--volume", "/usr:/usr:ro"]
        run += ["--cgroups", "enabled", "--rootfs", str(root), "/usr/bin/sleep", "100000"]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"no podman exec: {done.stderr.strip()[-300:]}", file=sys.stderr)
            yield []
            return
        name = done.stdout.strip()
        try:
            yield [podman, "exec", name, first_output.PYTHON, "-c", PROGRAM]
        finally:
            subprocess.run([podman, "rm", "--force", "--time", "0", name], capture_output=True, check=False)


def tell(took: dict[str, list[Took]]) -> None:
    first = {name: sorted(found[0] for found in all_) for name, all_ in took.items()}
    whole = {name: sorted(found[1] for found in all_) for name, all_ in took.items()}
    base, base_whole = (statistics.median(of["raw nsjail and Python"]) for of in (first, whole))
    print(f"{'way':<24}{'first act ms':>14}{'p95':>8}{'to raw':>8}{'answered ms':>14}{'p95':>8}{'to raw':>8}")
    for name in took:
        line = f"{name:<24}"
        for times, of, width in ((first[name], base, 14), (whole[name], base_whole, 14)):
            middle, high = statistics.median(times), times[int(len(times) * 0.95)]
            line += f"{middle * 1e3:>{width}.1f}{high * 1e3:>8.1f}{middle / of:>7.2f}x"
        print(line)


if __name__ == "__main__":
    main()
