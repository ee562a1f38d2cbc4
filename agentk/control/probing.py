"""The tasks that probe running boxes: one for each probe of each box, and what they found."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from agentk.control import plans, probes
from agentk.control.clock import Clock
from agentk.runtime import box as boxes

_log = logging.getLogger(__name__)


@dataclass
class _Running:
    task: asyncio.Task[None]
    settings: probes.Settings
    attempt: int
    verdict: probes.Verdict


class Probers:
    """`changed(uid)` is called when a verdict changes."""

    def __init__(self, clock: Clock, changed: Callable[[str], None]) -> None:
        self._clock, self._changed = clock, changed
        self._running: dict[tuple[str, plans.ProbeKind], _Running] = {}

    def run(
        self, runtime: boxes.Runtime, kind: plans.ProbeKind, probe: Mapping[str, Any], seen: boxes.Seen
    ) -> None:
        """Probe this box, unless that is done already."""
        settings, key = probes.read(probe), (seen.uid, kind)
        before = self._running.get(key)
        if before is not None:
            if before.attempt == seen.attempt and before.settings == settings and not before.task.done():
                return
            before.task.cancel()

        def tell(verdict: probes.Verdict) -> None:
            running.verdict = verdict
            self._changed(seen.uid)

        prober = probes.Prober(runtime, self._clock, settings, tell)
        work = self._guarded(prober, seen)
        task = asyncio.create_task(work, name=f"{kind} probe of {seen.id}")
        running = _Running(task, settings, seen.attempt, probes.Verdict())
        self._running[key] = running

    def keep(self, uid: str, wanted: Collection[plans.ProbeKind]) -> None:
        """Stop all probes of an agent but these."""
        for key in [(uid, kind) for kind in ("liveness", "readiness") if kind not in wanted]:
            stopped = self._running.pop(key, None)
            if stopped is not None:
                stopped.task.cancel()

    def health(self, uid: str) -> plans.Health:
        """What the probes of an agent say now."""
        live, ready = self._running.get((uid, "liveness")), self._running.get((uid, "readiness"))
        some = live or ready
        if some is None:
            return plans.Health()
        failing = next((one for one in (live, ready) if one and one.verdict.passes is False), some)
        return plans.Health(
            attempt=some.attempt,
            live=live.verdict.passes if live else None,
            ready=ready.verdict.passes if ready else None,
            message=failing.verdict.message,
        )

    async def stop(self) -> None:
        tasks = [one.task for one in self._running.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _guarded(self, prober: probes.Prober, seen: boxes.Seen) -> None:
        try:
            await prober.run(seen.id, seen.started_boottime)
        except Exception:
            _log.exception("probing %s failed", seen.id)
            self._changed(seen.uid)  # the next look begins it anew
            raise
