"""Calls in the words of OpenAI and Anthropic: the same `think` and `embed`, passed to a model as the guest wrote them.

Their parameters are a provider's request body, held against the allow-list of its dialect; their answer is the very
bytes of the upstream. Only a dialect of HTTP makes such calls: no name of theirs is a method that a guest can call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from agentk.broker import policy
from agentk.broker.calling.routing import LeftOf, Managing, Routing
from agentk.broker.dialects import anthropic, asked, openai
from agentk.broker.methods import Context, Done, Method, Params
from agentk.broker.words import Amount, Guest
from agentk.llm import asking
from agentk.llm.models import Models

MODELS = "models"
# Of an answer, for who asks again with the same key. A longer one is passed on and not kept.
KEPT_BYTES = 4 * 1024 * 1024
_CONVERSATIONS = ("openai.chat", "openai.responses", "anthropic.messages")
_ANY = "surrogateescape"  # bytes that are no UTF-8 come through text unharmed


@dataclass(frozen=True)
class Begun:
    """The first item that such a call emits, before its bytes: the answer is a stream, or too long to be kept."""

    headers: Mapping[str, str] = field(default_factory=dict)


def forms(*, models: Models, left: LeftOf, managing: Managing | None = None) -> dict[str, Method]:
    """By dialect, as `Call.form` names it; and the list of models."""
    routing = Routing(models, left, managing)
    made: dict[str, Method] = {
        dialect: _form(dialect, anthropic if dialect.startswith("anthropic.") else openai, routing)
        for dialect in asking.DIALECTS
    }

    async def names(context: Context, params: Params) -> Done:
        return Done(routing.route(context.call.guest).names())

    made[MODELS] = Method("hello", "none", dict, names)  # who may ask who it is may know what it may ask for
    return made


def body_of(result: Mapping[str, Any]) -> bytes | None:
    """The bytes of an answer; None when it was too long to be kept."""
    text = result.get("body")
    return text.encode("utf-8", _ANY) if isinstance(text, str) else None


def _form(dialect: asking.Dialect, words: ModuleType, routing: Routing) -> Method:
    def parse(given: Mapping[str, Any]) -> Params:
        words.check(dialect, given)
        return dict(given)

    def facts(guest: Guest, params: Params) -> policy.Facts:
        return routing.facts(guest, params["model"], words.features_of(dialect, params))

    async def bound(guest: Guest, params: Params) -> Amount:
        limit, most = routing.bound(guest, asking.Ask(dialect, params))
        if limit is not None:
            params.update(asked.bounded(params, dialect, limit))
        return most

    async def arrange(context: Context, params: Params) -> Params:
        return await routing.arranged(context, dialect, params) or params

    async def handle(context: Context, params: Params) -> Done:
        body = openai.prepared(params, dialect) if words is openai else params
        ask = asking.Ask(dialect, body, params.get("stream") is True, context.bound.tokens)
        async with routing.answer(context, ask) as reply:
            result = await _pass(context, reply, ask.stream)
        return Done(result, context.used)

    return Method(
        name="embed" if dialect == "openai.embeddings" else "think",
        recording="effect",
        parse=parse,
        handle=handle,
        facts=facts,
        bound=bound,
        turn=lambda guest, params: routing.turn(guest),
        arrange=arrange if dialect in _CONVERSATIONS else None,
    )


async def _pass(context: Context, reply: asking.Reply, stream: bool) -> dict[str, Any]:
    """The answer's bytes: of a stream as they come, else all at once, once they are on record."""
    headers = dict(reply.headers)
    begun = False
    kept = bytearray() if not stream else context.sent
    size = 0
    async for piece in reply.chunks():
        size += len(piece)
        if not begun and (stream or size > KEPT_BYTES):
            begun = True
            await context.emit(Begun(headers))
            if not stream:
                await context.emit(bytes(kept))
        if size <= KEPT_BYTES:
            kept += piece
        if begun:
            await context.emit(piece)
    told: dict[str, Any] = {"headers": headers, "bytes": size}
    if size <= KEPT_BYTES:
        told["body"] = kept.decode("utf-8", _ANY)
    return told
