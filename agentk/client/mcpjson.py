"""The usual file of MCP servers (`mcpServers`, as editors and desktop programs keep it) as Tools. Pure but for `Looks`.

Nothing of it is started. A value that looks like a secret is never written into a Tool: a reference to a Secret stands
in its place, and whoever asked is told its name and key. What cannot be said as a Tool is left out, with the reason.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentk.api import environments, errors

Versions = Callable[
    [str, str], str
]  # (npm or pypi, name with a range or a tag) → one version, "" when nobody knows
Files = Callable[[str], str]  # an argument → absolute path, when it is a file that is there, else ""

_SECRET = re.compile(r"key|token|secret|passw|credential|auth|cookie|bearer|pat$|dsn|_url$", re.IGNORECASE)
_LOOKS_SECRET = re.compile(r"(?:sk|pk|ghp|gho|ghs|github_pat|glpat|xox[abp]|hf|AIza|AKIA)[-_A-Za-z0-9]{12,}")
_USER_IN_URL = re.compile(r"^[a-z][a-z0-9+.-]*://[^/\s]*:[^/\s]*@", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{(?:env:|input:)?([^}:]+)(?::-([^}]*))?\}")
_BEARER = re.compile(r"(Bearer |Basic |token )(.+)", re.IGNORECASE)
_EXACT = re.compile(r"[0-9]+\.[0-9A-Za-z.+_-]+")
_SCRIPTS = (".js", ".mjs", ".cjs", ".py")
_SHOWN = ("/usr/", "/bin/")  # of the host, in a jail
_NPX = frozenset({"npx", "npx.cmd", "bunx", "pnpx"})
_UVX = frozenset({"uvx", "uvx.exe", "pipx"})


@dataclass
class Found:
    """What a file came to."""

    tools: list[dict[str, Any]] = field(default_factory=list)
    secrets: list[dict[str, Any]] = field(default_factory=list)  # with their values
    notes: list[str] = field(default_factory=list)  # for a person
    left_out: list[str] = field(default_factory=list)  # NAME: why


class _Cannot(Exception):
    """This server is no Tool, and why."""


def read(text: str, versions: Versions, files: Files) -> Found:
    """Raises Invalid for what is no such file."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.Invalid(f"not JSON: {error}") from None
    servers = told.get("mcpServers", told.get("servers")) if isinstance(told, dict) else None
    if not isinstance(servers, dict):
        raise errors.Invalid("there is no mcpServers in it", hint='{"mcpServers": {"NAME": {"command": …}}}')
    found = Found()
    names: set[str] = set()
    for name, server in servers.items():
        own = _name(str(name), names)
        try:
            if not isinstance(server, dict):
                raise _Cannot("it is no object")
            if server.get("disabled") is True:  # as its owner wants it: no failure
                found.notes.append(f"{name}: is disabled, and left out")
                continue
            found.tools.append(_Reading(own, server, found, versions, files).tool())
        except _Cannot as why:
            found.left_out.append(f"{name}: {why}")
        except errors.Invalid as error:
            found.left_out.append(f"{name}: {error.message}")
    return found


def _name(told: str, taken: set[str]) -> str:
    base = re.sub(r"[^a-z0-9]+", "-", told.lower()).strip("-")[:50].rstrip("-") or "server"
    name = next(one for one in (base, *(f"{base}-{n}" for n in range(2, 10_000))) if one not in taken)
    taken.add(name)
    return name


