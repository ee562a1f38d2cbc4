"""One loop of tries for every way to a model: scripted, passed through, or translated by LiteLLM.

So retries, fallbacks and cool-downs mean the same for all. Another try is made only while nothing of an answer has
come. Keys are fetched for the one try that needs them and are never kept, logged or quoted.
"""

import asyncio
import hashlib
import hmac
import json
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentk.api import errors
from agentk.llm import (
    answering,
    asking,
    caching,
    choosing,
    passthrough,
    prices,
    providers,
    routes,
    scripted,
    tokens,
)

SecretOf = Callable[[str, str, str], Awaitable[str]]  # namespace, Secret, key → value; raises NotFound
Chain = Sequence[Sequence[routes.Deployment]]

_RATES_KEPT = 1_000  # behind a pattern guests choose the name
BACKOFF_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 8.0
# A provider that asks for more than this is better told to the guest, which can do something else meanwhile.
WAIT_MAX_SECONDS = 30.0
# These say something of the deployment, nothing of the request: the next one may answer.
_ELSEWHERE = frozenset({401, 402, 403, 404, 407})


class Translator(Protocol):
    """The worker that holds LiteLLM."""

    async def send(
        self,
        route_key: str,
        model_list: Sequence[Mapping[str, Any]],
        router_settings: Mapping[str, Any],
        ask: asking.Ask,
    ) -> asking.Reply: ...


class KeyMissing(asking.Refused):
    """The Secret, or its key, is not there."""


@dataclass
class Held:
    """A route, and what is learned of it while it stays as it is."""

    route: routes.Route
    states: dict[str, choosing.State]
    window: choosing.Window = field(default_factory=choosing.Window)
    cache: caching.Answers | None = None
    rates: dict[str, prices.Rate | None] = field(
        default_factory=dict
    )  # by model, for each is looked up at length

    def rate(self, deployment: routes.Deployment) -> prices.Rate | None:
        name = f"{deployment.id} {deployment.model}"
        if name not in self.rates:
            if len(self.rates) >= _RATES_KEPT:
                self.rates.clear()
            self.rates[name] = prices.rate(deployment)
        return self.rates[name]

    @classmethod
    def of(cls, route: routes.Route) -> "Held":
        states = {deployment.id: choosing.State() for deployment in route.deployments}
        return cls(route, states, cache=caching.Answers(route.cache) if route.cache else None)


