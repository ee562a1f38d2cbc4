"""Manifests from where people keep them: files, directories, stdin; and their sources, packed and uploaded."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from agentk.api import errors, kinds, manifest, parts, skillspecs
from agentk.cli import usage
from agentk.client import client, packages, skillfolders, sources

_QUIET_SECONDS = 1.0  # an upload that takes longer shows how far it is
_MOST_BYTES = manifest.MAX_BYTES + 1
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


@dataclass(frozen=True)
class Wanted:
    """One object to be sent, with the kind and the namespace it belongs to."""

    manifest: manifest.Manifest
    kind: kinds.Kind
    namespace: str
    name: str

    @property
    def obj(self) -> dict[str, Any]:
        return self.manifest.obj

    def __str__(self) -> str:
        group = f".{self.kind.group}" if self.kind.group else ""
        return f"{self.kind.singular}{group}/{self.name}"


def read(
    files: Sequence[str], recursive: bool, namespace_option: str, default_namespace: str
) -> list[Wanted]:
    """Every object of the files, in the order to apply them. Raises Invalid with file, line and column."""
    if not files:
        raise usage.Usage("say which manifests", hint="-f FILE, -f DIRECTORY or -f - for stdin")
    found = [one for name in files for one in _parsed(name, recursive)]
    if not found:
        raise errors.Invalid(f"no objects in {', '.join(files)}")
    wanted = [resolve(one, namespace_option, default_namespace) for one in found]
    return sorted(wanted, key=lambda one: sources.rank(one.kind))


def resolve(one: manifest.Manifest, namespace_option: str, default_namespace: str) -> Wanted:
    """Which kind, namespace and name a manifest means."""
    obj = one.obj
    metadata = obj.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    for field, value in (("apiVersion", obj.get("apiVersion")), ("kind", obj.get("kind"))):
        if not isinstance(value, str) or not value:
            raise placed(one, (field,), errors.Invalid(f"{field} is missing", field=field))
    try:
        kind = kinds.find(obj["apiVersion"], obj["kind"])
    except errors.BadRequest as error:
        raise placed(one, (error.field,), error) from None
    name, written = metadata.get("name"), metadata.get("namespace")
    if not isinstance(name, str) or not name:
        raise placed(one, ("metadata",), errors.Invalid(f"{obj['kind']}: metadata.name is missing"))
    if not kind.namespaced:
        return Wanted(one, kind, "", name)
    if written and namespace_option and written != namespace_option:
        message = f"{kind.singular} {name!r} is of namespace {written!r}, and -n says {namespace_option!r}"
        raise placed(one, ("metadata", "namespace"), usage.Usage(message))
    return Wanted(one, kind, str(written or default_namespace), name)


def with_source(api: client.Client, wanted: Wanted) -> Wanted:
    """Pack `source.path`, upload it when the daemon lacks it, and name it by digest in the object."""
    part: Any = parts.of(wanted.kind, wanted.obj)
    source: Any = part.get("source") if isinstance(part, dict) else None
    path = source.get("path") if isinstance(source, dict) else None
    if not isinstance(path, str):
        return wanted
    from agentk.client import packing  # tarfile and tempfile: only for those who have a source

    one = wanted.manifest
    try:
        with packing.pack(_folder(one) / path) as packed:
            upload(api, packed.digest, packed.file, packed.size_bytes, str(wanted))
    except errors.AgentkError as error:
        field = f"{parts.field(wanted.kind)}.source.path"
        raise placed(one, tuple(field.split(".")), error) from None
    return _with_part(wanted, {**part, "source": {**source, "digest": packed.digest}})


def with_locks(wanted: Wanted) -> Wanted:
    """The text of lock and context files in the object. Raises Invalid, at its place, for one that cannot be read."""
    part = parts.of(wanted.kind, wanted.obj)
    try:
        read = packages.with_locks(part, _folder(wanted.manifest), parts.field(wanted.kind))
    except errors.AgentkError as error:
        raise placed(wanted.manifest, _steps(error.field), error) from None
    return wanted if read is part else _with_part(wanted, read)


def _with_part(wanted: Wanted, part: Any) -> Wanted:
    obj = parts.put(wanted.kind, wanted.obj, part)
    return replace(wanted, manifest=replace(wanted.manifest, obj=obj))


def _folder(one: manifest.Manifest) -> Path:
    """What the paths of a manifest are relative to."""
    return Path(one.source).parent if Path(one.source).is_file() else Path()


def upload(api: client.Client, digest: str, file: IO[bytes], size_bytes: int, what: str) -> None:
    """Send an archive unless the daemon has it; on a terminal, say how far it is after a second."""
    if not api.has_blob(digest):
        api.put_blob(digest, Meter(file, _progress(what, size_bytes)), size_bytes)


def located(error: errors.AgentkError, wanted: Wanted) -> errors.AgentkError:
    """The daemon's error with the place in the file that caused it."""
    if error.line:
        return error
    if isinstance(error, errors.Invalid):
        from agentk.api import admit  # jsonschema: only when something is wrong

        try:
            admit.admit(wanted.obj, wanted.manifest)
        except errors.Invalid as here:
            return here
    if not error.causes:
        return placed(wanted.manifest, _steps(error.field), error)
    error.file = error.file or wanted.manifest.source
    error.causes = [_cause_located(cause, wanted.manifest) for cause in error.causes]
    return error


