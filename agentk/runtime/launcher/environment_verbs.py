"""The launcher's verbs for environments: which are whole, keep one, remove one, and for which Python they are made."""

import contextlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from agentk.api import errors
from agentk.runtime.launcher import checking, environments, interpreters, wire
from agentk.runtime.launcher.crash import crashpoint
from agentk.runtime.launcher.world import World

_AGAIN_SECONDS = 0.05
_CONFIG_MAX_BYTES = 64 * 1024
_VERSIONED = re.compile(r"python(\d+\.\d+)[a-z]*")
_CONFIG_VERSION = re.compile(r"^\s*version(?:_info)?\s*=\s*(\d+\.\d+)", re.M)
Answer = Callable[[wire.Message | errors.AgentkError], None]


def listing(world: World, message: wire.Message, answer: Answer) -> None:
    """Names of whole ones and of those that were begun."""
    answer({"kept": world.environments.kept(), "half": world.environments.half()})


def keep(world: World, message: wire.Message, answer: Answer) -> None:
    """It is whole. Nobody may be writing to it any more."""
    name = environments.check_name(message.get("name"))
    if any(live.box.uid == environments.uid(name) and _lives(live.phase) for live in world.lives.values()):
        raise errors.Conflict(f"environment {name} is still being made")
    crashpoint("environment.before-keep")
    world.environments.keep(name)
    crashpoint("environment.after-keep")
    answer({})


def remove(world: World, message: wire.Message, answer: Answer) -> None:
    """Whole or half. Never one that a box sees."""
    name = environments.check_name(message.get("name"))
    for live in world.lives.values():
        seen = any(mount.kind == "environment" and mount.source == name for mount in live.box.mounts)
        if seen and _lives(live.phase):
            raise errors.Conflict(f"environment {name} is in use by box {live.box.id}")
    world.environments.remove(name)
    crashpoint("environment.after-remove")
    _sweep(world)
    answer({})


def _sweep(world: World) -> None:
    if not world.environments.sweep():
        world.loop.after(_AGAIN_SECONDS, lambda: _sweep(world))


def _lives(phase: str) -> bool:
    return phase in ("Starting", "Running")


def interpreter(world: World, message: wire.Message, answer: Answer) -> None:
    """The Python a box with this prefix gets, and which one a host's virtual environment was made for.

    Nothing of a prefix or an environment that somebody named is run here: we may hold root.
    """
    prefix, venv = message.get("prefix"), message.get("venv")
    if not isinstance(prefix, str) or not isinstance(venv, str):
        raise errors.BadRequest("interpreter needs prefix and venv, each may be empty")
    if prefix:
        checking.check_inside(prefix, "prefix")
    path, tree = interpreters.choose(prefix, world.settings.bounds.builder)
    if not path:
        raise errors.RuntimeRefused("there is no Python for boxes", hint="apt-get install python3")
    real = Path(os.path.realpath(f"{tree}/bin/python3" if tree else path))
    found = _VERSIONED.fullmatch(real.name)
    seen = real.stat()
    # A name that tells no version: the same file is the same interpreter.
    version = found[1] if found else f"{real.name}-{seen.st_size}-{seen.st_mtime_ns}"
    answer(
        {
            "path": path,
            "version": version,
            "machine": os.uname().machine,
            "venv_version": _venv_version(venv) if venv else "",
        }
    )


def _venv_version(venv: str) -> str:
    checking.check_inside(venv, "venv")
    refused = errors.RuntimeRefused(
        f"{venv} is no virtual environment",
        hint="it needs a pyvenv.cfg, and no part of its path may be a link",
    )
    try:
        handle = checking.open_beneath(f"{venv}/pyvenv.cfg")
    except OSError:
        raise refused from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise refused
        with open(f"/proc/self/fd/{handle}", "rb") as file:
            text = file.read(_CONFIG_MAX_BYTES).decode(errors="replace")
    finally:
        with contextlib.suppress(OSError):
            os.close(handle)
    found = _CONFIG_VERSION.search(text)
    if found is None:
        raise refused
    return found[1]
