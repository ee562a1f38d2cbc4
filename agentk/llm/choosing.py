"""Which deployment a call goes to: health, cool-down, limits a minute and the route's strategy.

No I/O, and no clock of its own: `now` is passed in, and so is the die. Nothing here knows what is asked, only how many
tokens it may take.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agentk.llm import prices, routes

WINDOW_SECONDS = 60.0  # rpm and tpm are per minute
LATENCY_WEIGHT = 0.2  # of the newest call in the running mean: about the last ten calls count


class Entry:
    """One call in a window: its bound at first, then what it used."""

    __slots__ = ("tokens", "when", "window")

    def __init__(self, window: "Window", when: float, tokens: int) -> None:
        self.window: Window | None = window  # None: it has left it
        self.when = when
        self.tokens = tokens

    def count(self, tokens: int) -> None:
        if self.window is not None:
            self.window.tokens += tokens - self.tokens
        self.tokens = tokens


class Window:
    """Calls and tokens of the last minute. A call counts with its bound until what it used is known."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.tokens = 0  # of all entries: a busy minute has too many to add up for each call

    def used(self, now: float) -> tuple[int, int]:
        while self.entries and self.entries[0].when <= now - WINDOW_SECONDS:
            left = self.entries.popleft()
            self.tokens -= left.tokens
            left.window = None
        return len(self.entries), self.tokens

    def add(self, now: float, tokens: int) -> Entry:
        entry = Entry(self, now, tokens)
        self.entries.append(entry)
        self.tokens += tokens
        return entry

    def wait(self, now: float, rpm: int, tpm: int, tokens: int) -> float:
        """Seconds until a call of so many tokens fits; 0 when it does now, and when nothing else is counted."""
        calls, used = self.used(now)
        waits = 0.0
        for entry in self.entries:
            if (not rpm or calls < rpm) and (not tpm or used + tokens <= tpm):
                break
            calls, used = calls - 1, used - entry.tokens
            waits = entry.when + WINDOW_SECONDS - now
        return max(0.0, waits)


@dataclass
class State:
    """What is known of one deployment."""

    window: Window = field(default_factory=Window)
    in_flight: int = 0
    fails: int = 0  # in a row
    cooling_until: float = float("-inf")
    latency_seconds: float = 0.0  # running mean; 0: never called

    def failed(self, now: float, cooldown: routes.Cooldown, at_once: bool, seconds: float = 0.0) -> None:
        """`at_once`: a wrong key will not be right at the next try. `seconds`: what the upstream asked for."""
        self.fails += 1
        if at_once or self.fails >= cooldown.allowed_fails:
            self.cooling_until = max(self.cooling_until, now + max(cooldown.seconds, seconds))

    def answered(self, seconds: float) -> None:
        self.fails = 0
        old = self.latency_seconds
        self.latency_seconds = old + LATENCY_WEIGHT * (seconds - old) if old else seconds


@dataclass(frozen=True)
class Choice:
    """A deployment to try now, or how long until one may be tried."""

    deployment: routes.Deployment | None
    wait_seconds: float = 0.0
    limited: bool = False  # waiting is for rpm or tpm, not for a cool-down


def choose(
    route: routes.Route,
    group: Sequence[routes.Deployment],
    state: Callable[[str], State],
    *,
    now: float,
    tokens: int,
    avoid: frozenset[str],
    only: bool,
    die: Callable[[], float],
) -> Choice:
    """By strategy among those that are well and have room; those of `avoid` only when there is no other.

    The `only` deployment there is never cools down: refusing it would turn one failure into many.
    """
    ready, waits = [], []
    for deployment in group:
        known = state(deployment.id)
        room = known.window.wait(now, deployment.rpm, deployment.tpm, tokens)
        cooling = 0.0 if only else max(0.0, known.cooling_until - now)
        if room or cooling:
            waits.append((max(room, cooling), bool(room)))
        else:
            ready.append(deployment)
    if not ready:
        seconds, limited = min(waits, default=(0.0, False))
        return Choice(None, seconds, limited)
    fresh = [deployment for deployment in ready if deployment.id not in avoid]
    return Choice(_by_strategy(route.strategy, fresh or ready, state, now, die))


def _by_strategy(
    strategy: routes.Strategy,
    ready: Sequence[routes.Deployment],
    state: Callable[[str], State],
    now: float,
    die: Callable[[], float],
) -> routes.Deployment:
    if strategy == "simple-shuffle" or len(ready) == 1:
        return _weighted(ready, die)
    if strategy == "least-busy":
        return min(ready, key=lambda deployment: state(deployment.id).in_flight)
    if strategy == "latency-based-routing":
        return min(ready, key=lambda deployment: state(deployment.id).latency_seconds)
    if strategy == "usage-based-routing":
        return min(ready, key=lambda deployment: state(deployment.id).window.used(now)[1])
    return min(ready, key=_price)


def _weighted(ready: Sequence[routes.Deployment], die: Callable[[], float]) -> routes.Deployment:
    """In proportion to weight, which LiteLLM also takes from rpm or tpm when only those are given."""
    for name in ("weight", "rpm", "tpm"):
        weights = [getattr(deployment, name) for deployment in ready]
        if len(set(weights)) > 1:
            break
    else:
        weights = [1] * len(ready)
    drawn = die() * sum(weights)
    for deployment, weight in zip(ready, weights, strict=True):
        drawn -= weight
        if drawn < 0:
            return deployment
    return ready[-1]


def _price(deployment: routes.Deployment) -> tuple[bool, float]:
    rate = prices.rate(deployment)
    return (True, 0.0) if rate is None else (False, float(rate.input + rate.output))
