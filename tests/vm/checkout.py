"""The checkout as a disk: a tar with paths from /, unpacked by the guest before anything runs.

Uncommitted work comes along; ignored files do not. The package is installed as an editable one would be, but by
writing its few metadata files here: running pip in an emulated guest costs longer than most suites.
"""

import io
import py_compile
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

from tests.vm.image import TOP

SITE = "opt/venv/lib/python3.11/site-packages"
GUEST_TOP = "srv/agentk"
SCRIPT = """#!/opt/venv/bin/python
import sys
from {module} import {function}
sys.exit({function}())
"""


def write(disk: Path, plan: str) -> None:
    with tarfile.open(disk, "w") as tar:
        for name in files():
            tar.add(TOP / name, f"{GUEST_TOP}/{name}", recursive=False, filter=as_root)
        for name, (text, mode) in installed().items():
            add(tar, name, text.encode(), mode)
        for name, code in compiled():
            add(tar, name, code)
        add(tar, "srv/plan.json", plan.encode())


def files() -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=TOP, check=True, capture_output=True, text=True).stdout
    return sorted(name for name in listed.split("\0") if name and (TOP / name).is_file())


def installed() -> dict[str, tuple[str, int]]:
    """What `pip install -e` leaves in a virtual environment: metadata and the scripts."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    name, version, scripts = project["name"], project["version"], project.get("scripts", {})
    info = f"{SITE}/{name}-{version}.dist-info"
    entries = "".join(f"{script} = {target}\n" for script, target in scripts.items())
    found = {
        f"{info}/METADATA": (f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", 0o644),
        f"{info}/entry_points.txt": (f"[console_scripts]\n{entries}", 0o644),
        f"{info}/INSTALLER": ("tests.vm\n", 0o644),
        f"{info}/RECORD": ("", 0o644),
    }
    for script, target in scripts.items():
        module, _, function = target.partition(":")
        found[f"opt/venv/bin/{script}"] = (SCRIPT.format(module=module, function=function), 0o755)
    return found


def compiled() -> list[tuple[str, bytes]]:
    """Bytecode of our own modules, when this Python's is the guest's (3.11): compiling is slow under emulation."""
    if sys.version_info[:2] != (3, 11):
        return []
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "module.pyc"
        for name in files():
            source = TOP / name
            if source.suffix == ".py" and source.parts[len(TOP.parts)] == "agentk":
                try:
                    py_compile.compile(str(source), str(target), dfile=f"/{GUEST_TOP}/{name}", doraise=True)
                except (py_compile.PyCompileError, OSError):
                    continue  # half-written; the guest's own Python will say what is wrong with it
                cached = f"{Path(name).parent}/__pycache__/{source.stem}.cpython-311.pyc"
                found.append((f"{GUEST_TOP}/{cached}", target.read_bytes()))
    return found


def as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    member.mtime = int(member.mtime)  # a fraction of a second would not match the one in the bytecode
    return member


def add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))
