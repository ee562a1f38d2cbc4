"""Our own images: what their Containerfiles say, and the same made from Debian's packages where no registry is reached.

The Containerfiles (runtimes/podman) are the only place that says what is in an image; this file reads them.
"""

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentk.api import errors
from agentk.client import podmans
from agentk.data import files

NAMES = ("python", "node")
_CHANGES = ("LABEL", "ENV", "USER", "WORKDIR", "CMD")  # of those that an import can make too
_ARG = re.compile(r'ARG\s+(\w+)="?([^"]*)"?')
_INSTALL = "apt-get install mmdebstrap"
_PREPARE = "prepare.sh"
Told = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    name: str
    file: Path
    base: str  # the image it begins with
    suite: str  # of Debian, for the same without a registry
    packages: Sequence[str]
    changes: Sequence[str]

    @property
    def tag(self) -> str:
        return f"localhost/agentk/{self.name}:latest"


def recipe(name: str) -> Recipe:
    """One of NAMES."""
    file = files.folder("runtimes") / "podman" / f"Containerfile.{name}"
    lines = file.read_text().splitlines()
    words = {found[1]: found[2] for line in lines if (found := _ARG.fullmatch(line.strip()))}
    changes = [line for line in lines if line.split(" ", 1)[0] in _CHANGES]
    return Recipe(name, file, words["BASE"], words["SUITE"], words["PACKAGES"].split(), changes)


def build(podman: podmans.Podman, wanted: Recipe, tag: str, told: Told, say: Told) -> None:
    """`say`: what a person should read whatever happens. Raises Unavailable when neither way works."""
    told(f"pulling {wanted.base}")
    try:
        podman.pull(wanted.base, told)
    except errors.Unavailable as error:
        if not podman.has(wanted.base):
            say(f"{error.message}")
            say(f"made from packages of Debian {wanted.suite} instead")
            _from_packages(podman, wanted, tag, told)
            return
    podman.build(wanted.file, wanted.file.parent, tag, ["--format", "oci"], told)


def _from_packages(podman: podmans.Podman, wanted: Recipe, tag: str, told: Told) -> None:
    with tempfile.TemporaryDirectory(prefix="agentk-image-") as folder:
        archive = Path(folder) / "tree.tar"
        rootfs(wanted, archive, os.environ, told)
        told("importing it")
        podman.import_tree(archive, tag, wanted.changes)


def rootfs(wanted: Recipe, archive: Path, env: Mapping[str, str], told: Told) -> None:
    """A tar of what the Containerfile would have made. Raises Unavailable with the program's own words."""
    prepare = wanted.file.parent / _PREPARE
    packages = ",".join(wanted.packages)
    if shutil.which("mmdebstrap", path=env.get("PATH")):
        hooks = [f"copy-in {prepare} /tmp", f'chroot "$1" sh /tmp/{_PREPARE}', f'rm "$1"/tmp/{_PREPARE}']
        # Without these it brings Perl along, only to move directories that are where they belong.
        merged = Path("/usr/share/mmdebstrap/hooks/merged-usr")
        extra = [f"--hook-dir={merged}", "--include=usr-is-merged"] if merged.is_dir() else []
        words = ["mmdebstrap", "--variant=minbase", *extra, f"--include={packages}"]
        words += [f"--customize-hook={hook}" for hook in hooks]
        _run([*words, wanted.suite, str(archive)], env, told)
    elif shutil.which("debootstrap", path=env.get("PATH")):
        _debootstrap(wanted, packages, archive, env, told)
    else:
        raise errors.Unavailable("there is neither a registry nor mmdebstrap to make it with", hint=_INSTALL)


def _debootstrap(wanted: Recipe, packages: str, archive: Path, env: Mapping[str, str], told: Told) -> None:
    if os.geteuid():
        raise errors.Unavailable("debootstrap needs root, mmdebstrap does not", hint=_INSTALL)
    tree = archive.parent / "tree"
    words = ["debootstrap", "--variant=minbase", f"--include={packages}", wanted.suite, str(tree)]
    _run(words, env, told)
    shutil.copy(wanted.file.parent / _PREPARE, tree / "tmp" / _PREPARE)
    _run(["chroot", str(tree), "sh", f"/tmp/{_PREPARE}"], env, told)
    (tree / "tmp" / _PREPARE).unlink()
    with tarfile.open(archive, "w") as tar:
        for path in sorted(tree.iterdir()):
            tar.add(path, path.name, filter=_without_devices)


def _without_devices(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.isdev() else member


def _run(words: Sequence[str], env: Mapping[str, str], told: Told) -> None:
    last: list[str] = []
    with subprocess.Popen(
        words, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as ran:
        for line in _lines(ran):
            told(line)
            last = [*last[-20:], line]
    if ran.returncode:
        raise errors.Unavailable(f"{words[0]} failed: {podmans.reason(last)}")


def _lines(ran: "subprocess.Popen[bytes]") -> Iterator[str]:
    assert ran.stdout is not None
    for line in ran.stdout:
        yield line.decode(errors="replace").rstrip()
