"""What a test sees of this host: its processes and their mounts. Nothing here knows of agents."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path


def pause() -> None:
    time.sleep(0.01)


def processes() -> Iterator[tuple[int, Sequence[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (argv := read(entry / "cmdline")):
            yield int(entry.name), argv.rstrip("\0").split("\0")


def is_alive(pid: int) -> bool:
    """A zombie is dead: its parent's business."""
    return read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[:1] not in ([], ["Z"], ["X"])


def parent(pid: int) -> int:
    """0 when it is gone."""
    fields = read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[1]) if fields else 0


def mounts(pid: int | str) -> list[str]:
    return read(Path(f"/proc/{pid}/mountinfo")).splitlines()


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
