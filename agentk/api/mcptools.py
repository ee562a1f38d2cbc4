"""What `spec.mcp` of a Tool means: how its server is started, what its jail holds besides, what is wrong with it. Pure.

A package is named with one exact version. All it needs is resolved once, kept with its hashes, and installed in jails
that have no network; then the server starts without any.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib import parse

from agentk.api import environments, errors
from agentk.api.problems import Path, Problem

Spec = Mapping[str, Any]

_EXACT = re.compile(r"[0-9][0-9A-Za-z.!+_-]*")
_PATH: Path = ("spec", "mcp")

# Programs of ours that find what a package starts and become it: a package tells in its own files.
_NODE = (
    "const fs=require('fs'),path=require('path'),url=require('url');"
    "const[name,...rest]=process.argv.slice(1);const home=path.join('/node_modules',name);"
    "const bin=JSON.parse(fs.readFileSync(path.join(home,'package.json'))).bin;"
    "const short=name.split('/').pop();"
    "const file=typeof bin==='string'?bin:bin&&(bin[short]||Object.values(bin)[0]);"
    "if(!file){console.error(name+' starts nothing: name a command');process.exit(126)}"
    "const main=fs.realpathSync(path.join(home,file));process.argv=[process.argv[0],main,...rest];"
    "import(url.pathToFileURL(main).href)"
)
_PYTHON = (
    "import sys;from importlib.metadata import distribution as d\n"
    "name,*rest=sys.argv[1:]\n"
    "found={e.name:e for e in d(name).entry_points if e.group=='console_scripts'}\n"
    "if not found:sys.exit(name+' starts nothing: name a command')\n"
    "sys.argv=[name,*rest];sys.exit((found.get(name)or next(iter(found.values()))).load()())"
)


def package(mcp: Spec) -> tuple[str, str, str] | None:
    """(npm or pypi, name, version) of its server, when it is a package. Raises Invalid."""
    wanted = (mcp.get("stdio") or {}).get("package") or {}
    if "npm" in wanted:
        name, version = environments.npm_package(str(wanted["npm"]))
        return "npm", name, _exact(version, f"{name}@1.2.3")
    if "pypi" in wanted:
        name, _, version = str(wanted["pypi"]).replace("@", "==").partition("==")
        found = environments.requirement(f"{name}=={version}" if version else name)
        return "pypi", found.name, _exact(version.strip(), f"{found.name}==1.2.3")
    return None


def argv(mcp: Spec) -> list[str]:
    """What is started in the box."""
    stdio = mcp["stdio"]
    args = [str(one) for one in stdio.get("args") or ()]
    if stdio.get("command"):
        return [str(stdio["command"]), *args]
    found = package(mcp)
    assert found is not None  # admission wants one of the two
    kind, name, _ = found
    return (
        ["node", "-e", _NODE, "--", name, *args] if kind == "npm" else ["python3", "-c", _PYTHON, name, *args]
    )


def jail(spec: Spec) -> dict[str, Any]:
    """Of `spec.jail`, with what the server itself asks for: its package, and its environment."""
    made = dict(spec.get("jail") or {})
    mcp = spec.get("mcp") or {}
    stdio = mcp.get("stdio") or {}
    if stdio.get("env"):
        told = {str(one["name"]): one for one in [*(made.get("env") or ()), *stdio["env"]]}
        made["env"] = list(told.values())
    if found := package(mcp):
        kind, name, version = found
        held = dict(made.get("environment") or {})
        if kind == "npm":
            held["node"] = {"packages": [f"{name}@{version}"]}
        else:
            held["python"] = {"requirements": [f"{name}=={version}"]}
        made["environment"] = held
    return made


def problems(spec: Spec) -> Iterator[Problem]:
    """What a schema cannot say of it."""
    mcp = spec["mcp"]
    if "http" in mcp:
        yield from _http(spec, mcp["http"])
    elif "stdio" in mcp:
        yield from _stdio(spec, mcp["stdio"])


def _stdio(spec: Spec, stdio: Spec) -> Iterator[Problem]:
    path = (*_PATH, "stdio")
    if not stdio.get("command") and not stdio.get("package"):
        yield Problem((*path, "command"), "is required without a package", reason="FieldValueRequired")
    for index in ("npm", "pypi"):
        if index not in (stdio.get("package") or {}):
            continue
        try:
            package(spec["mcp"])
        except errors.Invalid as error:
            yield Problem((*path, "package", index), error.message, error.hint)
        language = "node" if index == "npm" else "python"
        if language in ((spec.get("jail") or {}).get("environment") or {}):
            told = f"spec.mcp.stdio.package.{index} is its environment already"
            yield Problem(("spec", "jail", "environment", language), told, at_key=True)


def _http(spec: Spec, http: Spec) -> Iterator[Problem]:
    path = (*_PATH, "http")
    if "jail" in spec:
        yield Problem(("spec", "jail"), "a server behind HTTP runs elsewhere: it needs no jail", at_key=True)
    try:
        url = parse.urlsplit(str(http.get("url", "")))
        wrong = (
            url.scheme not in ("http", "https")
            or not url.hostname
            or url.username is not None
            or url.fragment
        )
        _ = url.port
    except ValueError:
        wrong = True
    if wrong:
        yield Problem((*path, "url"), "expected http:// or https://, a host, and no user or fragment")
    for at, header in enumerate(http.get("headers") or ()):
        if "value" not in header and "valueFrom" not in header:
            yield Problem((*path, "headers", at, "value"), "is required", reason="FieldValueRequired")
        if header.get("name", "").lower() in _OURS:
            yield Problem((*path, "headers", at, "name"), "is the protocol's own")


def _exact(version: str, example: str) -> str:
    if not _EXACT.fullmatch(version):
        raise errors.Invalid("name one exact version", hint=f"such as {example}")
    return version


_OURS = frozenset(
    {"accept", "content-type", "content-length", "host", "connection", "transfer-encoding", "mcp-session-id",
     "mcp-protocol-version", "mcp-method", "mcp-name", "last-event-id"}
)  # fmt: skip