def _cause_located(cause: errors.Cause, one: manifest.Manifest) -> errors.Cause:
    if cause.line:
        return cause
    line, column = one.position(_steps(cause.field))
    return replace(cause, file=one.source, line=line, column=column)


def _steps(field: str) -> tuple[str | int, ...]:
    """`spec.secrets[0].name` as the steps to it."""
    return tuple(int(number) if number else name for number, name in _STEP.findall(field))


class Meter:
    """An archive being read, telling how far it got."""

    def __init__(self, file: IO[bytes], told: Callable[[int], None]) -> None:
        self._file, self._told, self._done = file, told, 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._done += len(data)
        self._told(self._done if data else -1)
        return data


def _progress(what: str, size_bytes: int) -> Callable[[int], None]:
    started, shown = time.monotonic(), False

    def told(done: int) -> None:
        nonlocal shown
        if done < 0 and shown:
            print(file=sys.stderr)
        elif done >= 0 and sys.stderr.isatty() and time.monotonic() - started > _QUIET_SECONDS:
            shown = True
            words = f"{done / 2**20:.0f} of {size_bytes / 2**20:.0f} MiB ({done * 100 // size_bytes} %)"
            print(f"\r{what}: uploading its source, {words}", end="", file=sys.stderr, flush=True)

    return told


def _parsed(name: str, recursive: bool) -> Iterator[manifest.Manifest]:
    if name == "-":
        yield from manifest.parse(sys.stdin.buffer.read(_MOST_BYTES), "stdin")
        return
    if name.startswith(("http://", "https://")):
        raise usage.Usage(f"{name}: only files are read", hint=f"curl -fsSL {name} | agentk apply -f -")
    for path in _files(Path(name), recursive):
        if path.name == skillspecs.FILE:
            yield manifest.Manifest(skillfolders.read(path.parent), str(path))
            continue
        try:
            with open(path, "rb") as file:
                text = file.read(_MOST_BYTES)
        except OSError as error:
            raise errors.Invalid(f"{path} cannot be read: {error.strerror}") from None
        yield from manifest.parse(text, str(path))


def _files(path: Path, recursive: bool) -> list[Path]:
    if not path.exists():
        raise errors.NotFound(f"{path} does not exist")
    if not path.is_dir():
        return [path]
    if skillfolders.is_skill(path):
        return [path / skillspecs.FILE]
    inside = sorted(path.rglob("*") if recursive else path.iterdir())
    skills = [one.parent for one in inside if one.name == skillspecs.FILE and one.is_file()]
    files = [one for one in inside if one.suffix in sources.SUFFIXES and one.is_file()]
    # What lies in a Skill's folder is the Skill's, manifests too.
    files = [one for one in files if not any(one.is_relative_to(skill) for skill in skills)]
    files += [skill / skillspecs.FILE for skill in skills]
    if not files:
        hint = "" if recursive else "add -R for the directories below it"
        raise errors.NotFound(f"no .yaml, .yml or .json file in {path}, nor {skillspecs.FILE}", hint=hint)
    return sorted(files)


def placed(
    one: manifest.Manifest, path: tuple[str | int, ...], error: errors.AgentkError
) -> errors.AgentkError:
    """The same error, with file, line and column filled in."""
    if not error.file:
        error.file = one.source
        error.line, error.column = one.position(path)
    return error
