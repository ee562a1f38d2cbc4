"""Environments on their way: what an agent asks for is built once for all that ask the same, kept, and let go.

Its name is the digest of the request and the interpreter. Two boxes make it, one after the other, both repeatable by
their ids: a daemon that comes after us finds them running or ended and goes on. What fails is told in pip's own words
and tried again with back-off while an agent still wants it. This room only asks; whatever has rights is the launcher's.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agentk.api import environments as words
from agentk.api import errors
from agentk.control import environment_boxes, environment_records, plans, prepared, restart
from agentk.control.clock import Clock
from agentk.runtime import box as boxes

_log = logging.getLogger(__name__)
FAILED, UNAVAILABLE = "EnvironmentFailed", "SandboxUnavailable"
_LANGUAGES = ("python", "node")


@dataclass(frozen=True)
class Settings:
    at_once: int = 2
    build_seconds: float = 3600.0  # of one of its two boxes
    progress_seconds: float = 0.5  # between two looks at how far it is
    first_retry_seconds: float = 10.0
    longest_retry_seconds: float = 300.0
    unused_seconds: float = 24 * 3600.0  # how long one stays that no agent names


class Builder(Protocol):
    """What of the launcher is needed here. Every verb is repeatable."""

    async def start(self, box: boxes.Box) -> boxes.Seen: ...
    async def list(self) -> Iterable[boxes.Seen]: ...
    async def release(self, namespace: str, uid: str) -> None: ...
    async def environments(self) -> tuple[Iterable[str], Iterable[str]]: ...
    async def keep_environment(self, name: str) -> None: ...
    async def remove_environment(self, name: str) -> None: ...
    async def interpreter(self, prefix: str, venv: str = "") -> boxes.Interpreter: ...
    def changes(self) -> Any: ...


@dataclass
class Build:
    """One that is not whole yet."""

    order: environment_boxes.Order
    stage: str = "Resolving"
    told: str = "Resolving"
    waiting: set[str] = field(default_factory=set)  # uids of agents
    task: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # its boxes did
    failures: int = 0
    error: str = ""
    retry_at: float = 0.0


class Environments:
    """`indexes` answers what of the owner's configuration to fetch from; `builder_uid` is -1 without root."""

    def __init__(
        self,
        launcher: Builder,
        folder: Path,
        clock: Clock,
        indexes: Callable[[], environment_boxes.Sources],
        builder_uid: int,
        settings: Settings | None = None,
    ) -> None:
        self._launcher, self._clock, self._indexes = launcher, clock, indexes
        self._settings, self._builder_uid = settings or Settings(), builder_uid
        self._records = environment_records.Records(folder)
        self._whole: set[str] | None = None
        self._builds: dict[str, Build] = {}
        self._slots = asyncio.Semaphore(self._settings.at_once)
        self._tasks: set[asyncio.Task[None]] = set()
        self._swept = False
        self.wake: Callable[[str], None] = lambda _: None  # the uid of an agent whose environment changed

    async def run(self) -> None:
        """Hear of boxes that ended. Until cancelled; what is being built goes on without us."""
        failures = 0
        try:
            while True:
                try:
                    async for uid in self._launcher.changes():
                        failures = 0
                        self._hear(uid.removeprefix(environment_boxes.UID_PREFIX))
                except (errors.AgentkError, OSError) as error:
                    _log.info("boxes that make environments are not heard of: %s", error)
                for build in self._builds.values():
                    build.changed.set()
                failures += 1
                await self._clock.sleep(restart.delay(failures, 0.1, 5.0))
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _hear(self, name: str) -> None:
        if name in self._builds:
            self._builds[name].changed.set()

    # what an agent gets

    async def prepare(
        self, agent: Mapping[str, Any], runtime: Mapping[str, Any]
    ) -> tuple[prepared.Prepared, plans.Problem | None]:
        """What of its environment its box gets, or why it has to wait. Begins what has to be built."""
        asked = agent["spec"].get("environment") or {}
        made, problem = prepared.NOTHING, None
        for language in [one for one in _LANGUAGES if asked.get(one)]:
            try:
                part, why = await self._of(asked, language, agent, str(runtime.get("pythonPrefix") or ""))
            except errors.Unavailable as error:
                part, why = prepared.NOTHING, plans.Problem(UNAVAILABLE, error.message)
            except errors.AgentkError as error:
                part, why = prepared.NOTHING, plans.Problem(FAILED, _with_hint(error))
            made, problem = made.plus(part), problem or why
        return made, problem

    async def _of(
        self, asked: Mapping[str, Any], language: str, agent: Mapping[str, Any], prefix: str
    ) -> tuple[prepared.Prepared, plans.Problem | None]:
        venv = str((asked[language] or {}).get("venv") or "")
        if venv:
            return await self._venv(venv, prefix), None
        wanted = words.request(asked, language)
        if wanted is None:
            if (asked[language] or {}).get("lockFile"):
                told = f"environment.{language}.lockFile was not read: apply it with agentk, which sends it"
                return prepared.NOTHING, plans.Problem("SourceUnavailable", told)
            return prepared.NOTHING, None
        interpreter = await self._launcher.interpreter(prefix)
        made_for = [interpreter.path, interpreter.version] if language == "python" else []
        name = words.digest(wanted, language, [*made_for, interpreter.machine])
        if name in await self._known() and (record := self._records.read(name)) is not None:
            return (prepared.python if language == "python" else prepared.node)(name, record.told()), None
        order = environment_boxes.Order(name, language, wanted, interpreter, prefix)
        return prepared.NOTHING, self._wait(order, str(agent["metadata"]["uid"]))

    async def _venv(self, path: str, prefix: str) -> prepared.Prepared:
        interpreter = await self._launcher.interpreter(prefix, path.rstrip("/"))
        if interpreter.venv_version != interpreter.version:
            raise errors.RuntimeRefused(
                f"{path} was made for Python {interpreter.venv_version}, and boxes have {interpreter.version}",
                hint="make it with /usr/bin/python3 -m venv, or name a Runtime with a pythonPrefix of its version",
            )
        return prepared.venv(path.rstrip("/"), interpreter)

    async def _known(self) -> set[str]:
        if self._whole is None:
            kept, _ = await self._launcher.environments()
            self._whole = set(kept)
        return self._whole

    def _wait(self, order: environment_boxes.Order, uid: str) -> plans.Problem:
        build = self._builds.setdefault(order.name, Build(order))
        build.waiting.add(uid)
        if build.task is None and self._clock.now().boottime >= build.retry_at:
            build.stage, build.told = "Resolving", "Resolving"
            if self._slots.locked():
                build.told = "Resolving, once others are made"
            build.task = self._spawn(self._build(build), f"environment {order.name}")
        if build.task is None:
            return plans.Problem(FAILED, build.error)
        return plans.Problem(f"Environment{build.stage}", build.told, usual=True)

    def _spawn(self, work: Any, name: str) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # building

    async def _build(self, build: Build) -> None:
        name = build.order.name
        try:
            async with self._slots:
                await self._make(build)
            (await self._known()).add(name)
            self._builds.pop(name, None)
            with contextlib.suppress(errors.AgentkError):  # what is left is collected
                await self._launcher.release(environment_boxes.NAMESPACE, build.order.uid)
        except (errors.AgentkError, OSError, TimeoutError) as error:
            await self._failed(build, error)
        finally:
            build.task = None
            self._tell(build)

    async def _make(self, build: Build) -> None:
        order, launcher = build.order, self._launcher
        if not any(one.uid == order.uid for one in await launcher.list()):
            await launcher.release(environment_boxes.NAMESPACE, order.uid)  # what an earlier try left
        fetched = await self._box(build, order.fetching(self._builder_uid, self._indexes()))
        lock = environment_boxes.lock_of(order, fetched)
        installed = await self._box(build, order.installing(self._builder_uid, lock))
        size = sum(int(line["bytes"]) for line in installed if isinstance(line.get("bytes"), int))
        await asyncio.to_thread(self._records.write, order, lock.shown, size)
        await launcher.keep_environment(order.name)
        _log.info("environment %s is made: %d packages, %d bytes", order.name, len(lock.shown), size)

    async def _box(self, build: Build, box: boxes.Box) -> list[dict[str, Any]]:
        """What it told, once it has ended well."""
        build.changed.clear()
        seen = await self._launcher.start(box)
        deadline = self._clock.now().boottime + self._settings.build_seconds
        while seen.phase in ("Starting", "Running"):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(build.changed.wait(), self._settings.progress_seconds)
            if build.changed.is_set():
                build.changed.clear()
                seen = next((one for one in await self._launcher.list() if one.id == box.id), seen)
            self._progress(build, await asyncio.to_thread(environment_boxes.last, seen.log_path))
            if self._clock.now().boottime > deadline:
                raise errors.Timeout(f"it took longer than {self._settings.build_seconds:.0f} s")
        told = await asyncio.to_thread(environment_boxes.told, seen.log_path)
        environment_boxes.check(seen, told)
        return told

    def _progress(self, build: Build, line: Mapping[str, Any]) -> None:
        if "stage" not in line:
            return
        before = (build.stage, build.told)
        build.stage, build.told = environment_boxes.progress(line)
        if before != (build.stage, build.told):
            self._tell(build)

    async def _failed(self, build: Build, error: Exception) -> None:
        build.failures += 1
        usual = self._settings
        wait = restart.delay(build.failures, usual.first_retry_seconds, usual.longest_retry_seconds)
        build.retry_at = self._clock.now().boottime + wait
        when = time.strftime("%H:%M:%SZ", time.gmtime(time.time() + wait))
        words_ = _with_hint(error) if isinstance(error, errors.AgentkError) else str(error)
        build.error = f"{words_}; next try at {when}"
        _log.warning("environment %s cannot be made: %s", build.order.name, words_)
        with contextlib.suppress(errors.AgentkError):
            await self._launcher.release(environment_boxes.NAMESPACE, build.order.uid)
            await self._launcher.remove_environment(build.order.name)
        self._spawn(self._again(build, wait), f"environment {build.order.name} again")

    async def _again(self, build: Build, seconds: float) -> None:
        """Those that still want it ask for it, and that is what begins it again."""
        await self._clock.sleep(seconds)
        if build.task is None:
            self._tell(build)
            build.waiting.clear()

    def _tell(self, build: Build) -> None:
        for uid in list(build.waiting):
            self.wake(uid)

    # letting go

    async def collect(self, used: Iterable[str]) -> None:
        """Remove what no agent has named for long, and what is left of builds that nobody goes on with."""
        kept, half = await self._launcher.environments()
        used = set(used)
        building = {name for name, build in self._builds.items() if build.task is not None}
        for seen in await self._launcher.list():
            name = seen.uid.removeprefix(environment_boxes.UID_PREFIX)
            if seen.namespace == environment_boxes.NAMESPACE and name not in building:
                await self._launcher.release(seen.namespace, seen.uid)
        for name in half:
            if name not in building:
                await self._let_go(name)
        for name in kept:
            if not self._swept:  # a death may have left the workspace it was made in
                await self._launcher.release(environment_boxes.NAMESPACE, environment_boxes.UID_PREFIX + name)
            if name in used:
                await asyncio.to_thread(self._records.touch, name)
            elif await asyncio.to_thread(self._records.age, name) > self._settings.unused_seconds:
                await self._let_go(name)
        self._swept = True
        for name in [name for name, build in self._builds.items() if build.task is None]:
            if (
                self._clock.now().boottime
                > self._builds[name].retry_at + self._settings.longest_retry_seconds
            ):
                del self._builds[name]  # nobody has asked again

    async def _let_go(self, name: str) -> None:
        """The tree first: a record without one is nothing, a tree without a record would never be let go."""
        with contextlib.suppress(errors.Conflict):  # a box sees it
            if self._whole is not None:
                self._whole.discard(name)
            try:
                await self._launcher.release(environment_boxes.NAMESPACE, environment_boxes.UID_PREFIX + name)
                await self._launcher.remove_environment(name)
            except errors.Conflict:
                self._whole = None  # asked anew
                raise
            await asyncio.to_thread(self._records.remove, name)


def used_by(agents: Iterable[Mapping[str, Any]]) -> set[str]:
    """Names of the environments that these agents were last seen with."""
    told = [(agent.get("status") or {}).get("environment") or {} for agent in agents]
    return {str(part.get("name")) for one in told for part in one.values() if part.get("name")}


def _with_hint(error: errors.AgentkError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else str(error.message)
