"""Objects from where programs have them, and on their way to the daemon with the source they name, packed."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentk.api import errors, kinds, parts
from agentk.client import client, packages, skillfolders

Object = dict[str, Any]

SUFFIXES = (".yaml", ".yml", ".json")
# What others refer to comes first, so that manifests in any order apply in one go.
_FIRST = (
    *("Namespace", "Runtime", "Policy", "Quota", "Secret", "ConfigMap", "ModelRoute", "Pool", "Tool"),
    "Skill",
)


@dataclass(frozen=True)
class Source:
    """One object, and the folder that its paths are relative to."""

    obj: Object
    kind: kinds.Kind
    folder: Path

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])

    def namespace(self, usual: str) -> str:
        if not self.kind.namespaced:
            return ""
        return str(self.obj["metadata"].get("namespace") or usual)


def read(given: str | Path | Mapping[str, Any]) -> list[Source]:
    """A dict, YAML text of several lines, a file, a Skill's folder, or every manifest of a directory.

    Raises Invalid and NotFound.
    """
    if isinstance(given, Mapping):
        return [_source(dict(given), Path())]
    from agentk.api import manifest  # yaml: only for those who have text

    if isinstance(given, str) and "\n" in given:
        return [_source(one.obj, Path()) for one in manifest.parse(given, "text")]
    if skillfolders.is_skill(Path(given)):
        return [_source(skillfolders.read(Path(given)), Path(given))]
    found = []
    for path in _files(Path(given)):
        with open(path, "rb") as file:
            text = file.read(manifest.MAX_BYTES + 1)
        found += [_source(one.obj, path.parent) for one in manifest.parse(text, str(path))]
    return found


def ordered(found: Sequence[Source]) -> list[Source]:
    """What others refer to first, else as given."""
    return sorted(found, key=lambda one: rank(one.kind))


def rank(kind: kinds.Kind) -> int:
    """The place of a kind among those that are applied together."""
    return _FIRST.index(kind.kind) if kind.kind in _FIRST else len(_FIRST)


def apply(api: client.Client, one: Source, namespace: str, *, force: bool = False) -> Object:
    """Server-side apply, what it needs of this machine sent before. Answers with the object as it is now."""
    obj = one.obj
    part = parts.of(one.kind, obj)
    if part is not None:
        packages.tell_indexes(api, [part], os.environ)
        part = packages.with_locks(_packed(api, part, one.folder), one.folder, parts.field(one.kind))
        obj = parts.put(one.kind, obj, part)
    return api.apply(one.kind, one.namespace(namespace), obj, force=force).obj


def _packed(api: client.Client, part: Any, folder: Path) -> Any:
    """`source.path` named by its digest as well, which the daemon has then."""
    source = part.get("source") if isinstance(part, dict) else None
    if not isinstance(source, dict) or not isinstance(source.get("path"), str):
        return part
    from agentk.client import packing

    with packing.pack(folder / source["path"]) as packed:
        if not api.has_blob(packed.digest):
            api.put_blob(packed.digest, packed.file, packed.size_bytes)
        return {**part, "source": {**source, "digest": packed.digest}}


def _source(obj: Object, folder: Path) -> Source:
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise errors.Invalid("metadata.name is missing", field="metadata.name")
    if not isinstance(obj.get("apiVersion"), str) or not isinstance(obj.get("kind"), str):
        raise errors.Invalid("apiVersion and kind are missing", field="kind")
    return Source(obj, kinds.find(obj["apiVersion"], obj["kind"]), folder)


def _files(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise errors.NotFound(f"{path} does not exist")
    if not path.is_dir():
        yield path
        return
    yield from sorted(one for one in path.iterdir() if one.suffix in SUFFIXES and one.is_file())
