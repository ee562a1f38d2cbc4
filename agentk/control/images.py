"""Images on their way: what an agent's box is made of is sought here or pulled, once for all who ask the same.

What is found holds for one attempt of one agent, so that `Always` means at every start. What cannot be had is told in
the registry's own words and tried again with back-off, while an agent still wants it. Nothing here waits on behalf of
the steward: it asks, hears that the image is on its way, and is woken. This room only asks; the launcher pulls.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentk.api import errors
from agentk.api import images as names
from agentk.control import logins, plans, restart
from agentk.control.clock import Clock
from agentk.runtime import box as boxes

PULLING, FAILED, BACK_OFF, NEVER = "Pulling", "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"
UNAVAILABLE, INVALID = "SandboxUnavailable", "InvalidImageName"
PODMAN = "podman"


@dataclass(frozen=True)
class Settings:
    at_once: int = 3
    pull_seconds: float = 3600.0
    quick_seconds: float = 0.25  # what is here is found in that time, and nobody has to look twice
    progress_seconds: float = 1.0  # between two looks at how far it is
    first_retry_seconds: float = 10.0
    longest_retry_seconds: float = 300.0
    fresh_seconds: float = 60.0  # an answer that no start has used by then is asked for anew


class Puller(Protocol):
    """What of the launcher is needed here. Repeatable."""

    async def image(
        self, reference: str, policy: str, login: boxes.Login | None, told: Callable[[str], None]
    ) -> boxes.Image: ...


@dataclass(frozen=True)
class Order:
    reference: names.Reference
    policy: str
    login: boxes.Login | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Chosen:
    """What a box is to be made of."""

    order: Order
    image: boxes.Image
    told: str  # for its event
    life: tuple[int, int]  # the attempt it was asked for, and how often that was refused
    at: float

    @property
    def status(self) -> dict[str, str]:
        """As status.image tells it."""
        made = {"reference": str(self.order.reference), "id": f"sha256:{self.image.id}"}
        return made | ({"digest": self.image.digest} if self.image.digest else {})


@dataclass
class Pull:
    order: Order
    told: str = ""
    waiting: dict[str, tuple[int, int]] = field(default_factory=dict)  # uids of agents → their lives
    task: asyncio.Task[None] | None = None
    failures: int = 0
    problem: plans.Problem | None = None
    retry_at: float = 0.0
    woken_at: float = 0.0


def wanted(spec: Mapping[str, Any], runtime: Mapping[str, Any]) -> str:
    """The name of the image an agent's box is made of; "" for none."""
    return str(spec.get("image") or runtime.get("image") or "") if runtime.get("type") == PODMAN else ""


