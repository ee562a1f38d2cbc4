"""Following objects: one endless stream of events that survives restarts of the daemon and outdated versions.

A break is mended from the last version seen; when that is too old (410) the objects are listed again and the
differences told as events, so that whoever reads never misses a deletion.
"""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from agentk.api import errors
from agentk.client import client

PATIENCE_SECONDS = 15.0  # how long a daemon may be away (a restart takes one) before the watch gives up
PAUSE_SECONDS = 0.2

Key = tuple[str, str]


def watch(
    api: client.Client,
    selection: client.Selection,
    listing: client.Listing,
    deadline: float | None = None,
) -> Iterator[client.Event]:
    """Events after `listing`. `deadline` is in `time.monotonic()` seconds: at it the stream ends quietly."""
    known = {_key(obj): obj for obj in listing.items}
    version = listing.resource_version
    lost_at: float | None = None
    while deadline is None or time.monotonic() < deadline:
        try:
            for event, seen in _stream(api, selection, version, deadline):
                lost_at, version = None, seen
                if event:
                    _remember(known, event)
                    yield event
                if deadline is not None and time.monotonic() >= deadline:
                    return
        except errors.Expired:
            listing = api.list(selection)
            version = listing.resource_version
            yield from _differences(known, listing)
            continue
        except errors.Timeout:
            return
        except errors.Unavailable:
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > PATIENCE_SECONDS:
                raise
        time.sleep(PAUSE_SECONDS)


def states(
    api: client.Client, selection: client.Selection, deadline: float | None = None
) -> Iterator[dict[str, Any] | None]:
    """The one object of `selection` as it is now (None: not there) and after every change, until `deadline`."""
    listing = api.list(selection)
    yield listing.items[0] if listing.items else None
    for event in watch(api, selection, listing, deadline):
        yield None if event.type == "DELETED" else event.obj


def is_current(obj: Mapping[str, Any]) -> bool:
    """Whether the status speaks of the spec as it is now."""
    observed = (obj.get("status") or {}).get("observedGeneration")
    generation = obj["metadata"].get("generation")
    return observed is None or generation is None or bool(observed >= generation)


def condition(obj: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A condition by name, in any case; {} when it has none."""
    found = (obj.get("status") or {}).get("conditions") or []
    return next((one for one in found if one["type"].lower() == name.lower()), {})


def _stream(
    api: client.Client, selection: client.Selection, version: str, deadline: float | None
) -> Iterator[tuple[client.Event | None, str]]:
    query = selection.query | {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
    left: float | None = None
    if deadline is not None:
        left = max(0.05, deadline - time.monotonic())
        query["timeoutSeconds"] = str(int(left) + 1)
    response = api.stream(selection.path, query=query, timeout_seconds=left and left + 1)
    try:
        for line in response.lines():
            told = json.loads(line)
            if told["type"] == "ERROR":
                raise errors.from_status(told["object"])
            version = told["object"]["metadata"].get("resourceVersion", version)
            yield (
                (None if told["type"] == "BOOKMARK" else client.Event(told["type"], told["object"])),
                version,
            )
    finally:
        response.close()


def _remember(known: dict[Key, dict[str, Any]], event: client.Event) -> None:
    if event.type == "DELETED":
        known.pop(_key(event.obj), None)
    else:
        known[_key(event.obj)] = event.obj


def _differences(known: dict[Key, dict[str, Any]], listing: client.Listing) -> Iterator[client.Event]:
    """What happened between what we knew and what is there now, as events; `known` becomes what is there."""
    there = {_key(obj): obj for obj in listing.items}
    for key, obj in list(known.items()):
        if key not in there or there[key]["metadata"].get("uid") != obj["metadata"].get("uid"):
            del known[key]
            yield client.Event("DELETED", obj)
    for key, obj in there.items():
        before = known.get(key)
        known[key] = obj
        if before is None:
            yield client.Event("ADDED", obj)
        elif before["metadata"].get("resourceVersion") != obj["metadata"].get("resourceVersion"):
            yield client.Event("MODIFIED", obj)


def _key(obj: dict[str, Any]) -> Key:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
