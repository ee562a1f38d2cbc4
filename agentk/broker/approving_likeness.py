"""An answer for calls like one: those that differ from it only in arguments that a person named, each within a glob.

Every argument is told apart by a keyed digest of its own, so that an Approval can say what has to be the same without
holding it. What is not named must be the same, and nothing may be there that was not. Pure.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentk.broker import policy_globs as globbing
from agentk.broker.previews import File

SORT = "."  # no argument's name: what call it is
_MOST = 64  # arguments; a call with more is like no other
_TEXT_MAX = 16 * 1024  # letters; what is longer fits no glob

_PROGRAMS = frozenset({"code", "command", "cmd", "script", "shell", "stdin"})  # arguments that are one
_JOINTS = ";&|`$()<>\n\r"  # what a shell ends one command and begins another by

Matching = tuple[tuple[str, str], ...]  # name of an argument, glob
StandIn = Callable[..., str]


def values(params: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name; those of what holds arguments (`arguments`, `env`) one by one, as `arguments.title`."""
    found: dict[str, Any] = {}
    for name, value in params.items():
        if "." in name:
            return {}  # no parameter of ours: it could be taken for another
        if isinstance(value, Mapping) and value and not any("." in str(key) for key in value):
            found |= {f"{name}.{key}": held for key, held in value.items()}
        else:
            found[name] = value
    return found if len(found) < _MOST else {}


def parts(stand_in: StandIn, sort: Sequence[bytes], params: Mapping[str, Any]) -> dict[str, str]:
    """A digest for each argument, and one for what call it is; none of a call with too many."""
    held = values(params)
    if not held:
        return {}
    told = {name: stand_in(b"part", name.encode(), _written(value)) for name, value in held.items()}
    return {SORT: stand_in(b"sort", *sort), **told}


def alike(
    was: Mapping[str, str],
    matching: Matching,
    now: Mapping[str, str],
    params: Mapping[str, Any],
    allows: bool = True,
) -> bool:
    """Whether a call is like the one that was answered. `allows`: it is let through for that."""
    globs = dict(matching)
    if not was or set(was) != set(now):
        return False
    held = values(params)
    for name in was:
        if name not in globs:
            if was[name] != now[name]:
                return False
        elif not _fits(globs[name], held[name]) or (allows and _goes_on(name, globs[name], held[name])):
            return False
    return True


def unchanged(was: Sequence[File], now: Sequence[File]) -> bool:
    """Whether the files that both name are the same; with other arguments others may be named."""
    held = {one.path: one.sha256 for one in now}
    return all(held.get(one.path, one.sha256) == one.sha256 for one in was)


def _fits(glob: str, value: Any) -> bool:
    told = text(value)
    return len(told) <= _TEXT_MAX and globbing.glob(glob).matches(told)


def _goes_on(name: str, glob: str, value: Any) -> bool:
    """Whether the program that a `*` stands for begins another one: `ls *` is about ls, not about `ls; rm -rf .`"""
    if name.rpartition(".")[2] not in _PROGRAMS or not isinstance(value, str):
        return False
    return any(value.count(letter) > glob.count(letter) for letter in _JOINTS)


def text(value: Any) -> str:
    """As a glob sees it: text as it is, words as a shell would write them, anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return shlex.join(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode("utf-8", "backslashreplace")
