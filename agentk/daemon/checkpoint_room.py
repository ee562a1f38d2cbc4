"""How much room Checkpoints may take on the daemon's disk: what a namespace's Quotas say, else what the daemon's own
configuration does, and in no case the last of the disk, which the store needs to stay whole.

What counts are files as they lie there, those of one that is being written too. Pages count for their Memory.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentk.api import errors, kinds, quantities
from agentk.control import claims
from agentk.store import store as stores

DEFAULT_BYTES = 10 * 2**30  # of one namespace, as schemas/config.json
# Of the disk, this stays free, or this share of a small one.
_FREE_BYTES, _FREE_SHARE = 2**30, 20
_LOOK_BYTES = 4 * 2**20  # between two looks at the disk
HALF = ".half"


@dataclass(frozen=True)
class _Bound:
    most: int
    whose: str


class Room:
    def __init__(self, folder: Path, store: stores.Store, default_bytes: int, file: str) -> None:
        """`file`: what counts of each, in its directory."""
        self._folder, self._store, self._default, self._file = folder, store, default_bytes, file
        self._sizes: dict[str, tuple[str, int]] = {}  # by uid: namespace, bytes
        self._known = asyncio.Lock()
        self._is_known = False

    async def used(self, namespace: str) -> tuple[int, int]:
        """How many there are, and their bytes."""
        await self._look()
        found = [size for of, size in self._sizes.values() if of == namespace]
        return len(found), sum(found)

    async def begin(self, checkpoint: Mapping[str, Any]) -> "Place":
        """Room for one more. Raises TooLarge."""
        await self._look()
        namespace, uid = str(checkpoint["metadata"]["namespace"]), str(checkpoint["metadata"]["uid"])
        quotas = [claims.hard(one) for one in (await self._store.list(kinds.QUOTA, namespace)).items]
        self._sizes.pop(uid, None)  # of an earlier try
        count = 1 + sum(of == namespace for of, _ in self._sizes.values())
        for one in quotas:
            if one.checkpoints is not None and count > one.checkpoints:
                raise errors.TooLarge(
                    f"Quota {one.name} allows {one.checkpoints} Checkpoints, and there are {count - 1}",
                    hint="delete one: agentk get checkpoints",
                )
        bounds = [
            _Bound(one.checkpoint_bytes, f"Quota {one.name}")
            for one in quotas
            if one.checkpoint_bytes is not None
        ]
        bounds = bounds or [_Bound(self._default, f"checkpointMaxSize, for namespace {namespace},")]
        self._sizes[uid] = (namespace, 0)
        return Place(self, uid, min(bounds, key=lambda bound: bound.most))

    def forget(self, uid: str) -> None:
        """It is gone, or never was."""
        self._sizes.pop(uid, None)

    def grow(self, uid: str, size: int, bound: _Bound) -> None:
        namespace, before = self._sizes[uid]
        used = sum(held for of, held in self._sizes.values() if of == namespace)
        if used + size > bound.most:
            most = quantities.format_quantity(bound.most)
            raise errors.TooLarge(
                f"{bound.whose} allows {most} of Checkpoints, and with this one there would be more",
                hint="delete some: agentk get checkpoints",
            )
        self._sizes[uid] = (namespace, before + size)

    def look_at_disk(self) -> None:
        disk = os.statvfs(self._folder)
        least = min(_FREE_BYTES, disk.f_blocks * disk.f_frsize // _FREE_SHARE)
        if disk.f_bavail * disk.f_frsize < least:
            kept = quantities.format_quantity(least)
            raise errors.TooLarge(
                f"the daemon's disk is nearly full: {kept} of it stay free",
                hint="delete Checkpoints, or make room",
            )

    async def _look(self) -> None:
        """What is there from before, once."""
        async with self._known:
            if self._is_known:
                return
            there = (await self._store.list(kinds.CHECKPOINT)).items
            owners = {str(one["metadata"]["uid"]): str(one["metadata"]["namespace"]) for one in there}
            for uid, size in (await asyncio.to_thread(self._found)).items():
                if uid in owners:
                    self._sizes.setdefault(uid, (owners[uid], size))
            self._is_known = True

    def _found(self) -> dict[str, int]:
        paths = self._folder.glob(f"*/{self._file}")
        return {path.parent.name.removesuffix(HALF): path.stat().st_size for path in paths}


class Place:
    """Of one that is being written."""

    def __init__(self, room: Room, uid: str, bound: _Bound) -> None:
        self._room, self._uid, self._bound = room, uid, bound
        self._unseen = _LOOK_BYTES

    def take(self, size: int) -> None:
        """Before so many bytes more are written. Raises TooLarge."""
        self._unseen += size
        if self._unseen >= _LOOK_BYTES:
            self._unseen = 0
            self._room.look_at_disk()
        self._room.grow(self._uid, size, self._bound)
