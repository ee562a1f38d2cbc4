"""The objects every installation begins with, and how they follow a later version of agentk.

One that nobody changed becomes what the new version ships. One that a person changed or deleted stays so, and an Event
says once for each version what it does not follow. What was changed is seen by a digest that is kept with the object:
whoever writes it, with whatever name, the content no longer fits it.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from agentk.api import admit, errors, kinds, manifest, objects, ownership
from agentk.store import store as stores

SHIPPED = "agentk.dev/shipped"  # annotation: digest of what was shipped, and of what the object was after it
_MANAGER = (
    "agentk"  # the command line's own name as an owner of fields: who applies it changed meets no other owner
)
_KEEPER = "agentk-daemon"  # owner of the annotation alone
_COMPONENT = "agentk-daemon"
_FIRST_BOOT_SECONDS = 10.0
_DIGEST_LETTERS = 16

_log = logging.getLogger(__name__)

Object = dict[str, Any]
What = Literal["create", "leave", "note", "follow", "tell"]


@dataclass(frozen=True)
class Shipped:
    """One object of this version."""

    file: str
    kind: kinds.Kind
    wanted: Object  # as it is applied
    whole: Object  # with defaults

    @property
    def at(self) -> tuple[str | None, str]:
        metadata = self.whole["metadata"]
        return metadata.get("namespace"), str(metadata["name"])

    @property
    def key(self) -> str:
        return "/".join((self.kind.kind, self.at[0] or "", self.at[1]))


async def furnish(store: stores.Store, folder: Path, marker: Path, version: str) -> None:
    """Repeatable. `marker`: the file that remembers what was here once, so that what was deleted stays so."""
    known, texts = _remembered(marker), _texts(folder)
    whole = f"sha256:{hashlib.sha256(json.dumps(texts).encode()).hexdigest()}"
    if whole in known:
        return  # nothing is new
    first = await store.find(kinds.NAMESPACE, None, "default")
    first_boot = str(first["metadata"]["creationTimestamp"]) if first else ""
    looked_at = set(texts)
    for one in _shipped(texts):
        looked_at.add(one.key)
        live = await store.find(one.kind, *one.at)
        try:
            await _act(store, one, live, decide(one, live, known, first_boot), version)
        except errors.AgentkError as error:
            _log.warning(
                "%s could not be furnished, and is looked at again by the next daemon: %s", one.key, error
            )
            whole = ""
    _remember(marker, {one for one in known if not one.startswith("sha256:")} | looked_at | ({whole} - {""}))


def decide(shipped: Shipped, live: Object | None, known: set[str], first_boot: str) -> What:
    """Pure. `known`: names of files and keys of objects that were shipped here before."""
    by_files_alone = not any("/" in name for name in known)  # what an earlier version wrote
    was_here = shipped.key in known or (by_files_alone and shipped.file in known)
    if live is None:
        return "leave" if was_here else "create"
    if live["metadata"].get("deletionTimestamp"):
        return "leave"
    seen, _, after = str((live["metadata"].get("annotations") or {}).get(SHIPPED, "")).partition("-")
    new, now = _digest(shipped.whole), _digest(live)
    if now == new:
        return "leave" if (seen, after) == (new, now) else "note"
    if now in (seen, after) or (not seen and was_here and _is_as_made(live, first_boot)):
        return "leave" if seen == new else "follow"
    return "leave" if seen == new else "tell"


async def _act(store: stores.Store, shipped: Shipped, live: Object | None, what: What, version: str) -> None:
    if what == "create":
        owned = ownership.apply(None, shipped.wanted, _MANAGER, False, stores.now_text())
        with contextlib.suppress(errors.AlreadyExists):
            await store.create(_noted(admit.admit(owned), shipped))
    if live is None or what in ("create", "leave"):
        return

    def change(found: Object) -> Object:
        if what != "follow":
            return _noted(found, shipped, of_person=what == "tell")
        if _digest(found) != _digest(live):
            raise errors.Conflict("somebody changed it meanwhile")
        made = ownership.apply(found, shipped.wanted, _MANAGER, False, stores.now_text())
        return _noted(admit.admit(made), shipped)

    await store.amend(shipped.kind, live, lambda found: objects.replace(shipped.kind, found, change(found)))
    if what == "follow":
        told = "Normal", "FollowsVersion", f"nobody had changed it: it is what agentk {version} ships"
        await _tell(store, live, *told)
    elif what == "tell":
        said = f"it was changed here, so it does not follow what agentk {version} ships"
        await _tell(
            store, live, "Normal", "KeptAsChanged", f"{said}: compare it with manifests/{shipped.file}"
        )


async def _tell(store: stores.Store, live: Object, type: str, reason: str, message: str) -> None:
    _log.info("%s %s: %s", live["kind"], live["metadata"]["name"], message)
    await store.record_event(live, type, reason, message, stores.now_text(), _COMPONENT)


def _noted(obj: Object, shipped: Shipped, of_person: bool = False) -> Object:
    """With what it is compared with by later versions."""
    value = f"{_digest(shipped.whole)}-{'changed' if of_person else _digest(obj)}"
    metadata = obj["metadata"]
    annotations = {**(metadata.get("annotations") or {}), SHIPPED: value}
    made = {**obj, "metadata": {**metadata, "annotations": annotations}}
    return ownership.own_update(obj, made, _KEEPER, stores.now_text())


def _is_as_made(live: Object, first_boot: str) -> bool:
    """Whether an earlier version, which kept no digests, made it, and nobody has written it since. That is sure only of
    what came with the first boot: nobody could have made one of that name before."""
    metadata = live["metadata"]
    owners = {
        (one.get("manager"), one.get("operation"))
        for one in metadata.get("managedFields") or ()
        if one.get("subresource") != "status"
    }
    if owners != {(_MANAGER, "Apply")} or metadata.get("generation", 1) != 1 or not first_boot:
        return False
    made, begun = (datetime.fromisoformat(one) for one in (metadata["creationTimestamp"], first_boot))
    return (made - begun).total_seconds() <= _FIRST_BOOT_SECONDS


def _shipped(texts: Mapping[str, str]) -> Iterator[Shipped]:
    for name, text in texts.items():
        for written in manifest.parse(text, name):
            wanted = admit.admit(written.obj, written, partial=True)
            yield Shipped(name, admit.kind_of(wanted), wanted, admit.admit(written.obj, written))


def _texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yaml"))}


def _remembered(marker: Path) -> set[str]:
    return set(json.loads(marker.read_text())) if marker.exists() else set()


def _remember(marker: Path, known: set[str]) -> None:
    """Whole, or as it was."""
    beside = marker.with_name(f"{marker.name}.new")
    beside.write_text(json.dumps(sorted(known)))
    beside.replace(marker)


def _digest(obj: Object) -> str:
    """Of what people write."""
    said = {key: value for key, value in obj.items() if key not in ("metadata", "status")}
    metadata = obj["metadata"]
    said["labels"] = metadata.get("labels") or {}
    annotations = metadata.get("annotations") or {}
    said["annotations"] = {key: value for key, value in annotations.items() if key != SHIPPED}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LETTERS]
