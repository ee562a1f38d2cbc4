"""All ModelRoutes of this machine: what a guest's call may cost, and the call itself.

The gate asks `bound` before it reserves and `send` when it is the call's turn. Nothing a guest sends reaches a place,
or is paid with a key, that the route's owner did not write down.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agentk.api import errors, problems
from agentk.llm import (
    asking,
    bounding,
    caching,
    passthrough,
    prices,
    routefields,
    routes,
    scripted,
    tokens,
    trying,
)


class Models:
    """Built once; lives on one loop. `secret` fetches a key of a Secret, `worker` translates between dialects."""

    def __init__(
        self,
        secret: trying.SecretOf,
        worker: trying.Translator | None = None,
        *,
        pool: passthrough.Passthrough | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        die: Callable[[], float] = random.random,
    ) -> None:
        self._pool = pool or passthrough.Passthrough()
        self._scripted = scripted.Scripted()
        self._tries = trying.Tries(secret, worker, self._pool, self._scripted, sleep, die)
        self._held: dict[tuple[str, str], trying.Held] = {}

    async def start(self) -> None:
        """Read the price list where it holds nobody up. Without it the first bound reads it."""
        await asyncio.to_thread(prices.load)

    async def close(self) -> None:
        """Ends every call in flight that is passed through. The worker is its owner's to close."""
        await self._pool.close()

    def set_route(self, obj: Mapping[str, Any]) -> list[problems.Problem]:
        """Take a ModelRoute, new or changed; an unchanged one keeps what it learned.

        With problems the route is gone, the old one too: what its owner took back must not go on being used.
        """
        route, found = routefields.read(obj)
        meta = obj.get("metadata", {})
        namespace, name = str(meta.get("namespace", "default")), str(meta.get("name", ""))
        if route is None:
            self.drop_route(namespace, name)
            return found
        held = self._held.get((namespace, name))
        if held is None or held.route.digest != route.digest:
            self._held[namespace, name] = trying.Held.of(route)
            self._scripted.set_script(f"{namespace}/{name}", route.scripted)
        return []

    def drop_route(self, namespace: str, name: str) -> None:
        """Repeatable. Calls in flight end as they would have."""
        self._held.pop((namespace, name), None)
        self._scripted.drop_script(f"{namespace}/{name}")

    def route(self, namespace: str, name: str) -> routes.Route:
        """The route, for its maxConcurrent and defaults; NotFound when there is none."""
        return self._holding(namespace, name).route

    def models(self, namespace: str, route: str) -> list[str]:
        """Names guests may use."""
        return self.route(namespace, route).names()

    def bound(self, namespace: str, route: str, ask: asking.Ask) -> asking.Bound:
        """The most this call can use, whichever deployment answers; BadRequest when that cannot be said."""
        return self.reach(namespace, route, limited(self.route(namespace, route), ask)).bound()

    def reach(self, namespace: str, route: str, ask: asking.Ask) -> bounding.Reach:
        """What this call may reach, to say what it can use. Raises NotFound."""
        held = self._holding(namespace, route)
        found = held.route
        script = self._scripted.most_input(f"{namespace}/{route}")
        reads: dict[bool, int] = {}  # a large body is looked at once for each price of a picture
        ways = []
        for deployment in (d for group in found.chain(_model(ask)) for d in group):
            dear = tokens.dear_images(deployment.model)
            if dear not in reads:
                reads[dear] = tokens.upper_bound(ask.dialect, ask.body, deployment.model)
            read = max(reads[dear], script if deployment.provider == "scripted" else 0)
            ways.append(bounding.Way(deployment, read, held.rate(deployment)))
        return bounding.Reach(ask, ways, default_limit(found))

    def counted_as(self, namespace: str, route: str, model: str) -> tuple[str, ...]:
        """The models that may read such a call, as their providers call them: whose tokenizers count it. None for one
        that is scripted through and through. Raises NotFound."""
        chain = self.route(namespace, route).chain(model)
        several = [deployment for group in chain for deployment in group]
        if all(deployment.provider == "scripted" for deployment in several):
            return ()
        return tuple(sorted({deployment.model for deployment in several}))

    async def send(self, namespace: str, route: str, ask: asking.Ask) -> asking.Reply:
        """The answer, once it has begun. Raises Refused, TooManyRequests, Unavailable, NotFound or BadRequest."""
        held = self._holding(namespace, route)
        ask = limited(held.route, ask)
        chain = held.route.chain(_model(ask))
        if held.cache is None:
            return await self._tries.send(held, chain, ask)
        key = caching.key_of(ask)
        if kept := held.cache.get(key, asyncio.get_running_loop().time()):
            return caching.FromCache(kept)
        return await self._tries.send(held, chain, ask, key)

    def _holding(self, namespace: str, name: str) -> trying.Held:
        held = self._held.get((namespace, name))
        if held is None:
            raise errors.NotFound(
                f'ModelRoute "{name}" not found in namespace "{namespace}"',
                kind="modelroutes",
                name=name,
                hint="an agent uses those of its own namespace: agentk get modelroutes -A",
            )
        return held


def limited(route: routes.Route, ask: asking.Ask) -> asking.Ask:
    """With the route's own bound on the answer where the request has none."""
    return tokens.with_limit(ask, default_limit(route))


def default_limit(route: routes.Route) -> int:
    """Most tokens of one answer when the request does not say; 0: the route does not say either."""
    if not route.max_tokens and all(deployment.provider == "scripted" for deployment in route.deployments):
        return scripted.OUTPUT_TOKENS_MAX
    return route.max_tokens


def _model(ask: asking.Ask) -> str:
    return str(ask.body.get("model") or "")
