"""What this harness needs of the machine it runs on, and how to get it."""

import os
import platform
import shutil
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "unshare": "util-linux",
    "git": "git",
}


def missing() -> str | None:
    """Why no machine can run here, as one sentence with its remedy; None when one can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"the machine is built for Linux on x86-64, and this is {platform.system()} on {platform.machine()}"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    wanted = [package for tool, package in PACKAGES.items() if shutil.which(tool, path=path) is None]
    if not KEYRING.exists():
        wanted.append("debian-archive-keyring")
    if wanted:
        packages = " ".join(wanted)
        return f"missing here: {packages}; install: sudo apt-get install --no-install-recommends {packages}"
    if os.geteuid() != 0:
        return "building the machine's disk needs root: run it with sudo"
    return None