class Images:
    def __init__(self, launcher: Puller, clock: Clock, settings: Settings | None = None) -> None:
        self._launcher, self._clock, self._settings = launcher, clock, settings or Settings()
        self._pulls: dict[Order, Pull] = {}
        self._chosen: dict[str, Chosen] = {}  # by the agent's uid
        self._slots = asyncio.Semaphore(self._settings.at_once)
        self._tasks: set[asyncio.Task[None]] = set()
        self.wake: Callable[[str], None] = lambda _: None  # the uid of an agent whose image changed

    async def close(self) -> None:
        """Nothing is begun any more; what the launcher pulls it goes on pulling."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def prepare(
        self,
        agent: Mapping[str, Any],
        runtime: Mapping[str, Any],
        entries: list[logins.Entry],
        life: tuple[int, int],
    ) -> tuple[Chosen | None, plans.Problem | None]:
        """What this attempt is made of, or why it has to wait; neither when it shows the host's own files."""
        spec, uid = agent["spec"], str(agent["metadata"]["uid"])
        asked = wanted(spec, runtime)
        if not asked:
            return None, None
        try:
            reference = names.parse(asked)
        except errors.Invalid as error:
            return None, plans.Problem(INVALID, error.message)
        policy = names.policy(reference, str(spec.get("imagePullPolicy") or ""))
        login = logins.choose(entries, reference) if policy != "Never" else None
        order = Order(reference, policy, login)
        if (chosen := self._found(uid, order, life)) is not None:
            return chosen, None
        pull = self._pulls.setdefault(order, Pull(order))
        pull.waiting[uid] = life
        if pull.task is None and self._now() >= pull.retry_at:
            pull.told = ""
            pull.task = self._spawn(self._pull(pull), f"image {reference}")
        if pull.task is not None and pull.problem is None:
            await asyncio.wait({pull.task}, timeout=self._settings.quick_seconds)
            if (chosen := self._found(uid, order, life)) is not None:
                return chosen, None
        return None, self._problem(pull)

    def _found(self, uid: str, order: Order, life: tuple[int, int]) -> Chosen | None:
        chosen = self._chosen.get(uid)
        if chosen is None or chosen.order != order or chosen.life != life:
            return None
        return chosen if self._now() - chosen.at <= self._settings.fresh_seconds else None

    def _problem(self, pull: Pull) -> plans.Problem:
        if pull.problem is not None and not pull.told:
            return pull.problem
        told = f"pulling {pull.order.reference}" + (f": {pull.told}" if pull.told else "")
        return plans.Problem(PULLING, told, usual=True)

    # pulling

    async def _pull(self, pull: Pull) -> None:
        order, began = pull.order, time.monotonic()
        try:
            async with self._slots, asyncio.timeout(self._settings.pull_seconds):
                found = await self._launcher.image(
                    order.reference.asked,
                    order.policy,
                    order.login,
                    lambda words: self._progress(pull, words),
                )
        except (errors.AgentkError, TimeoutError) as error:
            self._failed(pull, error)
        else:
            took = f"in {time.monotonic() - began:.1f} s"
            what = (
                f"pulled {order.reference} {took}"
                if found.pulled
                else f"{order.reference} is on this machine"
            )
            self._keep(pull, found, f"{what}: sha256:{found.id[:12]}")
        finally:
            pull.task = None
            self._tell(pull)

    def _keep(self, pull: Pull, found: boxes.Image, told: str) -> None:
        now = self._now()
        for uid in [uid for uid, one in self._chosen.items() if now - one.at > self._settings.fresh_seconds]:
            del self._chosen[uid]
        for uid, life in pull.waiting.items():
            self._chosen[uid] = Chosen(pull.order, found, told, life, now)
        self._pulls.pop(pull.order, None)

    def _progress(self, pull: Pull, words: str) -> None:
        pull.told = words
        now = self._now()
        if now - pull.woken_at >= self._settings.progress_seconds:
            pull.woken_at = now
            self._tell(pull)

    def _failed(self, pull: Pull, error: Exception) -> None:
        settings, pull.told = self._settings, ""
        pull.failures += 1
        wait = restart.delay(pull.failures, settings.first_retry_seconds, settings.longest_retry_seconds)
        pull.retry_at = self._now() + wait
        pull.problem = _problem_of(pull, error, settings.pull_seconds)
        self._spawn(self._again(pull, wait), f"image {pull.order.reference} again")

    async def _again(self, pull: Pull, seconds: float) -> None:
        """Those that still want it ask for it, and that is what begins it again. One that nobody wants is let go."""
        await self._clock.sleep(seconds)
        if pull.task is None:
            self._tell(pull)
            pull.waiting.clear()
        await self._clock.sleep(self._settings.longest_retry_seconds)
        if pull.task is None and not pull.waiting and self._pulls.get(pull.order) is pull:
            del self._pulls[pull.order]

    def _tell(self, pull: Pull) -> None:
        for uid in list(pull.waiting):
            self.wake(uid)

    def _spawn(self, work: Any, name: str) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _now(self) -> float:
        return self._clock.now().boottime


def _problem_of(pull: Pull, error: Exception, seconds: float) -> plans.Problem:
    """As Kubernetes names them."""
    reference = pull.order.reference
    if isinstance(error, errors.NotFound):
        hint = (
            "make it with agentk image build, or podman build"
            if reference.is_local
            else "imagePullPolicy is Never"
        )
        return plans.Problem(NEVER, f"{reference} is not on this machine; {hint}")
    if isinstance(error, errors.UpstreamError):
        told = f"{reference}: {error.message}" + (f"; {error.hint}" if error.hint else "")
        if pull.failures > 1:
            return plans.Problem(BACK_OFF, f"back-off pulling {told}")
        return plans.Problem(FAILED, told)
    if isinstance(error, TimeoutError):
        return plans.Problem(FAILED, f"{reference}: not pulled within {seconds:.0f} s")
    return plans.Problem(UNAVAILABLE, str(error))
