"""What all calls of a model share: whose route it is, what a Policy is told, what it may use, and what it did use.

A guest's words choose among the models of its agent's own ModelRoute and nothing else. `used` of a call is true at
every moment, because the guest may hang up at any: from when a request is on its way it is all that was reserved,
until more is known.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

from agentk.api import errors
from agentk.broker import policy
from agentk.broker.budgets import Left
from agentk.broker.dialects import asked
from agentk.broker.methods import ONE_CALL, Context
from agentk.broker.words import Amount, Guest
from agentk.llm import asking, bounding, routes, trying
from agentk.llm.models import Models

LeftOf = Callable[[Guest], Left]
DEFAULT_ROUTE = "default"


class Managing(Protocol):
    """What a model is shown of a conversation, where that is the gate's to decide."""

    async def arrange(
        self, context: Context, dialect: str, body: Mapping[str, Any]
    ) -> dict[str, Any] | None: ...

    def asked(self, context: Context) -> None: ...

    def told(self, context: Context, usage: asking.Usage) -> None: ...


class AsItCame:
    """Whose context is their own."""

    async def arrange(self, context: Context, dialect: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        return None

    def asked(self, context: Context) -> None:
        """It is not kept."""

    def told(self, context: Context, usage: asking.Usage) -> None:
        """Nobody learns from it."""


class Routing:
    """`left` tells what the budgets above a guest still have."""

    def __init__(self, models: Models, left: LeftOf, managing: Managing | None = None) -> None:
        self._models = models
        self._left = left
        self._managing = managing or AsItCame()

    async def arranged(
        self, context: Context, dialect: str, body: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """What is sent in place of this body; None: it is sent as it came."""
        return await self._managing.arrange(context, dialect, body)

    def route(self, guest: Guest) -> routes.Route:
        """Raises NotFound."""
        return self._models.route(guest.namespace, route_name(guest))

    def facts(self, guest: Guest, model: str, features: frozenset[str]) -> policy.Facts:
        """Raises NotFound or BadRequest for a model that is not the route's."""
        route = self.route(guest)
        try:
            return policy.Facts(models=route.reached(model), features=features)
        except errors.NotFound:
            asked.checked_model(model, route.names())
            raise

    def turn(self, guest: Guest) -> str:
        return f"{guest.namespace}/{route_name(guest)}"

    def bound(self, guest: Guest, ask: asking.Ask) -> tuple[int | None, Amount]:
        """The limit of the answer to be written into the request, if any, and what the call may then use at most.
        Raises BadRequest, or BudgetExceeded, for what a budget cannot admit because nobody can bound it."""
        left = self._left(guest)
        reach = self._models.reach(guest.namespace, route_name(guest), ask)
        limit = reach.limit(left.tokens, left.cost_micro_usd)
        try:
            most = reach.bound(limit)
        except bounding.Unbounded:
            if left.tokens is not None or left.cost_micro_usd is not None:
                raise
            return None, Amount(bounding.OUTPUT_TOKENS + max(way.read for way in reach.ways), 1, 0)
        if most.cost_micro_usd is None and left.cost_micro_usd is not None:
            raise errors.BudgetExceeded(
                f'nobody knows what "{ask.body.get("model")}" costs, so no budget of costUsd admits it',
                hint="write input_cost_per_token and output_cost_per_token into the ModelRoute's litellmParams",
            )
        return limit, Amount(most.tokens, most.calls, most.cost_micro_usd or 0)

    @contextlib.asynccontextmanager
    async def answer(self, context: Context, ask: asking.Ask) -> AsyncIterator[asking.Reply]:
        """The answer, once it has begun. Leaving settles what it used, whatever became of it."""
        guest = context.call.guest
        context.meta["route"], context.meta["model"] = route_name(guest), str(ask.body.get("model", ""))
        context.used = context.bound
        self._managing.asked(context)
        try:
            reply = await self._models.send(guest.namespace, route_name(guest), ask)
        except asking.Refused as refused:
            if refused.upstream_status or refused.retryable or isinstance(refused, trying.KeyMissing):
                context.used = ONE_CALL  # else an answer had begun, and is lost
            raise
        except errors.AgentkError:
            context.used = ONE_CALL  # it never left
            raise
        try:
            async with reply:
                yield reply
        finally:
            used = reply.usage
            context.used = Amount(used.input_tokens + used.output_tokens, 1, used.cost_micro_usd)
            context.meta |= {
                "deployment": reply.deployment,
                "upstream_model": used.model,
                "input_tokens": used.input_tokens,
                "output_tokens": used.output_tokens,
                "cached_tokens": used.cached_tokens,
            }
            self._managing.told(context, used)


def route_name(guest: Guest) -> str:
    return str((guest.spec.get("modelRef") or {}).get("name") or DEFAULT_ROUTE)


@contextlib.asynccontextmanager
async def in_time(context: Context) -> AsyncIterator[None]:
    """Ends what runs inside at the call's deadline, as a Timeout."""
    try:
        async with asyncio.timeout_at(context.deadline) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise errors.Timeout(
            "the model did not answer in time", hint="give it longer: timeoutSeconds"
        ) from None
