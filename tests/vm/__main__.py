"""`python -m tests.vm [options] -- PYTEST_ARGS...`: a pytest selection in a Debian 12 with systemd and cgroup v2.

Exit code: 0 all ran and passed; 1 a suite failed, or what must run did not; 2 no machine can run here; 3 the machine
itself failed (it never came up, hung, or left no results).
"""

import argparse
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.vm import host, image, machine, outcomes, selection


def main() -> int:
    args = parser().parse_args()
    # Ended politely, the `finally` clauses still run and no qemu stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if reason := host.missing():
        print(f"vm: cannot run here: {reason}", file=sys.stderr)
        return 2
    try:
        base = image.ensure(args.rebuild)
    except subprocess.CalledProcessError as error:
        print(f"vm: the image could not be built: {error}", file=sys.stderr)
        return 3
    if args.build:
        return 0
    with machine.folder(args.keep) as place:
        setup = machine.Setup(base, place, args.accel, args.keep)
        if args.keep:
            print(f"vm: disks, console and results stay in {place}", flush=True)
        if args.shell:
            machine.shell(setup)
            return 0
        suites = outcomes.SUITES if args.who == "both" else (args.who,)
        must_run = args.must_run + ([] if args.pytest else selection.must_run())
        life = machine.live(setup, suites, args.pytest or selection.arguments(), args.timeout, hear)
        if args.results:
            shutil.copytree(place / "left", args.results, dirs_exist_ok=True)
        return close(life, place, must_run)


def parser() -> argparse.ArgumentParser:
    told = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__)
    told.add_argument(
        "--as", dest="who", choices=("root", "user", "both"), default="both", help="default: both"
    )
    told.add_argument(
        "--timeout", type=float, default=2400, metavar="S", help="seconds from power-on; default 2400"
    )
    told.add_argument("--must-run", action="append", default=[], metavar="[root:|user:]PREFIX")
    told.add_argument(
        "--results", type=Path, metavar="DIR", help="copy junit files, exit codes and journal here"
    )
    told.add_argument(
        "--keep", action="store_true", help="keep the guest's disks and its console, and say where"
    )
    told.add_argument("--shell", action="store_true", help="a root shell in the guest instead of tests")
    told.add_argument("--build", action="store_true", help="only build the image")
    told.add_argument(
        "--rebuild", action="store_true", help="build the image anew, for newer Debian packages"
    )
    told.add_argument("--accel", default="tcg", help="qemu's -accel; kvm is fast where it works; default tcg")
    told.add_argument(
        "pytest", nargs="*", metavar="PYTEST_ARGS", help="after --; default: what selection.py names"
    )
    return told


def hear(line: str) -> None:
    """The guest's lines: `root| text` from a suite, `@word values` about itself."""
    name, bar, text = line.partition("|")
    if line.startswith("@begin"):
        print(f"vm: pytest as {line.split()[1]}", flush=True)
    elif line.startswith("@again"):
        print(f"vm: once more, alone, what failed as {line.split()[1]}", flush=True)
    elif bar and name in outcomes.SUITES:
        print(f"{name} |{text}", flush=True)
    elif not line.startswith("@"):
        print(f"vm | {line}", flush=True)


def close(life: machine.Life, place: Path, must_run: list[str]) -> int:
    broken = life.trouble or any(suite.exit_code is None for suite in life.suites)
    if broken:
        for name in ("console", "qemu"):
            for line in (place / name).read_text(errors="replace").splitlines()[-60:]:
                print(f"{name} | {line.rstrip()}")
    missed = outcomes.complaints(life.suites, must_run)
    up = "never came up" if life.up_seconds is None else f"was up after {life.up_seconds:.1f} s"
    print(
        f"vm: the machine {up}; {life.seconds:.1f} s in all" + (f"; {life.trouble}" if life.trouble else "")
    )
    for line in [suite.line() for suite in life.suites] + missed:
        print(f"vm: {line}")
    if broken:
        return 3
    return 0 if all(suite.passed for suite in life.suites) and not missed else 1


if __name__ == "__main__":
    sys.exit(main())
