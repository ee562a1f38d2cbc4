"""What do the mounts of N other agents cost one jail? As root: `python tests/bench/mounts.py [N]`.

Held two ways: attached below a directory of the launcher's mount namespace, and as detached trees that are in no mount
table. Each figure is the median of paired rounds in one run, with N mounts against none.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from agentk.runtime import kernel, probing

ROUNDS = 60


def main(count: int) -> None:
    """Print one line a way of holding."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    with tempfile.TemporaryDirectory() as folder:
        print(f"{count} mounts            new mount namespace    nsjail /bin/true")
        report("none", folder)
        trees = [kernel.detached_mount("tmpfs", {"size": "64k"}, 0) for _ in range(count)]
        report("detached", folder)
        for tree in trees:
            os.close(tree)
        for number in range(count):
            point = Path(folder) / str(number)
            point.mkdir()
            kernel.mount("tmpfs", point, "tmpfs", 0, "size=64k")
        report("attached", folder)
        for number in range(count):
            kernel.umount(Path(folder) / str(number))


def report(name: str, folder: str) -> None:
    """Median milliseconds of both acts."""
    print(f"  {name:12} {timed(in_namespace):18.2f} ms {timed(in_nsjail):16.2f} ms", flush=True)


def timed(act: Callable[[], None]) -> float:
    """Median milliseconds from fork to the child's end."""
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            try:
                act()
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitpid(pid, 0)[1]
        assert status == 0, status
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken)


def in_namespace() -> None:
    """What the launcher's child does first."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)


def in_nsjail() -> None:
    """A whole small jail."""
    binary = str(probing.find_nsjail())
    folders = [name for name in ("/usr", "/lib", "/lib64", "/bin") if Path(name).exists()]
    binds = [word for name in folders for word in ("-R", name)]
    os.execv(binary, [binary, "-Mo", "-Q", "--user", "65534", "--group", "65534", *binds, "--", "/bin/true"])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
