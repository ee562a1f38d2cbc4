"""What of Podman this host has, each lack with the command that mends it. Looks only: nothing is started here."""

import getpass
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentk.runtime import box
from agentk.runtime.podman import service

_SUBIDS = 65536  # as every tool hands them out
_PACKAGES = {
    "podman": {"apt": "podman", "dnf": "podman", "pacman": "podman", "zypper": "podman"},
    "oci": {"apt": "runc", "dnf": "crun", "pacman": "crun", "zypper": "runc"},
    "conmon": {"apt": "conmon", "dnf": "conmon", "pacman": "conmon", "zypper": "conmon"},
    "idmap": {"apt": "uidmap", "dnf": "shadow-utils", "pacman": "shadow", "zypper": "shadow"},
}
_INSTALL = {
    "apt": "sudo apt-get install --no-install-recommends",
    "dnf": "sudo dnf install",
    "pacman": "sudo pacman -S",
    "zypper": "sudo zypper install",
}
_CONMONS = (
    "/usr/bin/conmon",
    "/usr/local/bin/conmon",
    "/usr/libexec/podman/conmon",
    "/usr/lib/podman/conmon",
)


def findings(root: bool, needed: bool, serving: Mapping[str, Any]) -> list[box.Finding]:
    """`needed`: boxes of Podman cannot be made without. `serving`: what its service said, {} when none runs."""
    found = [_podman(needed), _oci(needed), _conmon(needed)]
    if not root:
        found.append(uids(needed, getpass.getuser()))
    if shutil.which("podman") is None:
        return found[:1]
    return [*found, _service(needed, serving)]


def _podman(needed: bool) -> box.Finding:
    path = shutil.which("podman")
    if path is None:
        said = "there is no podman in PATH" + ("" if needed else "; only the podman runtime wants it")
        return box.Finding("podman", False, said, _install("podman", "oci"), needed)
    return box.Finding("podman", True, path, needed=needed)


def _oci(needed: bool) -> box.Finding:
    names, name = service.oci_runtimes(), "podman OCI runtime"
    if not names:
        return box.Finding(name, False, f"none of {', '.join(service.OCI_RUNTIMES)}", _install("oci"), needed)
    return box.Finding(name, True, ", ".join(names), needed=needed)


def _conmon(needed: bool) -> box.Finding:
    path = shutil.which("conmon") or next((path for path in _CONMONS if os.path.exists(path)), None)
    if path is None:
        return box.Finding(
            "podman monitor", False, "no conmon, which watches over containers", _install("conmon"), needed
        )
    return box.Finding("podman monitor", True, path, needed=needed)


def uids(needed: bool, user: str, folder: Path = Path("/etc")) -> box.Finding:
    """Root inside of an ordinary user's box is somebody else than that user, who must have been given numbers."""
    name = "podman uids"
    if shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        return box.Finding(name, False, "no newuidmap and newgidmap", _install("idmap"), needed)
    lacking = [file for file in ("subuid", "subgid") if not _has_range(folder / file, user)]
    if lacking:
        said = f"{user} has no numbers in {' and '.join(f'{folder}/{file}' for file in lacking)}"
        first = 100_000
        last = first + _SUBIDS - 1
        fix = f"sudo usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {user}"
        return box.Finding(name, False, said, f"{fix} && podman system migrate", needed)
    return box.Finding(
        name, True, f"{user} has numbers in {folder}/subuid and {folder}/subgid", needed=needed
    )


def _has_range(file: Path, user: str) -> bool:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return False
    names = {user, str(os.getuid())}
    return any(line.split(":")[0] in names and line.count(":") == 2 for line in lines)


def _service(needed: bool, serving: Mapping[str, Any]) -> box.Finding:
    name = "podman service"
    if "error" in serving:
        return box.Finding(name, False, str(serving["error"]), "podman info  # says more", needed)
    if not serving:
        return box.Finding(name, True, "agentk starts one of its own with the first box", needed=needed)
    said = f"Podman {serving['version']}, " if serving.get("version") else ""
    return box.Finding(name, True, f"{said}started by agentk itself (pid {serving['pid']})", needed=needed)


def _install(*wanted: str) -> str:
    """For this distribution, by the tool that is here."""
    for tool, program in (("apt", "apt-get"), ("dnf", "dnf"), ("pacman", "pacman"), ("zypper", "zypper")):
        if shutil.which(program):
            return f"{_INSTALL[tool]} {' '.join(_PACKAGES[one][tool] for one in wanted)}"
    return "install podman and crun, see https://podman.io/docs/installation"
