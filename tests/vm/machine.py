"""One life of the machine: disks in, two serial lines out, results back, and an end whatever happens.

Line 0 is the guest's console, kept in a file and shown only when something went wrong; line 1 carries what the tests
print. Disk a is the image (writes are thrown away), b the checkout, c where the guest leaves its results as a tar.
"""

import json
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.vm import checkout, image, outcomes

MEMORY_MB = 2048
CPUS = 2
RESULT_BYTES = 256 << 20  # sparse; only what the guest writes is stored
LEAVING_SECONDS = 25  # kept back from the guest's time for collecting results
KERNEL = "console=ttyS0 root=/dev/vda rw panic=-1 quiet mitigations=off random.trust_cpu=on"


@dataclass(frozen=True)
class Plan:
    """What the guest is asked to do; it finds this as /srv/plan.json."""

    suites: tuple[str, ...]
    pytest: tuple[str, ...]
    until_uptime: float  # seconds since boot when a run that has not ended is stopped


@dataclass(frozen=True)
class Life:
    suites: list[outcomes.Suite]
    # From power-on to the user's own manager, as the host saw it; None: it never came up.
    up_seconds: float | None
    seconds: float
    trouble: str | None  # why it did not power off by itself


@dataclass(frozen=True)
class Setup:
    base: image.Image
    place: Path  # this life's own folder: checkout, results, what was printed
    accel: str = "tcg"
    keep: bool = False  # the guest writes to a copy of the image in `place`, instead of into the air


@contextmanager
def folder(keep: bool) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="agentk-vm-"))
    try:
        yield path
    finally:
        if not keep:
            shutil.rmtree(path)


def live(
    setup: Setup, suites: tuple[str, ...], pytest: list[str], seconds: float, hear: Callable[[str], None]
) -> Life:
    """Boot, run, collect. Ends within `seconds` of power-on; `hear` gets each line as the guest prints it."""
    place = setup.place
    prepare(setup, Plan(suites, tuple(pytest), max(seconds - LEAVING_SECONDS, 1.0)))
    began = time.monotonic()
    up: list[float] = []

    def listen(line: str) -> None:
        if line.startswith("@up"):
            up.append(time.monotonic() - began)
        hear(line)

    command = qemu(setup, ["-serial", f"file:{place / 'console'}", "-serial", "stdio"])
    with open(place / "qemu", "w") as complaints:
        guest = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints)
    try:
        reader = threading.Thread(target=pump, args=(guest, listen), name="guest-output")
        reader.start()
        trouble = await_end(guest, seconds)
    finally:
        guest.kill()
        guest.wait()
    reader.join()
    return Life(collect(place, suites), up[0] if up else None, time.monotonic() - began, trouble)


def shell(setup: Setup) -> None:
    """The same machine with a root shell on this terminal instead of tests; it powers off when the shell ends."""
    prepare(setup, Plan((), (), 0.0))
    subprocess.run(qemu(setup, ["-serial", "mon:stdio", "-serial", "null"], "agentk.shell"), check=True)


def prepare(setup: Setup, plan: Plan) -> None:
    checkout.write(setup.place / "checkout", json.dumps(asdict(plan)))
    with open(setup.place / "results", "wb") as handle:
        handle.truncate(RESULT_BYTES)
    if setup.keep:
        copy = ["cp", "--sparse=always", "--reflink=auto", str(setup.base.disk), str(setup.place / "disk")]
        subprocess.run(copy, check=True)


def qemu(setup: Setup, serial: list[str], words: str = "") -> list[str]:
    base, place = setup.base, setup.place
    root = f"file={place / 'disk'}" if setup.keep else f"file={base.disk},snapshot=on"
    speed = "tcg,thread=multi,tb-size=512" if setup.accel == "tcg" else setup.accel
    return [
        *("qemu-system-x86_64", "-accel", speed, "-cpu", "max", "-smp", str(CPUS), "-m", str(MEMORY_MB)),
        *(
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-monitor",
            "none",
            "-nic",
            "none",
            "-no-reboot",
        ),
        *("-kernel", str(base.kernel), "-initrd", str(base.initrd), "-append", f"{KERNEL} {words}".strip()),
        *("-drive", f"{root},if=virtio,format=raw,cache=unsafe"),
        *("-drive", f"file={place / 'checkout'},if=virtio,format=raw,readonly=on"),
        *("-drive", f"file={place / 'results'},if=virtio,format=raw,cache=unsafe"),
        *serial,
    ]


def pump(guest: subprocess.Popen[bytes], hear: Callable[[str], None]) -> None:
    assert guest.stdout is not None
    for line in guest.stdout:
        hear(line.decode(errors="replace").rstrip())


def await_end(guest: subprocess.Popen[bytes], seconds: float) -> str | None:
    try:
        code = guest.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"it did not power off within {seconds:.0f} s and was killed"
    return f"qemu ended with {code}" if code else None


def collect(place: Path, suites: tuple[str, ...]) -> list[outcomes.Suite]:
    """Unpacks the guest's tar beside the disks and reads it; a suite it does not tell of never ended."""
    left = place / "left"
    left.mkdir()
    try:
        with tarfile.open(place / "results", "r:") as tar:
            for member in tar.getmembers():
                content = tar.extractfile(member)
                if content is not None and "/" not in member.name:
                    (left / member.name).write_bytes(content.read())
    except tarfile.ReadError:
        pass
    return [suite(left, name) for name in suites]


def suite(left: Path, name: str) -> outcomes.Suite:
    junit, code = left / f"{name}.xml", left / f"{name}.exit"
    tests = outcomes.read_junit(junit.read_text()) if junit.exists() else {}
    return outcomes.Suite(name, int(code.read_text()) if code.exists() else None, tests)
