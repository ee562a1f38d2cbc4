"""Tools proposed for programs that this machine has and that a jail shows too."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agentk.api import kinds, manifest
from agentk.cli import show
from agentk.data import files

_SHOWN = ("/usr/", "/bin/")  # of the host, in a jail
_FILE = "programs.yaml"


def discover(programs: Sequence[str]) -> int:
    proposals = read()
    asked = {one.rpartition("/")[2] for one in programs}
    found = [obj for obj in proposals if (not asked or program(obj) in asked) and _is_here(program(obj))]
    shipped = [obj for obj in shipping() if obj["metadata"]["name"] in asked]
    asked -= {obj["metadata"]["name"] for obj in shipped}
    for missing in sorted(asked - {program(obj) for obj in found}):
        known = any(program(obj) == missing for obj in proposals)
        show.say(
            f"{missing}: {'not on this machine, below /usr' if known else 'there is no proposal for it'}"
        )
    found = shipped + found
    for at, obj in enumerate(found):
        show.write(("---\n" if at else "") + show.yaml_text(obj))
    if not found and not asked:
        show.say("No program that there is a proposal for is on this machine.")
    return 0 if found else 1


def read() -> list[dict[str, Any]]:
    """Every proposal that ships."""
    path = files.folder("runtimes") / "commands" / _FILE
    return [one.obj for one in manifest.parse(path.read_bytes(), _FILE)]


def shipping() -> list[dict[str, Any]]:
    """The Tools that agentk comes with, as every installation begins with them."""
    paths = sorted(files.folder("manifests").glob("*.yaml"))
    found = (one.obj for path in paths for one in manifest.parse(path.read_bytes(), path.name))
    return [obj for obj in found if obj["kind"] == kinds.TOOL.kind]


def program(obj: dict[str, Any]) -> str:
    return str(obj["spec"]["command"]["argv"][0])


def _is_here(name: str) -> bool:
    return any(str(Path(path).resolve()).startswith(_SHOWN) for path in _where(name))


def _where(name: str) -> Iterator[str]:
    found = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin")
    if found:
        yield found
