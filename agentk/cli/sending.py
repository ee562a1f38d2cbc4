"""Manifests on their way to the daemon: sources packed, several at once when there are many, in order when told."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentk.api import errors, kinds, parts
from agentk.cli import manifests, show
from agentk.client import client, packages

# From here on several connections at once: the daemon commits what arrives together in one go.
MANY = 16
_CONNECTIONS = 4


@dataclass(frozen=True)
class Sent:
    obj: show.Object
    change: str  # created, configured or unchanged


@dataclass(frozen=True)
class Sender:
    """How to send. `connect` gives a client of one's own: they are not shared between threads."""

    connect: Callable[[], client.Client]
    force: bool = False
    dry_run: bool = False

    def send(self, wanted: Sequence[manifests.Wanted]) -> list[Sent | errors.AgentkError]:
        """One result for each, in the same order; an error keeps nobody else from being sent."""
        api = self.connect()
        if not self.dry_run:
            packages.tell_indexes(api, [parts.of(one.kind, one.obj) for one in wanted], os.environ)
        results: list[Sent | errors.AgentkError] = []
        for batch in _same_kind(wanted):
            if len(batch) < MANY:
                results += [self._one(api, one) for one in batch]
            else:
                results += self._many(batch)
        return results

    def _one(self, api: client.Client, one: manifests.Wanted) -> Sent | errors.AgentkError:
        try:
            packed = manifests.with_locks(manifests.with_source(api, one))
            done = api.apply(one.kind, one.namespace, packed.obj, force=self.force, dry_run=self.dry_run)
        except errors.AgentkError as error:
            return manifests.located(error, one)
        return Sent(done.obj, done.change)

    def _many(self, batch: Sequence[manifests.Wanted]) -> list[Sent | errors.AgentkError]:
        import threading
        from concurrent.futures import ThreadPoolExecutor

        own = threading.local()

        def send(one: manifests.Wanted) -> Sent | errors.AgentkError:
            if not hasattr(own, "api"):
                own.api = self.connect()
            return self._one(own.api, one)

        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            return list(pool.map(send, batch))


def _same_kind(wanted: Sequence[manifests.Wanted]) -> list[list[manifests.Wanted]]:
    """Runs of one kind: they do not wait for each other. Two of the same name do, so they part a run."""
    batches: list[list[manifests.Wanted]] = []
    seen: set[tuple[kinds.Kind, str, str]] = set()
    for one in wanted:
        key = (one.kind, one.namespace, one.name)
        if not batches or batches[-1][0].kind is not one.kind or key in seen:
            batches.append([])
            seen.clear()
        batches[-1].append(one)
        seen.add(key)
    return batches
