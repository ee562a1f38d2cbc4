"""think and embed: the native calls of a model, in the schema's words on top of OpenAI's.

What a guest wrote as messages, tools or a format is held against the allow-list of OpenAI's dialect, like any request
that comes in that dialect: there is no easier way to a model here.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentk.api import errors
from agentk.broker import methods as schema
from agentk.broker import policy
from agentk.broker.calling import said
from agentk.broker.calling.routing import LeftOf, Managing, Routing, in_time
from agentk.broker.dialects import openai
from agentk.broker.methods import Context, Done, Method, Params
from agentk.broker.words import Amount, Guest
from agentk.llm import asking, sse
from agentk.llm.models import Models

# The schema's names and OpenAI's. `max_tokens` is the spelling that every compatible server knows.
_THINK = {
    "model": "model",
    "maxTokens": "max_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "stop": "stop",
    "seed": "seed",
    "tools": "tools",
    "toolChoice": "tool_choice",
    "responseFormat": "response_format",
    "reasoningEffort": "reasoning_effort",
}
_EMBED = {
    "model": "model",
    "input": "input",
    "dimensions": "dimensions",
    "encoding": "encoding_format",
}
ANSWER_BYTES = 8 * 1024 * 1024  # a line holds no more


def methods(*, models: Models, left: LeftOf, managing: Managing | None = None) -> dict[str, Method]:
    routing = Routing(models, left, managing)

    async def arrange(context: Context, params: Params) -> Params:
        sent = (
            await routing.arranged(context, "openai.chat", think_body(params))
            if "messages" in params
            else None
        )
        if sent is None:
            return params
        return {
            **{key: value for key, value in params.items() if key != "system"},
            "messages": sent["messages"],
        }

    async def think(context: Context, params: Params) -> Done:
        ask = _ask("openai.chat", _named(routing, context.call.guest, think_body(params)), params["stream"])
        async with in_time(context), routing.answer(context, ask) as reply:
            heard = await _heard(context, reply, ask.stream)
        return Done(heard.told(reply.usage), context.used)

    async def embed(context: Context, params: Params) -> Done:
        ask = _ask("openai.embeddings", _named(routing, context.call.guest, embed_body(params)))
        async with in_time(context), routing.answer(context, ask) as reply:
            document = said.document(await _whole(reply))
        return Done(said.embeddings(document, len(params["input"]), reply.usage), context.used)

    return {
        "think": replace(_method("think", routing, "openai.chat", think_body, think), arrange=arrange),
        "embed": _method("embed", routing, "openai.embeddings", embed_body, embed),
    }


def think_body(params: Mapping[str, Any]) -> dict[str, Any]:
    """The same question as OpenAI has it."""
    messages = params["messages"] if "messages" in params else [{"role": "user", "content": params["prompt"]}]
    if "system" in params:
        messages = [{"role": "system", "content": params["system"]}, *messages]
    return {"messages": messages, **_translated(_THINK, params)}


def embed_body(params: Mapping[str, Any]) -> dict[str, Any]:
    return _translated(_EMBED, params)


def _method(
    name: str, routing: Routing, dialect: asking.Dialect, body_of: Any, handle: schema.Handle
) -> Method:
    strict = schema.parser(name)

    def parse(given: Mapping[str, Any]) -> Params:
        params = strict(given)
        openai.check(dialect, {"model": "", **body_of(params)})
        return params

    def facts(guest: Guest, params: Params) -> policy.Facts:
        features = openai.features_of(dialect, body_of(params))
        return routing.facts(guest, params.get("model", ""), features)

    async def bound(guest: Guest, params: Params) -> Amount:
        limit, most = routing.bound(guest, _ask(dialect, body_of(params)))
        if limit is not None:
            params["maxTokens"] = limit
        return most

    return Method(
        name,
        schema.recording(name),
        parse,
        handle,
        facts=facts,
        bound=bound,
        turn=lambda guest, params: routing.turn(guest),
        seconds=lambda params: float(params["timeoutSeconds"]),
    )


def _translated(names: Mapping[str, str], params: Mapping[str, Any]) -> dict[str, Any]:
    return {theirs: params[ours] for ours, theirs in names.items() if ours in params}


def _named(routing: Routing, guest: Guest, body: dict[str, Any]) -> dict[str, Any]:
    return {"model": routing.route(guest).default_name(), **body}


def _ask(dialect: asking.Dialect, body: Mapping[str, Any], stream: bool = False) -> asking.Ask:
    return asking.Ask(dialect, body, stream)


async def _heard(context: Context, reply: asking.Reply, stream: bool) -> said.Said:
    heard = said.Said()
    if not stream:
        heard.whole(said.document(await _whole(reply)))
        return heard
    parser, size = sse.Parser(), 0
    async for piece in reply.chunks():
        size += len(piece)
        if size > 4 * ANSWER_BYTES:  # of a stream most is framing
            raise errors.UpstreamError("the model's answer is longer than an answer may be")
        for event in parser.feed(piece):
            if item := heard.piece(event.data):
                await context.emit(item)
    heard.end()
    return heard


async def _whole(reply: asking.Reply) -> bytes:
    body = bytearray()
    async for piece in reply.chunks():
        body += piece
        if len(body) > 4 * ANSWER_BYTES:
            raise errors.UpstreamError("the model's answer is longer than an answer may be")
    return bytes(body)
