"""What `spec.environment` asks for: requirement lines, locks and npm packages, as plain data. Pure.

Only names and versions that an index resolves are let in. A URL, a path, a repository or an option of the installer
could fetch from elsewhere or run something, so each is refused with its line, here and before anything is fetched.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agentk.api import errors

FORMAT = 1  # of what is built: a change of how makes every digest anew
_LOCK_MAX_LINES = 20_000
_LINE_MAX = 1024  # of a requirement without its hashes
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VERSION = r"[A-Za-z0-9.*+!_-]+"
_CLAUSE = rf"(?:===|==|~=|!=|<=|>=|<|>)\s*{_VERSION}"
_REQUIREMENT = re.compile(
    rf"(?P<name>{_NAME})\s*(?:\[\s*(?P<extras>{_NAME}(?:\s*,\s*{_NAME})*)\s*\])?\s*"
    rf"(?P<versions>\(?\s*(?:{_CLAUSE}(?:\s*,\s*{_CLAUSE})*)?\s*\)?)\s*(?:;\s*(?P<marker>[^;#\\]+))?"
)
_HASH = re.compile(r"\s+--hash[= ](sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})(?=\s|$)")
_NPM_NAME = r"(?:@[a-z0-9][a-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*"
_NPM = re.compile(rf"(?P<name>{_NPM_NAME})(?:@(?P<version>[0-9A-Za-z^~<>=*|. +-]+))?")
_INTEGRITY = re.compile(r"sha(?:256|384|512)-[A-Za-z0-9+/]+={0,2}(?:\s|$)")


class Requirement(NamedTuple):
    """One line: its normal form, and its hashes."""

    text: str
    name: str
    hashes: tuple[str, ...] = ()


def requirement(line: str) -> Requirement:
    """A PEP 508 line with a name, extras, versions and a marker. Raises Invalid."""
    found = _REQUIREMENT.fullmatch(line.strip()) if len(line) <= _LINE_MAX else None
    if found is None:
        raise errors.Invalid(_why_not(line), hint="such as openai, openai==2.1.0 or 'httpx[http2]>=0.27,<1'")
    name = re.sub(r"[-_.]+", "-", found["name"]).lower()
    extras = ",".join(
        sorted(word.strip().lower() for word in (found["extras"] or "").split(",") if word.strip())
    )
    versions = ",".join(sorted(re.sub(r"[\s()]", "", found["versions"]).split(",")))
    marker = " ".join((found["marker"] or "").split())
    text = name + (f"[{extras}]" if extras else "") + versions + (f" ; {marker}" if marker else "")
    return Requirement(text, name)


def lock(text: str) -> list[Requirement]:
    """A requirements file in which every line has one version and its hashes. Raises Invalid naming the line."""
    found: dict[str, Requirement] = {}
    for number, line in _logical_lines(text):
        hashes = tuple(sorted(_HASH.findall(line)))
        try:
            one = requirement(_HASH.sub("", line))
        except errors.Invalid as error:
            raise errors.Invalid(f"line {number}: {error.message}", hint=error.hint) from None
        if not hashes or not re.search(r"===?[^=*]+$", one.text.split(" ;")[0]):
            raise errors.Invalid(
                f"line {number}: {one.name} needs one exact version and at least one --hash=sha256:…",
                hint="uv pip compile --generate-hashes, or pip-compile --generate-hashes, writes such a file",
            )
        found[one.text] = one._replace(hashes=hashes)
    if not found:
        raise errors.Invalid("the lock names no package")
    return [found[text] for text in sorted(found)]


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    lines = text.splitlines()
    if len(lines) > _LOCK_MAX_LINES:
        raise errors.Invalid(f"more than {_LOCK_MAX_LINES} lines")
    held, began = "", 0
    for number, raw in enumerate(lines, 1):
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        began = began if held else number
        if line.endswith("\\"):
            held += line[:-1] + " "
            continue
        if (held + line).strip():
            yield began, (held + line).strip()
        held = ""
    if held.strip():
        yield began, held.strip()


def _why_not(line: str) -> str:
    shown = line.strip()[:100]
    if shown.startswith("-"):
        return (
            f"an option of pip is not a requirement: {shown}; indexes are those of your own pip configuration"
        )
    if "@" in shown or "://" in shown or "/" in shown:
        return f"only names that an index resolves, no URL, path or repository: {shown}"
    return f"not a requirement: {shown}"


def npm_package(text: str) -> tuple[str, str]:
    """Name and version range of `left-pad@^1.3.0`; "*" without one. Raises Invalid."""
    found = _NPM.fullmatch(text.strip())
    if found is None or ".." in text:
        raise errors.Invalid(
            f"not a package of a registry: {text.strip()[:100]}",
            hint="such as left-pad@1.3.0 or @scope/name@^2",
        )
    return found["name"], (found["version"] or "*").strip()


def npm_lock(text: str) -> dict[str, Any]:
    """A package-lock.json with everything from a registry, by its integrity. Raises Invalid naming the package.

    Where it was once fetched from is left out: the registry is the one of the user's own npm configuration.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.Invalid(f"is not JSON: {error}") from None
    packages = found.get("packages") if isinstance(found, dict) else None
    if not isinstance(packages, dict) or found.get("lockfileVersion") not in (2, 3):
        raise errors.Invalid(
            "expected a package-lock.json of version 2 or 3", hint="npm install --package-lock-only"
        )
    made: dict[str, Any] = {}
    for path in sorted(packages):
        one = packages[path]
        if not isinstance(one, dict):
            raise errors.Invalid(f"{path or 'the root'}: expected an object")
        made[path] = {key: value for key, value in one.items() if key != "resolved"}
        if not path:
            made[path] = _npm_root(one)
            continue
        if one.get("inBundle"):
            continue
        if one.get("link") or not re.fullmatch(
            rf"node_modules/{_NPM_NAME}(?:/node_modules/{_NPM_NAME})*", path
        ):
            raise errors.Invalid(f"{path}: only packages of a registry, no link or workspace")
        if not _INTEGRITY.match(str(one.get("integrity") or "")) or not re.match(
            r"\d", str(one.get("version") or "")
        ):
            raise errors.Invalid(f"{path}: needs a version and an integrity, as packages of a registry have")
    if len(made) < 2:
        raise errors.Invalid("the lock names no package")
    return {
        "name": "environment",
        "version": "0.0.0",
        "lockfileVersion": 3,
        "requires": True,
        "packages": made,
    }


