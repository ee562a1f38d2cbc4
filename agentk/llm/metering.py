"""Reads what a call used out of an answer on its way, per dialect, and counts the text when nobody told.

It never changes an answer, except to take out of an OpenAI stream the usage that we asked for and the guest did not.
A chunk is parsed only when it may hold usage; the others are kept as they came and read only if the call is cut short.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from agentk.llm import asking, sse, tokens

_HAS_USAGE = re.compile(rb'"(?:usage|x_groq)"\s*:\s*\{')
_TERMINAL = (b'"response.completed"', b'"response.incomplete"', b'"response.failed"')


class Meter:
    """One call's usage. Feed it documents or events; ask `usage()` at the end."""

    def __init__(self, ask: asking.Ask, model: str) -> None:
        self._ask = ask
        self._model = model
        self._told: dict[str, int] = {}
        self._unread: list[bytes] = []
        self._ended = False
        options = ask.body.get("stream_options")
        self._wanted = isinstance(options, Mapping) and options.get("include_usage") is True

    def document(self, document: Any) -> None:
        """A whole answer."""
        self._ended = True
        if isinstance(document, Mapping):
            self._note(document.get("usage"))
            if self._ask.dialect == "anthropic.count_tokens":
                self._told.setdefault("input", 0)
            if not self._told:
                self._unread.append(json.dumps(document).encode())

    def event(self, event: sse.Event) -> bytes:
        """What the guest gets of an event: its own bytes, or less when it holds usage it did not ask for."""
        if not event.data or event.data == b"[DONE]":
            self._ended = self._ended or event.data == b"[DONE]"
            return event.raw
        if self._ask.dialect == "openai.chat":
            return self._chat(event)
        if self._ask.dialect == "openai.responses":
            if any(word in event.data for word in _TERMINAL):
                self._terminal(_json(event.data))
            else:
                self._unread.append(event.data)
        elif event.name in (b"message_start", b"message_delta", b"message_stop"):
            self._message(event.name, _json(event.data))
        else:
            self._unread.append(event.data)
        return event.raw

    def usage(self) -> asking.Usage:
        """What was told; where the stream ended or was left before that, what was counted."""
        if "output" in self._told or (self._ended and self._told):
            read = self._told.get("input", 0)
            return asking.Usage(
                input_tokens=read,
                output_tokens=self._told.get("output", 0),
                cached_tokens=min(read, self._told.get("cached", 0)),
                cache_write_tokens=min(read, self._told.get("cache_write", 0)),
                model=self._model,
            )
        written = "".join(text for data in self._unread for text in _texts(_json(data)))
        counted = tokens.upper_bound(self._ask.dialect, self._ask.body, self._model)
        return asking.Usage(
            input_tokens=self._told.get("input", counted),
            # Never fewer than the chunks that held text: a provider sends at least a token in each.
            output_tokens=tokens.count_text(written),
            cached_tokens=self._told.get("cached", 0),
            cache_write_tokens=self._told.get("cache_write", 0),
            model=self._model,
            counted=True,
        )

    def _chat(self, event: sse.Event) -> bytes:
        if not _HAS_USAGE.search(event.data):
            self._unread.append(event.data)
            if self._wanted or b',"usage":null' not in event.data:
                return event.raw
            # Outside a string a quote is never behind a backslash, so this is no part of anybody's text.
            return event.raw.replace(b',"usage":null', b"")
        chunk = _json(event.data)
        usage = chunk.pop("usage", None)
        groq = chunk.get("x_groq")
        self._note(usage or (groq.get("usage") if isinstance(groq, Mapping) else None))
        if self._wanted or not usage:
            return event.raw
        return sse.write(json.dumps(chunk, ensure_ascii=False).encode()) if chunk.get("choices") else b""

    def _terminal(self, event: Mapping[str, Any]) -> None:
        response = event.get("response")
        if isinstance(response, Mapping) and isinstance(response.get("usage"), Mapping):
            self._note(response["usage"])

    def _message(self, name: bytes, event: Mapping[str, Any]) -> None:
        if name == b"message_start":
            message = event.get("message")
            usage = message.get("usage") if isinstance(message, Mapping) else None
            # Its output_tokens are those of the first piece only: told for good by message_delta.
            self._note({k: v for k, v in (usage or {}).items() if k != "output_tokens"})
        elif name == b"message_delta":
            self._note(event.get("usage"))

    def _note(self, usage: Any) -> None:
        """Any provider's usage object. Counts are cumulative: the last one told holds."""
        if not isinstance(usage, Mapping):
            return
        if self._ask.dialect.startswith("anthropic."):
            self._note_anthropic(usage)
            return
        told = _numbers(usage)
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        cached = _numbers(details).get("cached_tokens") if isinstance(details, Mapping) else None
        self._set("input", told.get("prompt_tokens", told.get("input_tokens")))
        self._set("output", told.get("completion_tokens", told.get("output_tokens")))
        self._set("cached", cached or told.get("prompt_cache_hit_tokens") or told.get("cached_tokens"))

    def _note_anthropic(self, usage: Mapping[str, Any]) -> None:
        """Its input_tokens leave out what the cache gave or took; ours are everything that was read."""
        told = _numbers(usage)
        self._set("cached", told.get("cache_read_input_tokens"))
        self._set("cache_write", told.get("cache_creation_input_tokens"))
        if "input_tokens" in told:
            extra = self._told.get("cached", 0) + self._told.get("cache_write", 0)
            self._set("input", told["input_tokens"] + extra)
        self._set("output", told.get("output_tokens"))

    def _set(self, name: str, value: int | None) -> None:
        if value is not None:
            self._told[name] = value


def _numbers(told: Mapping[str, Any]) -> dict[str, int]:
    """Only counts a ledger can take: an upstream may answer anything."""
    return {
        k: v
        for k, v in told.items()
        if isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= asking.TOKENS_MAX
    }


def _json(data: bytes) -> dict[str, Any]:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


# Fields whose texts a model wrote; everything else of an answer is framing.
_WRITTEN = frozenset(
    {
        "content",
        "text",
        "delta",
        "arguments",
        "partial_json",
        "thinking",
        "refusal",
        "reasoning_content",
        "name",
    }
    | {"reasoning", "message", "function", "tool_calls", "choices", "output", "content_block", "summary"}
)


def _texts(value: Any) -> Iterator[str]:
    """Of what `json.loads` made: a chunk is looked through for each few words of an answer that nobody counted."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key in _WRITTEN:
                if isinstance(below, str):
                    yield below
                else:
                    yield from _texts(below)
    elif isinstance(value, list):
        for below in value:
            yield from _texts(below)
