"""Who asks a registry for an agent's image: the first of its imagePullSecrets that is for it. Pure.

What a Secret holds is text that somebody wrote: what cannot be read is told as a problem, and never quoted.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from agentk.api import images
from agentk.control.plans import Problem
from agentk.runtime import box as boxes

_CONFIG, _OLD_CONFIG = ".dockerconfigjson", ".dockercfg"
_HUB, _HUB_ALIASES = "docker.io", ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
_TEXT_MAX = 16 * 1024
_ENTRIES_MAX = 1000


class Entry(NamedTuple):
    place: str  # a registry, with a path below it or not; parts of its host may be '*'
    login: boxes.Login


def names(spec: Mapping[str, Any]) -> Iterator[str]:
    """Of the Secrets that imagePullSecrets refers to."""
    for one in spec.get("imagePullSecrets") or ():
        yield str(one["name"] if "name" in one else one["secretKeyRef"]["name"])


def entries(
    spec: Mapping[str, Any], secrets: Mapping[str, Mapping[str, bytes]], problems: list[Problem]
) -> list[Entry]:
    """All that the agent has, in its order. `secrets`: by name, their keys; what is missing or unfit is told."""
    found: list[Entry] = []
    for at, one in enumerate(spec.get("imagePullSecrets") or ()):
        where, name = f"imagePullSecrets[{at}]", next(names({"imagePullSecrets": [one]}))
        content = secrets.get(name)
        try:
            if content is None:
                raise _Unfit("does not exist")
            found += _login(one, content) if "secretKeyRef" in one else _config(content)
        except _Unfit as unfit:
            problems.append(Problem("ConfigError", f'{where}: Secret "{name}" {unfit}'))
    return found


def choose(entries: list[Entry], reference: images.Reference) -> boxes.Login | None:
    """The login for an image: of those for its registry the one with the longest path, else the first."""
    best: tuple[int, boxes.Login] | None = None
    for place, login in entries:
        host, _, path = place.partition("/")
        if not _same_host(host, reference.registry):
            continue
        if path and not f"{reference.path}/".startswith(f"{path.rstrip('/')}/"):
            continue
        if best is None or len(path) > best[0]:
            best = (len(path), login)
    return best[1] if best else None


def _same_host(pattern: str, host: str) -> bool:
    pattern = _HUB if pattern in _HUB_ALIASES else pattern
    wanted, had = pattern.split("."), host.split(".")
    return len(wanted) == len(had) and all(map(fnmatchcase, had, wanted))


class _Unfit(Exception):
    """Why a Secret cannot serve; never with what is in it."""


def _login(one: Mapping[str, Any], content: Mapping[str, bytes]) -> list[Entry]:
    key = one["secretKeyRef"]["key"]
    if key not in content:
        raise _Unfit(f'has no key "{key}"')
    password = _text(content[key], f'key "{key}"').strip("\r\n")
    return [Entry(str(one["registry"]).lower(), boxes.Login(str(one["username"]), password))]


def _config(content: Mapping[str, bytes]) -> list[Entry]:
    """The file that docker, podman and kubectl write."""
    key = next((key for key in (_CONFIG, _OLD_CONFIG) if key in content), None)
    if key is None:
        raise _Unfit(f'has no key "{_CONFIG}"')
    try:
        held = json.loads(_text(content[key], f'key "{key}"', 1 << 20))
        auths = held["auths"] if key == _CONFIG else held
        return [_entry(place, auth) for place, auth in list(auths.items())[:_ENTRIES_MAX]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _Unfit(f'does not hold a docker configuration with auths in its key "{key}"') from None


def _entry(place: str, auth: Mapping[str, Any]) -> Entry:
    place = place.removeprefix("https://").removeprefix("http://").rstrip("/")
    for suffix in ("/v1", "/v2"):  # as docker writes the hub
        place = place.removesuffix(suffix)
    host, slash, path = place.partition("/")
    username, password = str(auth.get("username") or ""), str(auth.get("password") or "")
    token = str(auth.get("identitytoken") or "")
    if auth.get("auth") and not token:
        try:
            both = base64.b64decode(str(auth["auth"]), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError from None
        username, _, password = both.partition(":")
    for text in (username, password, token):
        if "\0" in text or len(text) > _TEXT_MAX:
            raise ValueError
    return Entry(f"{host.lower()}{slash}{path}", boxes.Login(username, password, token))


def _text(value: bytes, what: str, most: int = _TEXT_MAX) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise _Unfit(f"{what} is not text") from None
    if len(text) > most or "\0" in text:
        raise _Unfit(f"{what} is too long or holds a NUL byte")
    return text