def _npm_root(root: Mapping[str, Any]) -> dict[str, Any]:
    """What the lock was made for, without development, scripts and whatever else a project has."""
    wanted: dict[str, Any] = {"name": "environment", "version": "0.0.0"}
    for group in ("dependencies", "optionalDependencies"):
        held = root.get(group) or {}
        if not isinstance(held, dict):
            raise errors.Invalid(f"{group} of the root: expected an object")
        for name, version in held.items():
            npm_package(f"{name}@{version}")
        if held:
            wanted[group] = dict(sorted(held.items()))
    return wanted


def request(environment: Mapping[str, Any], language: str) -> dict[str, Any] | None:
    """What is to be built for a language, in its normal form: the same words in another order are the same. None when
    nothing is: not asked for, or a virtual environment that is there already. Raises Invalid."""
    asked = environment.get(language) or {}
    if language == "python":
        if asked.get("lock"):
            return {"lock": [" ".join([one.text, *one.hashes]) for one in lock(asked["lock"])]}
        if asked.get("requirements"):
            return {"requirements": sorted({requirement(line).text for line in asked["requirements"]})}
    elif language == "node":
        if asked.get("lock"):
            return {"lock": npm_lock(asked["lock"])}
        if asked.get("packages"):
            return {"packages": sorted({"@".join(npm_package(text)) for text in asked["packages"]})}
    return None


def digest(wanted: Mapping[str, Any], language: str, interpreter: Sequence[str]) -> str:
    """The name of the environment that this request makes for that interpreter."""
    text = json.dumps([FORMAT, language, wanted, list(interpreter)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def problems(environment: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Path below `environment`, message and hint of everything that cannot be asked for. Fields may be missing."""
    python, node = environment.get("python") or {}, environment.get("node") or {}
    for at, line in enumerate(python.get("requirements") or ()):
        yield from _told(lambda line=line: requirement(line), ("python", "requirements", at))
    for at, package in enumerate(node.get("packages") or ()):
        yield from _told(lambda package=package: npm_package(package), ("node", "packages", at))
    if python.get("lock") is not None:
        yield from _told(lambda: lock(python["lock"]), ("python", "lock"))
    if node.get("lock") is not None:
        yield from _told(lambda: npm_lock(node["lock"]), ("node", "lock"))


def _told(parse: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    try:
        parse()
    except errors.Invalid as error:
        yield path, error.message, error.hint
