"""How many boxes of a Pool are made and ended now, and which of them fits an agent. Pure.

A box fits when everything that was settled as it was made is what the agent asks for: its *shape*. What is bound when
it is handed out (variables, Secrets, door, workspace, limits, identity, log) is no part of that.

A Pool grows above its size by one box for each agent that found none, and goes back when none was missed for a
minute; it shrinks to its min when nobody has asked for ten. Boxes of another shape go at once. Those that are only old
stay until as many new ones are ready.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from agentk.api import errors, pools, quantities
from agentk.control import box, restart
from agentk.runtime import box as boxes

MISSED_SECONDS = 60.0  # without a miss until what was added for misses goes again
QUIET_SECONDS = 600.0  # without anybody asking until `min` is enough
_BURST_SECONDS = 0.1  # boxes of that time may be made at once
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 1.0, 60.0

State = Literal["creating", "ready", "gone"]
# What is the same for all boxes of a Pool, or taken over with the box. All else that is not brought makes its shape.
_TAKEN_OVER = frozenset({"namespace", "host_uid"})
_WORDS = {
    "runtime": "its Runtime",
    "seccomp": "the system calls that its Policy and Runtime allow",
    "prefix": "its Runtime's Python",
    "image": "its image",
    "oci_runtime": "its Runtime's OCI runtime",
    "tmp_bytes": "its Runtime's /tmp",
    "open_files": "its limit of open files",
    "source": "its source",
    "packages": "its packages",
    "volumes": "its volumes",
}


@dataclass(frozen=True)
class Wish:
    """What a Pool's spec says of its numbers."""

    least: int
    size: int
    most: int
    per_second: float
    max_age_seconds: float


NOTHING = Wish(0, 0, 0, 1.0, 3600.0)


@dataclass(frozen=True)
class Waiting:
    """One box of a Pool, as it was seen."""

    uid: str
    shape: str
    state: State
    age_seconds: float


@dataclass(frozen=True)
class History:
    """What a Pool remembers from look to look. Times are CLOCK_BOOTTIME seconds."""

    asked_at: float  # somebody wanted a box; at first, when the Pool was first seen
    missed_at: float = -math.inf  # and there was none
    extra: int = 0  # boxes above size, for those who missed one
    paid_until: float = -math.inf  # boxes made so far are paid for, at the refill rate, until then
    failures: int = 0  # boxes that could not be made, in a row
    retry_at: float = -math.inf


@dataclass(frozen=True)
class Plan:
    """What is to be done now, and when to look again without being woken."""

    wanted: int
    create: int
    end: tuple[str, ...]  # uids
    again: float | None


def wish(spec: Mapping[str, Any]) -> Wish:
    """What was admitted before some field or rule was there is read as the default."""
    least, size, most = pools.sizes(spec)
    rate, age = spec.get("refillRate", pools.REFILL_RATE), spec.get("maxAge", pools.MAX_AGE)
    try:
        per_second, age_seconds = quantities.parse_rate(rate), quantities.parse_duration(age)
    except errors.Invalid:
        per_second = quantities.parse_rate(pools.REFILL_RATE)
        age_seconds = quantities.parse_duration(pools.MAX_AGE)
    return Wish(least, size, max(size, most), per_second, max(1.0, age_seconds))


def asked(history: History, wish: Wish, found: bool, now: float) -> History:
    """Somebody wanted a box. `found`: one of the right shape was there, or could never be."""
    history = replace(history, asked_at=now)
    if found:
        return history
    extra = history.extra if now - history.missed_at < MISSED_SECONDS else 0
    return replace(history, missed_at=now, extra=min(extra + 1, wish.most - wish.size))


def failed(history: History, now: float) -> History:
    """A box could not be made."""
    failures = history.failures + 1
    wait = restart.delay(failures, _FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS)
    return replace(history, failures=failures, retry_at=now + wait)


def made(history: History) -> History:
    """One could."""
    return replace(history, failures=0, retry_at=-math.inf)


