"""OpenAI's and Anthropic's paths at a guest's door: requests become calls of the gate, its answers become HTTP.

It decides nothing and knows no model: a call that does not pass the gate has no answer. Whatever goes wrong is told in
the shape of the provider whose client asks, or by ending a stream with its error.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, Protocol

from agentk.api import errors
from agentk.broker.calling import passing
from agentk.broker.dialects import anthropic, asked, openai
from agentk.broker.dialects.asked import Asked
from agentk.broker.dialects.http import Handler, Respond
from agentk.broker.dialects.http_reading import Request
from agentk.broker.dialects.serving_retries import Retries, UnknownOf
from agentk.broker.words import Call, Guest

_log = logging.getLogger(__name__)

Emit = Callable[[Any], Awaitable[None]]


class Gate(Protocol):
    async def call(self, call: Call, emit: Emit) -> Any: ...


def handler(gate: Gate, guest: Callable[[], Guest], unknown: UnknownOf) -> Handler:
    """Answers the requests of one guest: the one whose door it is, whatever the request says."""
    return _Serving(gate, guest, Retries(unknown)).answer


class _Serving:
    def __init__(self, gate: Gate, guest: Callable[[], Guest], retries: Retries) -> None:
        self._gate = gate
        self._guest = guest
        self._retries = retries

    async def answer(self, request: Request, respond: Respond) -> None:
        words = _words(request)
        form = ""
        try:
            told = words.read(request)
            form = told.dialect
            if told.method == "models":
                await self._models(words, told, respond)
            else:
                await self._call(words, request, told, respond)
        except errors.AgentkError as error:
            await _fail(words, form, error, respond)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 — a mistake of ours ends this call, in words its client can read
            _log.exception("answering %s %s", request.method, request.path)
            told_error = errors.AgentkError(f"internal error: {type(error).__name__}")
            await _fail(words, form, told_error, respond)

    async def _models(self, words: ModuleType, told: Asked, respond: Respond) -> None:
        names = await self._gate.call(Call(self._guest(), "hello", {}, words.NAME, passing.MODELS), _unheard)
        if told.model and told.model not in names:
            raise errors.NotFound(f"model {told.model[:200]!r} is not one of this agent's", field="model")
        _send(words.model(told.model) if told.model else words.models(names), respond)

    async def _call(self, words: ModuleType, request: Request, told: Asked, respond: Respond) -> None:
        guest = self._guest()
        key, fresh = self._retries.begin(told, request.body, guest.uid, guest.attempt)
        failed = False
        try:
            call = Call(
                guest,
                told.method,
                told.body,
                words.NAME,
                told.dialect,
                key,
                fresh,
                asked.trace(request.headers),
            )
            result = await self._gate.call(call, partial(_emit, respond))
            _finish(result, respond)
        except errors.AgentkError as error:
            failed = not isinstance(error, errors.OutcomeUnknown)
            raise
        finally:
            self._retries.end(told, key, failed=failed)


def _words(request: Request) -> ModuleType:
    """Whose client asks. /v1/models is both's, and what is nobody's is answered in the words of who seems to ask."""
    if anthropic.takes(request) or (not openai.takes(request) and "anthropic-version" in request.headers):
        return anthropic
    return openai


async def _unheard(item: Any) -> None:
    """No such call has a stream."""


async def _emit(respond: Respond, item: Any) -> None:
    if isinstance(item, passing.Begun):
        respond.start(200, _with_id(item.headers))
    else:
        await respond.write(item)


def _finish(result: Mapping[str, Any], respond: Respond) -> None:
    if respond.started:
        respond.end()
        return
    body = passing.body_of(result)
    if body is None:
        raise errors.Expired("the call ended, and its answer was too long to be kept")
    respond.whole(200, _with_id(result["headers"]), body)


def _with_id(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Clients show a request's id with their errors; an upstream's own is kept."""
    if "x-request-id" in headers or "request-id" in headers:
        return headers
    return {**headers, "x-request-id": asked.new_request_id()}


def _send(answer: asked.Answer, respond: Respond) -> None:
    respond.whole(answer.status, answer.headers, answer.body)


async def _fail(words: ModuleType, form: str, error: errors.AgentkError, respond: Respond) -> None:
    if not respond.started:
        _send(words.error(error, asked.new_request_id()), respond)
    elif not respond.ended:
        await respond.write(words.stream_error(error, form))
        respond.end()
