"""Skills as Python modules of a session: `from skills import fib`, also of one that was saved a moment ago.

A Skill that is the same as when the box was started is imported from where the box shows it; of any other the gate
tells the files, which are kept in the box's own /tmp. To find, read, run and save Skills are functions of the package.
What a Skill says of itself was written by others: it becomes texts and files here, and runs when it is imported or run.
Runs in jails: Python 3.9, standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.machinery
import inspect
import os
import sys
import tempfile
import types
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

from agentk.sdk import client, errors, modules, results

PACKAGE = "skills"
SHOWN = "/opt/skills/skills"  # in a box that was started with some
FUNCTIONS = ("search", "read", "run", "save", "delete")
FOUND = 8  # by one search
_LINE_LETTERS = 300
_LISTED = 200  # most files that the gate tells of

Code = Union[str, Callable[..., Any], Sequence[Callable[..., Any]]]


class SkillError(Exception):
    """A script of a Skill failed."""


class Package(types.ModuleType):
    """All of it."""

    def __init__(self, agent: client.Agent, shown: str = SHOWN) -> None:
        super().__init__(PACKAGE)
        self.__path__: List[str] = []  # so it has modules; `spec_of` says where
        self.SkillError = SkillError
        self._agent, self._shown, self._folder = agent, shown, ""

    def search(self, words: str = "") -> modules.Found:
        """Which Skills have to do with these words, each with what it is for."""
        found = self._agent.skill_search(words[:500], limit=FOUND).items
        if not found:
            return modules.Found("Nothing was found: try other words.")
        return modules.Found("\n".join(line(one) for one in found))

    def read(self, name: str, file: str = "") -> modules.Found:
        """How a Skill is used; or one of its files."""
        if file:
            return modules.Found(self._agent.skill_get(name_of(name), file=file).content)
        got = self._agent.skill_get(name_of(name))
        files = "\n".join(f"- {one['path']} ({one['bytes']} bytes)" for one in got.files)
        return modules.Found(f"{got.text}\n\nIts files:\n{files}")

    def run(self, name: str, script: str, *argv: object) -> str:
        """What a script of a Skill writes, run in a jail beside this one. Raises SkillError when it fails."""
        ran = self._agent.skill_run(name_of(name), script=script, argv=[str(one) for one in argv])
        if not ran.ok:
            raise SkillError(f"{ran.reason}, exit code {ran.exit_code}: {ran.stderr or ran.stdout}")
        return ran.stdout

    def save(
        self,
        name: str,
        description: str,
        code: Code = "",
        *,
        instructions: str = "",
        files: Optional[Dict[str, str]] = None,
    ) -> results.SavedSkill:
        """Keeps code for later sessions, and for this one: a text, or functions that were made here."""
        saved = self._agent.skill_save(
            name_of(name),
            description,
            code=source(code) or None,
            instructions=instructions or None,
            files=files,
        )
        self._forget(name_of(name))
        return saved

    def delete(self, name: str) -> bool:
        """Whether there was one to delete."""
        gone = self._agent.skill_delete(name_of(name))
        self._forget(name_of(name))
        return gone

    def spec_of(self, module: str) -> Any:
        """Where `skills.MODULE` is imported from. Raises ImportError."""
        folder = self._place(module)
        found = importlib.machinery.PathFinder.find_spec(f"{PACKAGE}.{module}", [folder])
        if found is None:
            raise ImportError(
                f"the skill {name_of(module)!r} has no Python in it", name=f"{PACKAGE}.{module}"
            )
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return importlib.import_module(f"{PACKAGE}.{name}")
        except ImportError as error:
            raise AttributeError(str(error)) from None

    def __dir__(self) -> List[str]:
        found = self._agent.skill_search(limit=_LISTED).items
        return sorted([*FUNCTIONS, "SkillError", *map(module_of, found)])

    def _place(self, module: str) -> str:
        """The folder that holds it as it is now."""
        here = os.path.join(self._shown, module)
        try:
            got = self._agent.skill_get(name_of(module), importing=True)
        except errors.Disconnected:
            raise
        except errors.Denied as error:  # also of what the box shows
            raise ImportError(error.message, name=f"{PACKAGE}.{module}") from None
        except errors.CallError as error:
            if os.path.isdir(here):
                return self._shown  # what the box shows may be read
            told = f"there is no skill {name_of(module)!r}: {error.message}"
            raise ImportError(told, name=f"{PACKAGE}.{module}") from None
        if got.digest == digest(here):
            return self._shown
        return self._fetched(module, got)

    def _fetched(self, module: str, got: results.Skill) -> str:
        self._folder = self._folder or tempfile.mkdtemp(prefix="skills-")
        folder = os.path.join(self._folder, got.digest.rpartition(":")[2][:16] or "0")
        if os.path.isdir(os.path.join(folder, module)):
            return folder
        if len(got.files) >= _LISTED:
            told = f"the skill {got.name!r} has too many files for a session that began before it"
            raise ImportError(told, name=f"{PACKAGE}.{module}")
        os.makedirs(folder, exist_ok=True)
        half = tempfile.mkdtemp(dir=folder)
        for one in got.files:
            held = self._agent.skill_get(got.name, file=str(one["path"]))
            data = (
                base64.b64decode(held.content) if held.encoding == "base64" else held.content.encode("utf-8")
            )
            path = os.path.join(half, str(one["path"]))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
        os.rename(half, os.path.join(folder, module))
        return folder

    def _forget(self, name: str) -> None:
        """The next import is of what is there then."""
        for whole in list(sys.modules):
            package, _, inner = whole.partition(".")
            module = inner.partition(".")[0]
            if package == PACKAGE and module and name_of(module) == name:
                del sys.modules[whole]
                vars(self).pop(module, None)


def package() -> Package:
    """Over a connection of its own. Raises Disconnected."""
    return Package(client.connect(patience_seconds=modules.PATIENCE_SECONDS))


def line(one: results.SkillLine) -> str:
    """What it is imported as, and what it is for."""
    return f"{module_of(one)}: {' '.join(one.description.split())[:_LINE_LETTERS]}"


def module_of(one: results.SkillLine) -> str:
    """What a session imports it as: one that is named like a function of the package gets a `_`."""
    made = one.module.rpartition(".")[2]
    return f"{made}_" if made in FUNCTIONS else made


def name_of(module: str) -> str:
    """The Skill that is imported so: no name of one has a `_`."""
    return module.strip("_").replace("_", "-")


def source(code: Code) -> str:
    """Raises OSError for functions that nobody can read, TypeError for what is none."""
    if isinstance(code, str):
        return code
    several = [code] if callable(code) else code
    return "\n\n".join(inspect.getsource(one) for one in several)


def digest(folder: str) -> str:
    """Of the files in it, as the gate has it; "" when there are none."""
    held: Dict[str, bytes] = {}
    for at, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(at, name)
            with open(path, "rb") as file:
                held[os.path.relpath(path, folder)] = file.read()
    if not held:
        return ""
    whole = hashlib.sha256()
    for name, data in sorted(held.items()):
        whole.update(f"{len(name.encode())} {len(data)} ".encode() + name.encode() + data)
    return f"sha256:{whole.hexdigest()}"