def wanted(wish: Wish, history: History, now: float) -> int:
    """How many should wait now, if there is room."""
    if now - history.asked_at >= QUIET_SECONDS:
        return wish.least
    extra = history.extra if now - history.missed_at < MISSED_SECONDS else 0
    return min(wish.most, wish.size + extra)


def decide(
    wish: Wish, shape: str, there: Sequence[Waiting], history: History, room: int, now: float
) -> tuple[Plan, History]:
    """`shape`: of a new box; "" while none can be made. `room`: boxes that may wait on this machine."""
    right = [one for one in there if one.state != "gone" and (not shape or one.shape == shape)]
    end = [one.uid for one in there if one not in right]
    fresh = [one for one in right if one.age_seconds < wish.max_age_seconds]
    # Of too many those that are still being made go first, then the youngest.
    fresh.sort(key=lambda one: (one.state == "creating", -one.age_seconds, one.uid))
    old = sorted((one for one in right if one not in fresh), key=lambda one: (one.age_seconds, one.uid))
    want = max(0, min(wanted(wish, history, now), room))
    surplus = max(0, len(fresh) - want)
    end += [one.uid for one in reversed(fresh[len(fresh) - surplus :])]
    fresh = fresh[: len(fresh) - surplus]
    instead = max(0, want - sum(one.state == "ready" for one in fresh))
    end += [one.uid for one in old[instead:]]
    old = old[:instead]
    missing = want - len(fresh) if shape and now >= history.retry_at else 0
    if missing > 0 and old and len(fresh) + len(old) >= room:
        end.append(old.pop().uid)  # no room for both
    missing = min(missing, room - len(fresh) - len(old))
    create, history = _paid(wish, history, missing, now)
    again = min(_again(wish, fresh, history, missing > create, now), default=None)
    return Plan(want, create, tuple(end), again), history


def _paid(wish: Wish, history: History, missing: int, now: float) -> tuple[int, History]:
    """How many of the missing the refill rate allows now."""
    each = 1 / wish.per_second
    burst = max(1, math.ceil(wish.per_second * _BURST_SECONDS))
    paid, count = max(history.paid_until, now - burst * each), 0
    while count < missing and paid + each <= now + 1e-9:
        paid, count = paid + each, count + 1
    return count, replace(history, paid_until=paid) if count else history


def _again(wish: Wish, fresh: Sequence[Waiting], history: History, more: bool, now: float) -> Iterator[float]:
    if more:
        yield max(0.0, history.paid_until + 1 / wish.per_second - now)
    if now < history.retry_at:
        yield history.retry_at - now
    if fresh:
        yield wish.max_age_seconds - max(one.age_seconds for one in fresh)
    for since, seconds in ((history.missed_at, MISSED_SECONDS), (history.asked_at, QUIET_SECONDS)):
        if 0 <= now - since < seconds:
            yield seconds - (now - since)


# shapes


def parts(made: boxes.Box) -> dict[str, Any]:
    """What of a box is settled when it is made."""
    settled: dict[str, Any] = {
        field.name: getattr(made, field.name)
        for field in fields(made)
        if field.name not in boxes.BROUGHT | _TAKEN_OVER
    }
    settled["open_files"] = made.limits.open_files
    mounts = sorted(
        (one for one in made.mounts if one.kind not in boxes.BROUGHT_MOUNTS), key=lambda one: one.target
    )
    for name in ("source", "packages", "volumes"):
        settled[name] = [asdict(one) for one in mounts if _role(one) == name]
    return settled


def _role(mount: boxes.Mount) -> str:
    if mount.target == box.SOURCE:
        return "source"
    return "packages" if mount.kind == "environment" else "volumes"


def shape(made: boxes.Box) -> str:
    """Equal for boxes that can be handed out for each other."""
    text = json.dumps(parts(made), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unlike(waits: boxes.Box, asked_for: boxes.Box) -> str:
    """In what they differ, for people; "" when they do not."""
    has, wants = parts(waits), parts(asked_for)
    return ", ".join(_WORDS.get(key, f"its {key}") for key in has if has[key] != wants[key])
