"""What do the mounts of N other agents cost one jail? As root: `python tests/bench/mounts.py [N]`.

Held two ways: attached below a directory of the launcher's mount namespace, and as detached trees that are in no mount
table. Medians of rounds taken in turn; the machine should be quiet.
"""

import os
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from agentk.runtime import kernel, probing

ROUNDS = 60


def main(count: int) -> None:
    """Print one line a way of holding."""
    ways = {"none": hold_none, "detached": hold_detached, "attached": hold_attached}
    acts = {"new mount namespace": in_namespace, "nsjail /bin/true": in_nsjail}
    launchers = {name: Launcher(hold, count, list(acts.values())) for name, hold in ways.items()}
    taken: dict[tuple[str, int], list[float]] = {}
    for number in range(ROUNDS * len(acts)):
        for name, launcher in launchers.items():  # in turn, so that whatever else runs here hits all alike
            act = number % len(acts)
            taken.setdefault((name, act), []).append(launcher.measure(act))
    for launcher in launchers.values():
        launcher.close()
    print(f"{count} mounts, ms   " + "".join(f"{name:>22}" for name in acts))
    for name in ways:
        print(
            f"  {name:16}"
            + "".join(f"{statistics.median(taken[name, act]):22.2f}" for act in range(len(acts)))
        )


class Launcher:
    """A process with a mount namespace of its own that holds `count` mounts and times acts on demand."""

    def __init__(
        self, hold: Callable[[int, Path], object], count: int, acts: list[Callable[[], None]]
    ) -> None:
        self._near, far = socket.socketpair()
        self._pid = os.fork()
        if self._pid:
            far.close()
            self._near.recv(1)
            return
        self._near.close()
        try:
            kernel.unshare(kernel.CLONE_NEWNS)
            kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
            with tempfile.TemporaryDirectory() as folder:
                kernel.mount("none", folder, "tmpfs")
                kept = hold(count, Path(folder))
                far.send(b"!")
                while (order := far.recv(1)) != b".":
                    far.send(struct.pack("d", timed(acts[order[0]])))
                del kept
                kernel.umount(folder, kernel.MNT_DETACH)
        finally:
            os._exit(0)

    def measure(self, act: int) -> float:
        """Milliseconds of one act."""
        self._near.send(bytes([act]))
        return float(struct.unpack("d", self._near.recv(8))[0])

    def close(self) -> None:
        """End it; its mounts go with it."""
        self._near.send(b".")
        self._near.close()
        os.waitpid(self._pid, 0)


def hold_none(count: int, folder: Path) -> None:
    """Nothing."""


def hold_detached(count: int, folder: Path) -> list[int]:
    """In no mount table, by descriptors: what a namespace of its own comes to as well."""
    trees = []
    for _ in range(count):
        kernel.mount("tmpfs", folder, "tmpfs", 0, "size=64k")
        trees.append(kernel.open_tree(folder))
        kernel.umount(folder)
    return trees


def hold_attached(count: int, folder: Path) -> None:
    """Below a directory of ours."""
    for number in range(count):
        (folder / str(number)).mkdir()
        kernel.mount("tmpfs", folder / str(number), "tmpfs", 0, "size=64k")


def timed(act: Callable[[], None]) -> float:
    """Milliseconds from fork to the child's end."""
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
    return (time.perf_counter() - start) * 1000


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
