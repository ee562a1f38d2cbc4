"""The indexes of the person who runs a command: their own pip and npm configuration, read where those read it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentk.api import indexes

_MAX_BYTES = 1024 * 1024
_NPM_GLOBALS = ("/usr/etc/npmrc", "/usr/local/etc/npmrc", "/etc/npmrc")


def read(env: Mapping[str, str]) -> indexes.Indexes:
    """What of it can be read. Nothing is run, and no network is asked."""
    home = Path(env.get("HOME") or "/")
    pip = indexes.pip(_texts(_pip_files(env, home)), env)
    carried = {name: env[name] for name in indexes.CARRIED if env.get(name)}
    npmrc = indexes.npm(_texts(_npm_files(env, home)), env)
    values = [*pip.values(), *carried.values(), *(line.partition("=")[2] for line in npmrc.splitlines())]
    paths = {path: os.path.realpath(path) for path in indexes.local_paths(values) if os.path.exists(path)}
    return indexes.Indexes({**carried, **pip}, npmrc, paths)


def _pip_files(env: Mapping[str, str], home: Path) -> list[Path]:
    """As `pip config debug` lists them: global, user, site, and the one that a variable names."""
    named = env.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    config = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    shared = (env.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    files = [Path(folder) / "pip" / "pip.conf" for folder in shared if folder]
    files += [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", config / "pip" / "pip.conf"]
    if env.get("VIRTUAL_ENV"):
        files.append(Path(env["VIRTUAL_ENV"]) / "pip.conf")
    return [*files, Path(named)] if named else files


def _npm_files(env: Mapping[str, str], home: Path) -> list[Path]:
    lower = {name.lower(): value for name, value in env.items() if name.lower().startswith("npm_config_")}
    shared = lower.get("npm_config_globalconfig")
    user = Path(lower.get("npm_config_userconfig") or home / ".npmrc")
    return [*map(Path, [shared] if shared else _NPM_GLOBALS), user]


def _texts(files: Sequence[Path]) -> list[str]:
    texts = []
    for path in files:
        try:
            with path.open("rb") as file:
                texts.append(file.read(_MAX_BYTES).decode(errors="replace"))
        except OSError:
            continue
    return texts
