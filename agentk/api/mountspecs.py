"""Where things are seen inside a box: no mount hides what is the box's own, or stands inside another's. Pure."""

from collections.abc import Iterator, Mapping, Set
from typing import Any

from agentk.api import kinds, skillspecs
from agentk.api.problems import Path, Problem, shown

# The box's own: a mount over, in or around one of these would hide or replace it.
_SYSTEM = ("/proc", "/sys", "/dev", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/tmp")
_OURS = (
    "/run/agentk",
    "/opt/agentk",
    "/opt/certificates",
    "/opt/env",
    "/opt/pip",
    "/opt/program",
    "/opt/python",
    skillspecs.FOLDER,
)
_WORKSPACE = "/workspace"
_SOURCE = "/app"  # spec.source is seen there

Checks = Iterator[Problem]


def of_agent(spec: Mapping[str, Any]) -> Checks:
    volumes = {volume.get("name", ""): volume for volume in spec.get("volumes") or ()}
    for at, volume in enumerate(spec.get("volumes") or ()):
        path: Path = ("spec", "volumes", at)
        if "hostPath" in volume and "path" in volume["hostPath"]:
            yield from clean_path(volume["hostPath"]["path"], (*path, "hostPath", "path"))
    mounts = spec.get("volumeMounts") or ()
    places = {_WORKSPACE, *((mount.get("mountPath") or "").rstrip("/") for mount in mounts)} - {""}
    for at, mount in enumerate(mounts):
        path = ("spec", "volumeMounts", at)
        name, target = mount.get("name"), mount.get("mountPath")
        if name is not None and name not in volumes:
            hint = (
                kinds.did_you_mean(name, sorted(volumes), "volumes") if volumes else "spec.volumes has none"
            )
            yield Problem(
                (*path, "name"), f"no volume is named {shown(name)}", hint, reason="FieldValueNotFound"
            )
        if target is not None:
            guarded = (*_SYSTEM, *_OURS, *((_SOURCE,) if "source" in spec else ()), *_package_places(spec))
            yield from _mount_target(target, guarded, (*path, "mountPath"))
            yield from _mount_alone(places, target, (*path, "mountPath"))


def of_venv(environment: Mapping[str, Any], where: Path) -> Checks:
    """The place of an environment of one's own."""
    venv = (environment.get("python") or {}).get("venv")
    if venv is not None:
        path = (*where, "python", "venv")
        yield from clean_path(venv, path)
        hidden = (*(one for one in _SYSTEM if one not in ("/usr", "/tmp")), *_OURS, _WORKSPACE, _SOURCE)
        if not str(venv).startswith("/usr/"):
            yield from _mount_target(venv, hidden, path)


def clean_path(text: str, path: Path) -> Checks:
    """It leads where it says."""
    if any(part in (".", "..") for part in text.split("/")) or "//" in text:
        yield Problem(path, f"expected a path without '.', '..' and '//', found {shown(text)}")


def _package_places(spec: Mapping[str, Any]) -> Iterator[str]:
    """Where packages are seen."""
    environment = spec.get("environment") or {}
    if environment.get("node"):
        yield "/node_modules"
    venv = (environment.get("python") or {}).get("venv")
    if venv:
        yield str(venv).rstrip("/")


def _mount_target(target: str, guarded: tuple[str, ...], path: Path) -> Checks:
    wrong = list(clean_path(target, path))
    yield from wrong
    plain = target.rstrip("/")
    for system in guarded if not wrong else ():
        if plain == system or plain.startswith(f"{system}/") or system.startswith(f"{plain}/"):
            hint = "mount it below /mnt, /opt or /srv"
            yield Problem(path, f"must not hide {system}, which is the box's own", hint)
            return


def _mount_alone(others: Set[str], target: str, path: Path) -> Checks:
    """Inside of another mount, whoever writes that one could make the place a link to anywhere."""
    plain = target.rstrip("/")
    for at in (at for at, letter in enumerate(plain) if letter == "/"):
        if plain[:at] in others:
            yield Problem(
                path, f"must not be inside of another mount, {plain[:at]}", "mount it below /mnt or /srv"
            )
            return
