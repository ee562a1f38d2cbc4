"""Streams that are looked at: held until they are whole, or with values put back piece by piece.

Half of a key is no key to who looks for keys. So what is searched, or bounded, is held back until its end; no more of
it than may be told is kept.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from agentk.api import errors
from agentk.broker.calling import proxying
from agentk.broker.guarding import limits, restoring
from agentk.broker.guarding.masking import Masking
from agentk.broker.guarding.rails import Output, Surface
from agentk.broker.guarding.tokens import Tokens

_HELD_BYTES = 4 * 1024 * 1024
_ANY = "surrogateescape"


class Streaming(Protocol):
    def feed(self, item: Any) -> list[Any]: ...

    async def end(self) -> list[Any]: ...


class Restored:
    """What a model says, in the form of its dialect: "" is the native one."""

    def __init__(self, held: Tokens, form: str) -> None:
        self._pieces = None if form else restoring.Pieces(held)
        self._events = restoring.Events(held)
        self._whole = bytearray()
        self._kind = ""
        self._tokens = held

    def feed(self, item: Any) -> list[Any]:
        if self._pieces is not None:
            return self._pieces.feed(item)
        if not isinstance(item, bytes):  # the head
            headers = getattr(item, "headers", {})
            self._kind = str(headers.get("content-type", ""))
            return [item]
        if "json" in self._kind:  # whole, and too long to be kept for who asks again
            self._whole += item
            if len(self._whole) > 2 * _HELD_BYTES:
                raise errors.UpstreamError("the model's answer is longer than one with masked data may be")
            return []
        told = self._events.feed(item)
        return [told] if told else []

    async def end(self) -> list[Any]:
        if self._pieces is not None:
            return self._pieces.end()
        if self._whole:
            text = restoring.body(self._whole.decode("utf-8", _ANY), self._tokens)
            return [text.encode("utf-8", _ANY)]
        told = self._events.end()
        return [told] if told else []


class Held:
    """What a program, a tool or a host says."""

    def __init__(self, masking: Masking, surface: Surface, output: Output | None) -> None:
        self._masking, self._surface, self._output = masking, surface, output
        self._items: list[Any] = []
        self._bytes = 0

    def feed(self, item: Any) -> list[Any]:
        size = len(item) if isinstance(item, bytes) else limits.size(item) if isinstance(item, Mapping) else 0
        self._bytes += size
        if self._bytes <= _HELD_BYTES:
            self._items.append(item)
        elif isinstance(item, bytes):
            raise errors.TooLarge(
                f"guardrails: more than {_HELD_BYTES} bytes cannot be looked through",
                hint="http.request asks for the first of it",
            )
        return []

    async def end(self) -> list[Any]:
        if any(isinstance(item, bytes | proxying.Begun) for item in self._items):
            return await self._answer()
        joined: dict[str, str] = {}
        others = []
        for item in self._items:
            if isinstance(item, Mapping) and set(item) <= {"stdout", "stderr"}:
                for name, text in item.items():
                    joined[name] = joined.get(name, "") + str(text)
            else:
                others.append(item)
        told = [joined, *others] if joined else others
        told = await self._masking.searched(self._surface, told)
        return [one for item in told if (one := self._short(item))]

    def _short(self, item: Any) -> Any:
        if self._output is None or not isinstance(item, Mapping):
            return item
        told = limits.cut(item, self._output)
        return {key: value for key, value in told.items() if key in item}

    async def _answer(self) -> list[Any]:
        """A host's, by the proxy: as long as it was, for its length was told."""
        heads = [item for item in self._items if isinstance(item, proxying.Begun)]
        data = b"".join(item for item in self._items if isinstance(item, bytes))
        coding = next((value for name, value in heads[0].headers if name == "content-encoding"), "")
        if coding not in ("", "identity"):
            raise errors.Denied(f"guardrails: an answer in {coding[:20]} cannot be looked through")
        if self._output is not None and len(data) > self._output.most_bytes:
            raise errors.TooLarge(f"guardrails: the answer has {len(data)} bytes, more than may be told")
        about = dict(heads[0].headers)
        told = await self._masking.searched("http", {"headers": about, "body": data.decode("utf-8", _ANY)})
        body = told["body"].encode("utf-8", _ANY)
        if told["headers"] != about or len(body) > len(data):
            raise errors.Denied("guardrails: there is what looks like a secret in it")
        body += b" " * (len(data) - len(body))
        return [heads[0], body] if body else [heads[0]]


def plain(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request whose answer can be read."""
    headers = {name: value for name, value in params["headers"].items() if name.lower() != "accept-encoding"}
    return {**params, "headers": {**headers, "accept-encoding": "identity"}}
