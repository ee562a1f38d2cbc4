"""What a Policy allows of a box. Pure; every denial names its rule.

Packages: at level restricted from a lock with hashes, else any, unless `isolation.packages` says otherwise.
Host paths: at level privileged any unless `isolation.hostPaths` is given, at baseline those listed, at restricted
none. Runtimes: those in `allowRuntimes`; when that is not given, at level privileged any, else those that isolate.
"""

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from agentk.control import references
from agentk.control.plans import Problem

Seccomp = Literal["privileged", "baseline", "restricted"]
_STRICTNESS: tuple[Seccomp, ...] = ("privileged", "baseline", "restricted")
DENIED = "PolicyDenied"
ISOLATED = ("nsjail", "podman")


def seccomp(runtime: Mapping[str, Any], policy: Mapping[str, Any]) -> Seccomp:
    """The stricter of what the Runtime's spec and the Policy say."""
    spec = policy.get("spec") or {}
    asked = [
        runtime.get("seccomp", "baseline"),
        (spec.get("isolation") or {}).get("seccomp") or spec.get("level", "restricted"),
    ]
    known = [_STRICTNESS.index(one) if one in _STRICTNESS else len(_STRICTNESS) - 1 for one in asked]
    return _STRICTNESS[max(known)]


def problems(
    spec: Mapping[str, Any], runtime: Mapping[str, Any] | None, policy: Mapping[str, Any] | None
) -> Iterator[Problem]:
    """Why the Policy, or a missing one, forbids this agent."""
    if runtime is None:
        told = f'Runtime "{references.runtime_name(spec)}" does not exist; agentk get runtimes shows those that do'
        yield Problem("RuntimeNotFound", told)
    if policy is None:
        yield Problem("PolicyNotFound", f'Policy "{references.policy_name(spec)}" does not exist')
        return
    name, rules = policy["metadata"]["name"], policy.get("spec") or {}
    level, isolation = rules.get("level", "restricted"), rules.get("isolation") or {}
    if runtime is not None:
        yield from _runtime(runtime, name, level, isolation.get("allowRuntimes"))
    yield from _environment(spec.get("environment") or {}, name, level, isolation)
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or () if "hostPath" in volume}
    writable = {m["name"] for m in spec.get("volumeMounts") or () if not m.get("readOnly")}
    for volume_name, volume in volumes.items():
        denied = _host_path(
            volume["hostPath"]["path"], volume_name in writable, level, isolation.get("hostPaths")
        )
        if denied:
            yield Problem(DENIED, f'Policy "{name}" {denied}')


def _environment(
    environment: Mapping[str, Any], policy: str, level: str, isolation: Mapping[str, Any]
) -> Iterator[Problem]:
    packages = isolation.get("packages") or ("Locked" if level == "restricted" else "Any")
    rule = (
        f"isolation.packages is {packages}" if "packages" in isolation else f"level {level} allows {packages}"
    )
    for language, asked in environment.items():
        if "venv" in asked:
            denied = _host_path(asked["venv"], False, level, isolation.get("hostPaths"))
            if denied:
                yield Problem(DENIED, f'Policy "{policy}" {denied} (environment.{language}.venv)')
        elif packages == "None" or (packages == "Locked" and not {"lock", "lockFile"} & set(asked)):
            more = "; give a lock with hashes" if packages == "Locked" else ""
            yield Problem(DENIED, f'Policy "{policy}" does not allow environment.{language}: {rule}{more}')


def _runtime(
    runtime: Mapping[str, Any], policy: str, level: str, allowed: list[str] | None
) -> Iterator[Problem]:
    name, kind = runtime["metadata"]["name"], runtime["spec"].get("type")
    if allowed is not None:
        if name not in allowed:
            rule = f'isolation.allowRuntimes does not list "{name}"'
            yield Problem(DENIED, f'Policy "{policy}" does not allow Runtime "{name}": {rule}')
    elif level != "privileged" and kind not in ISOLATED:
        rule = f"level {level} allows only isolated Runtimes, and its type is {kind}"
        yield Problem(DENIED, f'Policy "{policy}" does not allow Runtime "{name}": {rule}')


def _host_path(path: str, writable: bool, level: str, listed: list[Mapping[str, Any]] | None) -> str:
    """Why not; "" when it is allowed."""
    if posixpath.normpath(path) != path.rstrip("/") and path != "/":
        return f"does not allow hostPath {path}: it is not a plain absolute path"
    if level == "restricted":
        return f"does not allow hostPath {path}: level restricted allows none"
    if listed is None and level == "privileged":
        return ""
    for rule in listed or ():
        prefix = str(rule["pathPrefix"]).rstrip("/")
        if path.rstrip("/") == prefix or path.startswith(f"{prefix}/"):
            if writable and rule.get("readOnly", True):
                return f"allows hostPath {path} only with readOnly: isolation.hostPaths {rule['pathPrefix']}"
            return ""
    return f"does not allow hostPath {path}: isolation.hostPaths does not list it"
