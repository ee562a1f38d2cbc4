"""What a box gets of `spec.environment`: mounts, and what of its variables leads to them. Pure.

A Python environment is a virtual environment at a fixed place, first in PATH: `python`, `#!/usr/bin/env python3` and
console scripts find its packages, `sys.prefix` tells so, and it works with `python -I` too. npm packages are at
/node_modules, where Node looks for every file of the box, whether it says require or import.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agentk.control import images
from agentk.runtime import box as boxes
from agentk.runtime import nsjail

PYTHON, NODE = "/opt/env/python", "/node_modules"


@dataclass(frozen=True)
class Prepared:
    """Of one agent, all languages together."""

    mounts: tuple[boxes.Mount, ...] = ()
    path: tuple[str, ...] = ()  # before everything else in PATH
    env: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)  # status.environment
    chosen: images.Chosen | None = None  # what its tree is made of; None shows the host's own files

    def plus(self, other: "Prepared") -> "Prepared":
        return Prepared(
            (*self.mounts, *other.mounts),
            (*self.path, *other.path),
            {**self.env, **other.env},
            {**self.told, **other.told},
            self.chosen or other.chosen,
        )

    def on(self, chosen: images.Chosen | None) -> "Prepared":
        return replace(self, chosen=chosen)


NOTHING = Prepared()


def python(name: str, told: Mapping[str, Any]) -> Prepared:
    """One that was built."""
    mount = boxes.Mount("environment", PYTHON, source=name)
    return Prepared((mount,), (f"{PYTHON}/bin",), {"VIRTUAL_ENV": PYTHON}, {"python": dict(told)})


def node(name: str, told: Mapping[str, Any]) -> Prepared:
    """One that was built."""
    mount = boxes.Mount("environment", NODE, source=name)
    return Prepared((mount,), (f"{NODE}/.bin",), {"NODE_PATH": NODE}, {"node": dict(told)})


def venv(path: str, interpreter: boxes.Interpreter) -> Prepared:
    """A person's own, at its own path: that is what its scripts name. Where its interpreter is not in the box, the
    box's own of the same version finds its packages."""
    mounts = () if path.startswith("/usr/") else (boxes.Mount("bind", path, source=path),)
    site = f"{path}/lib/python{interpreter.version}/site-packages"
    told = {"venv": path, "interpreter": f"{interpreter.version} {interpreter.machine}"}
    return Prepared(mounts, (f"{path}/bin",), {"VIRTUAL_ENV": path, "PYTHONPATH": site}, {"python": told})


def annotations(given: Prepared) -> dict[str, str]:
    """What a box says of its image for as long as it is known, whoever asks."""
    return {f"image.{key}": value for key, value in given.chosen.status.items()} if given.chosen else {}


def image_of(told: Mapping[str, str]) -> dict[str, str]:
    """status.image, from the annotations of a box; {} for one that shows the host's own files."""
    keys = ("reference", "id", "digest")
    return {key: told[f"image.{key}"] for key in keys if f"image.{key}" in told}


def environment(env: Mapping[str, str], given: Prepared) -> dict[str, str]:
    """The variables of a box with what leads to its environments. What the agent itself set is kept, after ours."""
    if not given.path:
        return dict(env)
    path = [*given.path, nsjail.TOOLS_BIN, *env.get("PATH", "").split(":")]
    made = {**given.env, **env, "PATH": ":".join(filter(None, dict.fromkeys(path)))}
    if "PYTHONPATH" in given.env and "PYTHONPATH" in env:
        made["PYTHONPATH"] = f"{env['PYTHONPATH']}:{given.env['PYTHONPATH']}"
    return made
