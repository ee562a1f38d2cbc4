"""The only file that imports LiteLLM, and only inside the worker process: a call in, an answer in its dialect out.

One Router for each route, kept while it is used. A call goes to the one deployment its route lists and is tried once:
retries, fallbacks and cooldowns are the daemon's, which also knows the journal and the budgets.
"""

import asyncio
import collections
import json
import sys
import types
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import litellm
from litellm.router import Router

from agentk.llm import sse, worker_calls

ROUTERS_MAX = 64  # least recently used goes first

# A Router puts its own bookkeeping here. It serves retries and cooldowns, which are not its business, and would run for
# the calls of every other route too.
_CALLBACKS = (
    "callbacks",
    "input_callback",
    "success_callback",
    "failure_callback",
    "service_callback",
    "_async_input_callback",
    "_async_success_callback",
    "_async_failure_callback",
)
_TERMINAL = frozenset(("response.completed", "response.incomplete", "response.failed"))


class LiteLLM:
    """A translator for `worker_main`."""

    def __init__(self) -> None:
        module: Any = litellm
        module.drop_params = True  # what a provider does not know is left out, not refused
        module.suppress_debug_info = True
        module.expose_router_debug_in_errors = False  # names of deployments, in what a guest reads
        module.disable_hf_tokenizer_download = True
        module.num_retries = None
        # The Anthropic dialect for an `openai/` model becomes chat completions, which every compatible server speaks.
        module.use_chat_completions_url_for_anthropic_messages = True
        _refuse_made_up_ends()
        _run_no_hosted_tools()
        _keep_no_accounts()
        _keep_guests_apart()
        _ask_as_published()
        self._routers: collections.OrderedDict[str, Any] = collections.OrderedDict()

    async def whole(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A whole answer as a document."""
        dialect, given = message["dialect"], _given(message)
        if dialect == "anthropic.count_tokens":
            return {"input_tokens": await asyncio.to_thread(_count, message, given)}
        answer = await self._call(message)(**given, stream=False)
        if dialect == "anthropic.messages":
            return {name: value for name, value in dict(answer).items() if not name.startswith("_")}
        document: dict[str, Any] = answer.model_dump(mode="json", exclude_none=True)
        document.get("usage", {}).pop("cost", None)
        if dialect == "openai.chat":
            for choice in document.get("choices", ()):
                choice.get("message", {}).setdefault(
                    "content", None
                )  # required, though null beside tool calls
        return document

    async def stream(self, message: Mapping[str, Any], usage: dict[str, Any]) -> AsyncGenerator[str, None]:
        """Server-sent events, one at a time. `usage` holds what was used when they ended."""
        given = _given(message)
        if message["dialect"] == "openai.chat":
            given["stream_options"] = {"include_usage": True}
        answer = await self._call(message)(**given, stream=True)
        read = {
            "openai.chat": _chat_events,
            "openai.responses": _response_events,
            "anthropic.messages": _message_events,
        }[message["dialect"]]
        try:
            async for event in read(answer, usage):
                yield event.decode()
        finally:
            if close := getattr(answer, "aclose", None):
                await close()

    def cost(self, message: Mapping[str, Any], usage: Mapping[str, Any]) -> int:
        """Micro-dollars by LiteLLM's price list, or the route's own prices; 0 when neither knows."""
        model = message["models"][0]
        params, info = model["litellm_params"], model.get("model_info") or {}
        if not usage:
            return 0
        used = _usage(message["dialect"], usage)
        own = [params.get(name, info.get(name)) for name in ("input_cost_per_token", "output_cost_per_token")]
        if None not in own:
            return worker_calls.micro_usd(used.prompt_tokens * own[0] + used.completion_tokens * own[1])
        try:
            costs = litellm.cost_per_token(
                model=params["model"],
                custom_llm_provider=params.get("custom_llm_provider"),
                usage_object=used,
                call_type="aembedding" if message["dialect"] == "openai.embeddings" else "acompletion",
            )
        except Exception:  # noqa: BLE001 - it raises plain Exception for a model it does not know
            return 0
        return worker_calls.micro_usd(sum(costs))

    def _call(self, message: Mapping[str, Any]) -> Any:
        router = self._router(message["route"], message["models"], message["settings"])
        return {
            "openai.chat": router.acompletion,
            "openai.responses": router.aresponses,
            "openai.embeddings": _without_stream(router.aembedding),
            "anthropic.messages": router.aanthropic_messages,
        }[message["dialect"]]

    def _router(self, key: str, models: list[dict[str, Any]], settings: Mapping[str, Any]) -> Any:
        if key in self._routers:
            self._routers.move_to_end(key)
            return self._routers[key]
        worker_calls.check_route(models)
        router = self._routers[key] = Router(model_list=models, **settings)
        for name in _CALLBACKS:
            getattr(litellm, name).clear()
        while len(self._routers) > ROUTERS_MAX:
            self._routers.popitem(last=False)[1].discard()
        return router


def _given(message: Mapping[str, Any]) -> dict[str, Any]:
    given = worker_calls.arguments(message["dialect"], message["body"])
    return given | {"model": message["models"][0]["model_name"]}


def _without_stream(call: Any) -> Any:
    async def embed(*, stream: bool, **given: Any) -> Any:
        return await call(**given)

    return embed


async def _chat_events(answer: Any, usage: dict[str, Any]) -> AsyncIterator[bytes]:
    """The usage comes last and alone, as OpenAI sends it, wherever the provider or LiteLLM put it."""
    last: dict[str, Any] = {}
    async for chunk in answer:
        document = chunk.model_dump(mode="json", exclude_none=True)
        if used := document.pop("usage", None):
            usage.clear()
            usage.update(used)
        last = document
        if any(choice.get("delta") or choice.get("finish_reason") for choice in document.get("choices", ())):
            yield _event(document)
    if usage:
        yield _event({**last, "choices": [], "usage": usage})
    yield sse.write(b"[DONE]")


async def _response_events(answer: Any, usage: dict[str, Any]) -> AsyncIterator[bytes]:
    ended, number = False, 0
    async for event in answer:
        document = event.model_dump(mode="json", exclude_none=True)
        kind = document.get("type", "")
        document["sequence_number"], number = (
            number,
            number + 1,
        )  # required; LiteLLM's translation numbers only some
        if kind == "error":
            raise worker_calls.Said(str(document.get("message", "")), str(document.get("code", "")), 500)
        if kind in _TERMINAL:
            ended = True
            usage.update(document.get("response", {}).get("usage") or {})
            document.get("response", {}).get("usage", {}).pop(
                "cost", None
            )  # the provider's price is not the guest's
        yield _event(document, kind)
    if not ended:
        raise worker_calls.cut_short()


async def _message_events(answer: Any, usage: dict[str, Any]) -> AsyncIterator[bytes]:
    """Anthropic's events: from Anthropic cut anywhere, from LiteLLM's translation whole."""
    parser, ended = sse.Parser(), False
    async for chunk in answer:
        for event in parser.feed(chunk.encode() if isinstance(chunk, str) else chunk):
            if event.name == b"error":
                raise worker_calls.anthropic_error(event.data)
            if event.name == b"message_start":
                usage.update(json.loads(event.data)["message"].get("usage") or {})
            elif event.name == b"message_delta":
                usage.update(json.loads(event.data).get("usage") or {})
            ended = ended or event.name == b"message_stop"
            yield event.raw
    if not ended:
        raise worker_calls.cut_short()


def _event(document: Mapping[str, Any], name: str = "") -> bytes:
    return sse.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(), name.encode())


def _usage(dialect: str, used: Mapping[str, Any]) -> litellm.Usage:
    """Any dialect's usage as LiteLLM prices it: the prompt's tokens include those of the cache."""
    read = int(used.get("prompt_tokens") or used.get("input_tokens") or 0)
    details = used.get("prompt_tokens_details") or used.get("input_tokens_details") or {}
    hit = int(used.get("cache_read_input_tokens") or details.get("cached_tokens") or 0)
    written = int(used.get("cache_creation_input_tokens") or 0)
    if dialect == "anthropic.messages":
        read += hit + written
    answered = int(used.get("completion_tokens") or used.get("output_tokens") or 0)
    return litellm.Usage(
        prompt_tokens=read,
        completion_tokens=answered,
        total_tokens=read + answered,
        prompt_tokens_details={"cached_tokens": hit},
        cache_creation_input_tokens=written,
        cache_read_input_tokens=hit,
    )


def _count(message: Mapping[str, Any], given: Mapping[str, Any]) -> int:
    """LiteLLM's own count, of the request as it would translate it. No upstream is asked."""
    from litellm.llms.anthropic.pass_through.adapters import transformation

    adapter: Any = transformation.LiteLLMAnthropicMessagesAdapter
    translated, _ = adapter().translate_anthropic_to_openai({**given, "max_tokens": 1})
    return int(
        litellm.token_counter(
            model=message["models"][0]["litellm_params"]["model"],
            messages=translated["messages"],
            tools=translated.get("tools"),
        )
    )


def _refuse_made_up_ends() -> None:
    """LiteLLM ends a stream that broke off with a `finish_reason` of its own: half an answer would look whole."""
    wrapper: Any = litellm.CustomStreamWrapper
    original = wrapper.finish_reason_handler

    def checked(self: Any) -> Any:
        if self.received_finish_reason is None and self.intermittent_finish_reason is None:
            raise worker_calls.cut_short()
        return original(self)

    wrapper.finish_reason_handler = checked


def _run_no_hosted_tools() -> None:
    """LiteLLM would itself run some tools a guest names: MCP servers of its proxy, searches in files.

    Only to look whether it should, it imports for every request with tools a package that is not installed.
    """
    from litellm.responses import main

    handler = type("LiteLLM_Proxy_MCP_Handler", (), {"should_use_litellm_mcp_gateway": staticmethod(_never)})
    _stand_in("litellm.responses.mcp.litellm_proxy_mcp_handler", LiteLLM_Proxy_MCP_Handler=handler)
    responses: Any = main
    responses._responses_try_dispatch_emulated_file_search = _never


def _keep_guests_apart() -> None:
    """Translating the responses dialect, LiteLLM keeps every tool call by its id, and puts it into the next request
    that names the id, whoever sends it: one guest would read another's arguments.
    """
    from litellm.responses.litellm_completion_transformation import transformation

    module: Any = transformation
    module.TOOL_CALLS_CACHE = types.SimpleNamespace(get_cache=_never, set_cache=_never)


def _ask_as_published() -> None:
    """Where a request of LiteLLM's, or what it reads of an answer, is not what the provider publishes.

    The responses dialect: the calls of a request keep the `index` that only a stream's have. MiniMax: both its
    dialects are below one base, and LiteLLM looks for Anthropic's below OpenAI's. Moonshot: says what came from the
    cache as `usage.cached_tokens`, which LiteLLM does not read.
    """
    from litellm.llms.minimax.messages import transformation as minimax
    from litellm.responses.litellm_completion_transformation import transformation

    config: Any = transformation.LiteLLMCompletionResponsesConfig
    original = config.transform_responses_api_request_to_chat_completion_request

    def published(*args: Any, **given: Any) -> Any:
        request = original(*args, **given)
        for message in request["messages"]:
            for call in (message.get("tool_calls") if hasattr(message, "get") else None) or ():
                if isinstance(call, dict):
                    call.pop("index", None)
        return request

    config.transform_responses_api_request_to_chat_completion_request = staticmethod(published)
    messages: Any = minimax.MinimaxMessagesConfig
    below = messages.get_complete_url

    def anthropics(self: Any, api_base: str | None, *args: Any, **given: Any) -> Any:
        if api_base and "/anthropic" not in api_base:
            api_base = api_base.rstrip("/").removesuffix("/v1") + "/anthropic"
        return below(self, api_base, *args, **given)

    messages.get_complete_url = anthropics
    usage: Any = litellm.Usage
    made = usage.__init__

    def with_cached(self: Any, *args: Any, **given: Any) -> None:
        if given.get("cached_tokens") and not given.get("prompt_tokens_details"):
            given["prompt_tokens_details"] = {"cached_tokens": given["cached_tokens"]}
        made(self, *args, **given)

    usage.__init__ = with_cached


def _keep_no_accounts() -> None:
    """Streams of the Anthropic dialect are written into the accounts of LiteLLM's proxy, which would be imported whole,
    with a web server that is not installed. Accounts are the daemon's: here they are kept by nobody.
    """
    keeper = type(
        "PassThroughStreamingHandler",
        (),
        {
            "route_streaming_logging_to_handler": staticmethod(_nothing),
            "schedule_stream_failure_logging": staticmethod(_nothing),
            "chunk_processor": staticmethod(_bytes_of),
        },
    )
    room = "litellm.proxy.pass_through_endpoints"
    _stand_in(
        f"{room}.success_handler", PassThroughEndpointLogging=type("PassThroughEndpointLogging", (), {})
    )
    _stand_in(f"{room}.streaming_handler", PassThroughStreamingHandler=keeper)


def _stand_in(name: str, **content: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(content)
    sys.modules[name] = module


async def _bytes_of(*, response: Any, **_: Any) -> AsyncIterator[bytes]:
    async for chunk in response.aiter_bytes():
        yield chunk


def _never(*_: Any, **__: Any) -> None:
    return None


async def _nothing(**_: Any) -> None:
    return None
