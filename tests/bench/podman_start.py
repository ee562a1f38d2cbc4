"""Boxes of Podman, beside `podman run` of the same Python: until each stands, and until its program's first act.

    python -m tests.bench.podman_start [--rounds 20]

`podman run --detach` has the same namespaces and a read-only tree with the host's /usr, and none of a box's limits,
filter, door, workspace or user namespace of its own. Both take turns; what is removed is not counted.
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
from collections.abc import Iterator
from pathlib import Path

from agentk.runtime import jails
from agentk.runtime.podman import service
from tests.bench import first_output
from tests.runtime import launching

Took = tuple[float, float]  # until it stands, until its program's first act


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    if shutil.which("podman") is None or not service.oci_runtimes():
        sys.exit("there is no Podman here")
    with launching.place() as there, tree() as root:
        there.launch()
        took = asyncio.run(measure(there, root, rounds))
    base = took["podman run"]
    print(f"{'way':<12}{'stands ms':>10}{'p95':>8}{'ratio':>8}{'first act ms':>14}{'p95':>8}{'ratio':>8}")
    for name, figures in took.items():
        print(f"{name:<12}" + "".join(column(figures, base, which) for which in (0, 1)))


def column(figures: list[Took], base: list[Took], which: int) -> str:
    """Median, p95 and what the median is to that of `podman run`."""
    seconds = sorted(one[which] for one in figures)
    middle, high = statistics.median(seconds), seconds[int(len(seconds) * 0.95)]
    ratio = middle / statistics.median(one[which] for one in base)
    return f"{middle * 1e3:>{(10, 14)[which]}.1f}{high * 1e3:>8.1f}{ratio:>7.2f}x"


@contextlib.contextmanager
def tree() -> Iterator[Path]:
    """The least that Python needs, and settings with which Podman works where root may not raise limits."""
    folder = Path(tempfile.mkdtemp(prefix="ak-root-"))
    for name in ("usr", "proc", "sys", "dev", "run", "etc", "tmp"):
        (folder / name).mkdir()
    for name in ("bin", "lib", "lib64"):
        (folder / name).symlink_to(f"usr/{name}")
    conf = folder.with_suffix(".conf")
    limits = '[containers]\ndefault_ulimits=["nofile=1024:1024","nproc=4096:4096"]\n'
    conf.write_text(service.settings(service.oci_runtimes(), {}) + limits)
    os.environ["CONTAINERS_CONF"] = str(conf)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        conf.unlink()


async def measure(there: launching.Place, root: Path, rounds: int) -> dict[str, list[Took]]:
    took: dict[str, list[Took]] = {"podman run": [], "podman box": [], "nsjail box": []}
    async with launching.connected(there) as runtime:
        for number in range(rounds + 2):
            figures = {"podman run": await asyncio.to_thread(run, root, number)}
            for kind in ("podman", "nsjail"):
                figures[f"{kind} box"] = await boxed(there, runtime, kind, number + 1)
            if number >= 2:  # the first ones start services and warm caches
                for name, figure in figures.items():
                    took[name].append(figure)
    return took


def run(root: Path, number: int) -> Took:
    name = f"ak-bench-{os.getpid()}-{number}"
    log = root.parent / f"{name}.log"
    command = [
        "podman",
        "run",
        "--detach",
        f"--name={name}",
        "--network=none",
        "--read-only",
        "--cap-drop=all",
    ]
    command += ["--log-driver=k8s-file", f"--log-opt=path={log}", "-v", "/usr:/usr:ro", "--rootfs", str(root)]
    try:
        begin = time.monotonic()
        subprocess.run(
            [*command, first_output.PYTHON, "-c", first_output.PROGRAM], check=True, capture_output=True
        )
        stands = time.monotonic() - begin
        while not (log.is_file() and len(log.read_text().split()) > 3):
            time.sleep(0.001)
        acted = float(log.read_text().split()[3]) - begin
    finally:
        subprocess.run(["podman", "rm", "--force", name], check=True, capture_output=True)
        log.unlink(missing_ok=True)
    return stands, acted


async def boxed(there: launching.Place, runtime: jails.Jails, kind: str, attempt: int) -> Took:
    uid = f"bench-{kind}"
    wanted = there.make("python", "-c", first_output.PROGRAM, runtime=kind, uid=uid, attempt=attempt)
    begin = time.monotonic()
    seen = await runtime.start(wanted)
    stands = time.monotonic() - begin
    await launching.ended(runtime, seen.id)
    acted = float(there.log(attempt, uid)[0]) - begin
    await runtime.remove(seen.id)
    return stands, acted


if __name__ == "__main__":
    main()
