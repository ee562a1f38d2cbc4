"""Puts values back in what a model says, for the agent's own eyes: whole answers, and streams in every dialect.

A token that is cut by the border of two pieces is held back until it is whole, or can be none; what is held back when
something ends goes out before its end. An answer's shape is its upstream's: what is not understood passes as it came.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

from agentk.broker.guarding import values
from agentk.broker.guarding.tokens import Tokens
from agentk.llm import sse

# Texts that are JSON themselves: a value in them is written as JSON has it.
_JSON = frozenset({"arguments", "partial_json"})
_DELTAS = ("content", "reasoning_content", "reasoning", "refusal")
_NATIVE = ("text", "reasoning")
_ANTHROPIC = ("text", "thinking", "partial_json")

Channel = tuple[Any, ...]
Leaf = tuple[Channel, dict[str, Any], str, bool]  # whose piece it is, where it is, and whether it is JSON


def whole(value: Any, held: Tokens) -> Any:
    return values.changed(value, lambda text, field: held.restored(text, field in _JSON))


class Pieces:
    """The pieces of one answer, as objects."""

    def __init__(self, held: Tokens) -> None:
        self._held = held
        self._kept: dict[
            Channel, tuple[str, Any, bool]
        ] = {}  # the text, the object that it came in, whether JSON

    def feed(self, obj: Any) -> list[Any]:
        """What may go on now."""
        if not isinstance(obj, dict):
            return [obj]
        obj = copy.deepcopy(obj)
        leaves = list(_leaves(obj))
        closed = _closed(obj)
        before = [] if closed is None else self._flushed(closed, {channel for channel, *_ in leaves})
        texts = {}
        for at, (channel, place, key, as_json) in enumerate(leaves):
            text = self._kept.pop(channel, ("", None, False))[0] + place[key]
            kept = 0 if closed is not None and _within(channel, closed) else self._held.unfinished(text)
            if kept:
                self._kept[channel] = text[len(text) - kept :], obj, as_json
            texts[at] = self._held.restored(text[: len(text) - kept], as_json)
            place[key] = ""
        told = whole(obj, self._held) if not leaves else obj
        for at, (_, place, key, _) in enumerate(leaves):
            place[key] = texts[at]
        return [*before, told]

    def end(self) -> list[Any]:
        return self._flushed((), set())

    def _flushed(self, closed: Channel, but: set[Channel]) -> list[Any]:
        told = []
        for channel in [one for one in self._kept if _within(one, closed) and one not in but]:
            text, obj, as_json = self._kept.pop(channel)
            made = copy.deepcopy(obj)
            for choice in made.get("choices") or ():
                if isinstance(choice, dict) and "finish_reason" in choice:
                    choice["finish_reason"] = None
            for other, place, key, _ in list(_leaves(made)):
                place[key] = self._held.restored(text, as_json) if other == channel else ""
            told.append(made)
        return told


class Events:
    """The same of server-sent events, as bytes."""

    def __init__(self, held: Tokens) -> None:
        self._parser, self._pieces = sse.Parser(), Pieces(held)

    def feed(self, data: bytes) -> bytes:
        return b"".join(self._told(event) for event in self._parser.feed(data))

    def end(self) -> bytes:
        rest = b"".join(self._told(event) for event in self._parser.end())
        return rest + self._written(self._pieces.end(), b"")

    def _told(self, event: sse.Event) -> bytes:
        if not event.data or event.data == b"[DONE]":
            held = self._pieces.end() if event.data else []
            return self._written(held, b"") + event.raw
        try:
            obj = json.loads(event.data)
        except (ValueError, RecursionError):
            return event.raw
        return self._written(self._pieces.feed(obj), event.name)

    def _written(self, objects: list[Any], name: bytes) -> bytes:
        written = []
        for obj in objects:
            own = name
            if isinstance(obj, Mapping) and isinstance(obj.get("type"), str) and (name or "delta" in obj):
                own = obj["type"].encode()
            data = json.dumps(obj, ensure_ascii=False, separators=(",", ":")).encode(
                "utf-8", "backslashreplace"
            )
            written.append(sse.write(data, own))
        return b"".join(written)


def body(text: str, held: Tokens) -> str:
    """A whole answer of an upstream, or a whole stream."""
    data = text.encode("utf-8", "surrogateescape")
    if data.lstrip()[:1] in (b"{", b"["):
        try:
            return json.dumps(whole(json.loads(data), held), ensure_ascii=False, separators=(",", ":"))
        except (ValueError, RecursionError):
            return text
    events = Events(held)
    return (events.feed(data) + events.end()).decode("utf-8", "surrogateescape")


def _leaves(obj: dict[str, Any]) -> Iterator[Leaf]:
    """Texts of which more pieces may follow."""
    kind = obj.get("type")
    if isinstance(obj.get("choices"), list):
        for choice in obj["choices"]:
            if isinstance(choice, dict) and isinstance(choice.get("delta"), dict):
                yield from _of_delta(
                    choice["delta"], ("choice", _at(choice.get("index"))), _DELTAS, "tool_calls"
                )
    elif kind == "content_block_delta" and isinstance(obj.get("delta"), dict):
        for key in _ANTHROPIC:
            if isinstance(obj["delta"].get(key), str):
                yield ("block", _at(obj.get("index")), key), obj["delta"], key, key in _JSON
    elif isinstance(kind, str) and kind.endswith(".delta") and isinstance(obj.get("delta"), str):
        place = map(_at, (obj.get("output_index"), kind, obj.get("content_index"), obj.get("summary_index")))
        yield ("output", *place), obj, "delta", "arguments" in kind
    elif kind is None:
        yield from _of_delta(obj, ("native",), _NATIVE, "toolCalls")


def _of_delta(delta: dict[str, Any], channel: Channel, keys: tuple[str, ...], calls: str) -> Iterator[Leaf]:
    for key in keys:
        if isinstance(delta.get(key), str):
            yield (*channel, key), delta, key, False
    told = delta.get(calls)
    for call in told if isinstance(told, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            yield (*channel, "call", _at(call.get("index"))), function, "arguments", True


def _closed(obj: Mapping[str, Any]) -> Channel | None:
    """What ends with this one; None when nothing does."""
    kind = obj.get("type")
    if isinstance(obj.get("choices"), list):
        for choice in obj["choices"]:
            if isinstance(choice, Mapping) and choice.get("finish_reason"):
                return ("choice", _at(choice.get("index")))
        return None
    if kind == "content_block_stop":
        return ("block", _at(obj.get("index")))
    if kind in ("message_delta", "message_stop", "error"):
        return ()
    if isinstance(kind, str) and kind.startswith("response.") and not kind.endswith(".delta"):
        return ("output", _at(obj["output_index"])) if "output_index" in obj else ()
    return None


def _within(channel: Channel, closed: Channel) -> bool:
    return channel[: len(closed)] == closed


def _at(index: Any) -> Any:
    """As part of a channel, whatever an upstream gives as one."""
    return index if index is None or isinstance(index, str | int) else json.dumps(index)
