"""What changes in the store, handed on as it happens; begins with all there is, and begins anew when it fell behind.

A consumer must not care whether it heard of a change once or twice, nor what happened in between: it gets objects,
not stories, and large ones as heads. Objects that went away while the feed was broken are told as gone.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agentk.api import errors, kinds
from agentk.store import store as stores

_FIRST_RETRY_SECONDS = 0.2
_MAX_RETRY_SECONDS = 10.0

_log = logging.getLogger(__name__)
_Identity = tuple[str, str, str]  # plural, namespace, name

# (kind, object, gone)
Hear = Callable[[kinds.Kind, dict[str, Any], bool], None]
Sleep = Callable[[float], Awaitable[None]]  # seconds


class Feed:
    def __init__(self, store: stores.Store, sleep: Sleep, wanted: Sequence[kinds.Kind], hear: Hear) -> None:
        self._store, self._sleep, self._wanted, self._hear = store, sleep, wanted, hear
        self._known: dict[_Identity, dict[str, Any]] = {}  # of each only what a tombstone needs

    async def run(self, kind: kinds.Kind, since: str = "") -> None:
        """From `since` on, until cancelled or until the store closes; "" lists first."""
        wait = _FIRST_RETRY_SECONDS
        while True:
            try:
                if not since:
                    since = await self._list(kind)
                async for change in self._store.watch(kind, None, since, heads=True):
                    since, wait = change.resource_version, _FIRST_RETRY_SECONDS
                    if change.type != "BOOKMARK":
                        self._tell(kind, change.obj, change.type == "DELETED")
                return
            except errors.Expired:
                since = ""
            except (errors.AgentkError, OSError) as error:
                _log.warning("watching %s failed: %s", kind.plural, error)
                await self._sleep(wait)
                wait = min(wait * 2, _MAX_RETRY_SECONDS)

    async def prime(self) -> dict[str, str]:
        """Tell all there is of every kind, once; where each watch has to begin."""
        return {kind.plural: await self._list(kind) for kind in self._wanted}

    async def _list(self, kind: kinds.Kind) -> str:
        page = await self._store.list(kind, heads=True)
        there = set()
        for obj in page.items:
            there.add(_identity(kind, obj))
            self._tell(kind, obj, gone=False)
        for identity, obj in list(self._known.items()):
            if identity[0] == kind.plural and identity not in there:
                self._tell(kind, obj, gone=True)
        return page.resource_version

    def _tell(self, kind: kinds.Kind, obj: dict[str, Any], gone: bool) -> None:
        identity = _identity(kind, obj)
        before = self._known.pop(identity, None)
        if not gone:
            kept = {key: obj["metadata"].get(key) for key in ("namespace", "name", "uid")}
            self._known[identity] = {
                **{key: obj.get(key) for key in ("apiVersion", "kind")},
                "metadata": kept,
            }
        if before is not None and before["metadata"]["uid"] != obj["metadata"].get("uid"):
            self._hear(kind, before, True)  # another object has taken its name
        self._hear(kind, obj, gone)


def _identity(kind: kinds.Kind, obj: dict[str, Any]) -> _Identity:
    metadata = obj["metadata"]
    return (kind.plural, str(metadata.get("namespace") or ""), str(metadata["name"]))