class _Reading:
    """One server."""

    def __init__(
        self, name: str, server: Mapping[str, Any], found: Found, versions: Versions, files: Files
    ) -> None:
        self._name, self._server, self._found = name, server, found
        self._versions, self._files = versions, files
        self._kept: dict[str, str] = {}  # of its Secret

    def tool(self) -> dict[str, Any]:
        kind = str(self._server.get("type") or self._server.get("transport") or "")
        if kind == "sse":
            raise _Cannot("it speaks the older HTTP+SSE; ask its makers for the address of streamable HTTP")
        url = self._server.get("url") or self._server.get("serverUrl") or self._server.get("httpUrl")
        spec = self._http(_text("its url", url)) if url else self._stdio()
        if self._kept:
            self._tell_of_secret()
        return {
            "apiVersion": "agentk.dev/v1alpha1",
            "kind": "Tool",
            "metadata": {"name": self._name},
            "spec": spec,
        }

    # over HTTP

    def _http(self, url: str) -> dict[str, Any]:
        http: dict[str, Any] = {"url": url}
        headers = [self._header(name, value) for name, value in self._given("headers")]
        if headers:
            http["headers"] = headers
        return {"mcp": {"http": http}}

    def _header(self, name: str, value: str) -> dict[str, Any]:
        bearer = _BEARER.fullmatch(value)
        prefix, secret = (bearer[1], bearer[2]) if bearer else ("", value)
        if not bearer and not self._is_secret(name, value):
            return {"name": name, "value": value}
        made: dict[str, Any] = {"name": name, "valueFrom": self._reference(name, secret)}
        return made | ({"prefix": prefix} if prefix else {})

    # over stdio

    def _stdio(self) -> dict[str, Any]:
        command, given = self._server.get("command"), self._server.get("args") or []
        if not command:
            raise _Cannot("it names neither a command nor a url")
        if not isinstance(given, list):
            raise _Cannot("args is no list")
        command, args = _text("its command", command), [_text("one of args", one) for one in given]
        program = command.rpartition("/")[2].lower()
        jail: dict[str, Any] = {}
        if program in _NPX:
            stdio = self._npx(args)
        elif program in _UVX or (program in ("uv", "uv.exe") and args[:2] == ["tool", "run"]):
            stdio = self._uvx(args[2:] if program.startswith("uv.") or program == "uv" else args)
        elif program in ("docker", "podman"):
            raise _Cannot("write a Tool with jail.image and the command that its image starts")
        else:
            stdio = self._program(command, args, jail)
        env = [self._env(name, value) for name, value in self._given("env")]
        if env:
            stdio["env"] = env
        self._note("has no network; name hosts in spec.jail.network if it needs some")
        return {"mcp": {"stdio": stdio}} | ({"jail": jail} if jail else {})

    def _npx(self, args: Sequence[str]) -> dict[str, Any]:
        named, rest = _packages(args, ("-p", "--package"), ("-y", "--yes", "-q", "--quiet"))
        package, rest, command = (
            (named, rest[1:], rest[0] if rest else "") if named else (rest[0], rest[1:], "")
        )
        name, version = environments.npm_package(package)
        pinned = self._pinned("npm", name, "" if version in ("*", "latest") else version)
        return _stdio({"package": {"npm": f"{name}@{pinned}"}}, command, rest)

    def _uvx(self, args: Sequence[str]) -> dict[str, Any]:
        if args[:1] == ["run"]:  # of pipx
            args = args[1:]
        named, rest = _packages(
            args, ("--from", "--spec"), ("-q", "--quiet", "--isolated"), ("--python", "-p")
        )
        package, command = (named, rest[0] if rest else "") if named else (rest[0], "")
        name, _, version = package.replace("@", "==", 1).partition("==")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise _Cannot(f"{package} is no package of an index")
        name = environments.requirement(name).name
        pinned = self._pinned("pypi", name, "" if version == "latest" else version)
        return _stdio(
            {"package": {"pypi": f"{name}=={pinned}"}}, "" if command == name else command, rest[1:]
        )

    def _pinned(self, index: str, name: str, wanted: str) -> str:
        if _EXACT.fullmatch(wanted):
            return wanted
        version = self._versions(index, f"{name}@{wanted}" if wanted and index == "npm" else name)
        if not version:
            raise _Cannot(f"name one version of {name}, such as {name}{'@' if index == 'npm' else '=='}1.2.3")
        self._note(f"pinned to {name} {version}, the newest one today")
        return version

    def _program(self, command: str, args: Sequence[str], jail: dict[str, Any]) -> dict[str, Any]:
        made = []
        for arg in args:
            path = self._files(arg) if arg.endswith(_SCRIPTS) and not jail else ""
            if path:
                folder, _, file = path.rpartition("/")
                jail["source"] = {"path": folder}
                made.append(f"/app/{file}")
                self._found.notes.append(
                    f"{self._name}: {folder} is packed and seen at /app; packages go into jail.environment"
                )
            else:
                made.append(arg)
        short = command.rpartition("/")[2] if command.startswith("/") else command
        if short != command and not command.startswith(_SHOWN):
            self._note(
                f"{command} is not in its jail: install it below /usr, or name its folder in spec.jail.source"
            )
        return _stdio({}, short, made)

    def _env(self, name: str, value: str) -> dict[str, Any]:
        if self._is_secret(name, value):
            return {"name": name, "valueFrom": self._reference(name, value)}
        return {"name": name, "value": value}

    # what both have

    def _given(self, field: str) -> Iterator[tuple[str, str]]:
        given = self._server.get(field) or {}
        if not isinstance(given, Mapping):
            raise _Cannot(f"{field} is no object")
        for name, value in given.items():
            if value is not None:  # as editors have it: not set
                yield str(name), _text(f"{field}.{name}", value)

    def _is_secret(self, name: str, value: str) -> bool:
        looks = _LOOKS_SECRET.search(value) or _USER_IN_URL.match(value) or _VARIABLE.search(value)
        return bool(_SECRET.search(name) or looks)

    def _reference(self, name: str, value: str) -> dict[str, Any]:
        key = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "value"
        self._kept[key] = value
        return {"secretKeyRef": {"name": self._name, "key": key}}

    def _tell_of_secret(self) -> None:
        known = {key: value for key, value in self._kept.items() if not _VARIABLE.search(value)}
        data = {key: base64.b64encode(value.encode()).decode() for key, value in known.items()}
        metadata = {"name": self._name}
        self._found.secrets.append({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
        told = f'needs a Secret "{self._name}" with {", ".join(sorted(self._kept))}'
        self._note(f"{told}; --with-secrets writes what is known of it")

    def _note(self, text: str) -> None:
        self._found.notes.append(f"{self._name}: {text}")


def _text(what: str, value: Any) -> str:
    """As the programs have it that these files are for."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise _Cannot(f"{what} is no text")


def _stdio(made: dict[str, Any], command: str, args: Sequence[str]) -> dict[str, Any]:
    told: dict[str, Any] = ({"command": command} if command else {}) | made
    return told | ({"args": list(args)} if args else {})


def _packages(
    args: Sequence[str], named: Sequence[str], bare: Sequence[str], valued: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """(the package that an option names, what follows the options). Raises _Cannot."""
    package, rest = "", list(args)
    while rest and rest[0].startswith("-"):
        option, _, value = rest.pop(0).partition("=")
        if option == "--":
            break
        if option in named or option in valued:
            value = value or (rest.pop(0) if rest else "")
            package = value if option in named else package
        elif option not in bare:
            raise _Cannot(f"the option {option} is not known")
    if not rest and not package:
        raise _Cannot("it names no package")
    return package, rest