class Tries:
    """`sleep` and `die` are passed in so that tests need no patience and no luck."""

    def __init__(
        self,
        secret: SecretOf,
        worker: Translator | None,
        pool: passthrough.Passthrough,
        script: scripted.Scripted,
        sleep: Callable[[float], Awaitable[None]],
        die: Callable[[], float],
    ) -> None:
        self._secret = secret
        self._worker = worker
        self._pool = pool
        self._script = script
        self._sleep = sleep
        self._die = die
        self._salt = secrets.token_bytes(16)  # a route key must tell nothing of a Secret

    async def send(self, held: Held, chain: Chain, ask: asking.Ask, cache_key: str = "") -> asking.Reply:
        """The first answer that any deployment begins, or the last error."""
        expected = ask.expected or (
            tokens.upper_bound(ask.dialect, ask.body) + (tokens.most_output(ask.dialect, ask.body) or 0)
        )
        entry = _enter(held, expected, asyncio.get_running_loop().time())
        last: asking.Refused | None = None
        waits: list[choosing.Choice] = []
        only = sum(len(group) for group in chain) == 1
        try:
            for group in chain:
                found = await self._group(held, group, ask, expected, only, waits)
                if isinstance(found, answering.Answer):
                    found.entries.append(entry)
                    if held.cache and cache_key:
                        found.keep_in(held.cache, cache_key)
                    return found
                last = found or last
            raise last or _nobody_ready(held.route, waits)
        except BaseException:
            entry.count(0)  # counts as a call for rpm, with no tokens
            raise

    async def _group(
        self,
        held: Held,
        group: Sequence[routes.Deployment],
        ask: asking.Ask,
        expected: int,
        only: bool,
        waits: list[choosing.Choice],
    ) -> answering.Answer | asking.Refused | None:
        """Tries of one group: its answer, its last error, or None when none of it was ready."""
        last: asking.Refused | None = None
        tried: set[str] = set()
        useless: set[str] = set()  # would refuse again, whatever is asked
        for attempt in range(held.route.retries + 1):
            choice = choosing.choose(
                held.route,
                [deployment for deployment in group if deployment.id not in useless],
                held.states.__getitem__,
                now=asyncio.get_running_loop().time(),
                tokens=expected,
                avoid=frozenset(tried),
                only=only,
                die=self._die,
            )
            if choice.deployment is None:
                if choice.wait_seconds:
                    waits.append(choice)
                return last
            if choice.deployment.id in tried and last and not await self._pause(last, attempt):
                return last
            try:
                return await self._try(held, choice.deployment, ask, expected)
            except asking.Refused as refused:
                last = refused
                elsewhere = isinstance(refused, KeyMissing) or refused.upstream_status in _ELSEWHERE
                if elsewhere:
                    useless.add(choice.deployment.id)
                elif not refused.retryable:
                    raise
                tried.add(choice.deployment.id)
        return last

    async def _pause(self, last: asking.Refused, attempt: int) -> bool:
        """Wait before the same deployment is asked again; False when that would take too long."""
        wait = float(last.retry_after_seconds or 0)
        if not wait:
            most = min(BACKOFF_MAX_SECONDS, BACKOFF_SECONDS * 2 ** (attempt - 1))
            wait = most * (0.5 + self._die() / 2)  # guests that failed together must not return together
        if wait > WAIT_MAX_SECONDS:
            return False
        await self._sleep(wait)
        return True

    async def _try(
        self, held: Held, deployment: routes.Deployment, ask: asking.Ask, expected: int
    ) -> answering.Answer:
        state, loop = held.states[deployment.id], asyncio.get_running_loop()
        began = loop.time()
        entry = state.window.add(began, expected)
        state.in_flight += 1
        try:
            reply = await self._way(held.route, deployment, ask)
        except BaseException as wrong:
            state.in_flight -= 1
            entry.count(0)  # the call still counts for rpm; it read and wrote nothing
            if isinstance(wrong, asking.Refused) and (wrong.retryable or wrong.upstream_status in _ELSEWHERE):
                state.failed(
                    loop.time(),
                    held.route.cooldown,
                    at_once=wrong.upstream_status in _ELSEWHERE - {404},
                    seconds=float(wrong.retry_after_seconds or 0),
                )
            raise
        state.answered(loop.time() - began)
        return answering.Answer(reply, state, entry, held.rate(deployment))

    async def _way(self, route: routes.Route, deployment: routes.Deployment, ask: asking.Ask) -> asking.Reply:
        way = deployment.way(ask.dialect)
        if way == "scripted":
            return await self._script.send(f"{route.namespace}/{route.name}", ask, deployment.id)
        keys = await self._keys(route, deployment)
        if way == "passthrough":
            organization = str(deployment.params.get("organization") or "")
            headers = providers.auth_headers(deployment.provider, keys.get("api_key", ""), organization)
            target = passthrough.Target(deployment, route.timeouts, headers, tuple(keys.values()))
            return await self._pool.send(target, ask)
        if self._worker is None:
            raise errors.Unavailable(
                f'"{deployment.group}" does not speak {ask.dialect} itself, and nothing here translates it'
            )
        item = {
            "model_name": deployment.id,
            "litellm_params": {**deployment.params, **keys},
            "model_info": {"id": deployment.id},
        }
        settings = {
            "num_retries": 0,
            "disable_cooldowns": True,
            "timeout": route.timeouts.total,
            "stream_timeout": route.timeouts.total,
        }
        named = asking.Ask(ask.dialect, {**ask.body, "model": deployment.id}, ask.stream)
        return await self._worker.send(self._route_key(route, item), [item], settings, named)

    async def _keys(self, route: routes.Route, deployment: routes.Deployment) -> dict[str, str]:
        keys = {}
        for name, ref in deployment.secrets.items():
            try:
                keys[name] = (await self._secret(route.namespace, ref.name, ref.key)).strip()
            except errors.NotFound:
                raise KeyMissing(
                    f'ModelRoute "{route.name}" needs key "{ref.key}" of Secret "{ref.name}", which is not there',
                    retryable=False,
                ) from None
        return keys

    def _route_key(self, route: routes.Route, item: Mapping[str, Any]) -> str:
        """Changes with the route, the deployment or a key, and tells nothing of any."""
        text = json.dumps(item, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
        mark = hmac.new(self._salt, text, hashlib.sha256).hexdigest()[:24]
        return f"{route.namespace}/{route.name}/{item['model_name']}@{route.digest}.{mark}"


def _enter(held: Held, expected: int, now: float) -> choosing.Entry:
    """Count the call for the route's own rpm and tpm, or refuse it."""
    wait = held.window.wait(now, held.route.rpm, held.route.tpm, expected)
    if wait:
        raise errors.TooManyRequests(
            f'ModelRoute "{held.route.name}" has reached its rpm or tpm', retry_after_seconds=math.ceil(wait)
        )
    return held.window.add(now, expected)


def _nobody_ready(route: routes.Route, waits: Sequence[choosing.Choice]) -> errors.AgentkError:
    soonest = min(waits, key=lambda choice: choice.wait_seconds)
    seconds = max(1, math.ceil(soonest.wait_seconds))
    if soonest.limited:
        return errors.TooManyRequests(
            f'every deployment of ModelRoute "{route.name}" has reached its rpm or tpm',
            retry_after_seconds=seconds,
        )
    return errors.Unavailable(
        f'every deployment of ModelRoute "{route.name}" failed and is left alone for a while',
        retry_after_seconds=seconds,
    )
