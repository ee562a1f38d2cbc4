"""What of ours is mounted into every box at /opt/agentk: the init, the SDK, the programs with an engine for
JavaScript, and links to the interpreter.

Copied into `state/staged/DIGEST` once, named after what is in it, so that upgrading the package changes nothing for
a box that runs. What no box uses any more is removed when the launcher starts.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import agentk
from agentk.runtime import finding

_PACKAGE = Path(agentk.__file__).parent


class Tools:
    def __init__(self, folder: Path, init: Path | None, lone_init: Path | None = None) -> None:
        """`lone_init` needs no library of the host's: it is for boxes that show none of them."""
        self.folder = folder
        self._inits = {False: init, True: lone_init or init}
        self._staged: dict[tuple[str, bool], Path] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def stage(self, python: str, *, alone: bool = False) -> Path:
        """The directory whose bin/python leads to `python` inside the box ("" for none). `alone`: it shows an image."""
        known = self._staged.get((python, alone))
        if known is None or not known.is_dir():
            known = self._staged[python, alone] = self._make(python, self._inits[alone])
        return known

    def collect(self, used: Iterable[str]) -> None:
        """Remove what neither a box nor we use."""
        kept = set(used) | {path.name for path in self._staged.values()}
        for entry in self.folder.iterdir():
            if entry.name not in kept:
                shutil.rmtree(entry, ignore_errors=True)

    def _make(self, python: str, init: Path | None) -> Path:
        files = dict(_files(init))
        digest = hashlib.sha256(python.encode())
        for name, path in sorted(files.items()):
            digest.update(f"\0{name}\0".encode() + path.read_bytes())
        final = self.folder / digest.hexdigest()[:32]
        if final.is_dir():
            return final
        half = Path(tempfile.mkdtemp(prefix=".half-", dir=self.folder))
        for name, path in files.items():
            target = half / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            target.chmod(0o755 if name.startswith("bin/") else 0o644)
        for name in ("python", "python3") if python else ():
            (half / "bin" / name).symlink_to(python)
        for directory, _, _ in os.walk(half):
            os.chmod(directory, 0o755)
        half.rename(final)
        return final


def _files(init: Path | None) -> Iterable[tuple[str, Path]]:
    if init is not None:
        yield "bin/init", init
    yield "lib/agentk/__init__.py", _PACKAGE / "__init__.py"
    for room in ("programs", "sdk"):
        for path in sorted((_PACKAGE / room).rglob("*.py")):
            yield f"lib/agentk/{path.relative_to(_PACKAGE)}", path
    engine = finding.javascript()
    if engine is not None:
        yield f"lib/agentk/programs/{engine.name}", engine
