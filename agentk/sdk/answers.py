"""What a call is before it is sent, and how its answer becomes what people use. Nothing is sent here.

Runs in jails: Python 3.9, standard library only.
"""

from __future__ import annotations

import sys
from array import array
from binascii import a2b_base64
from typing import Any, Callable, Dict, Generic, List, Optional, Type, TypeVar

from agentk.sdk import results

T = TypeVar("T")
P = TypeVar("P")  # one piece of a stream
N = TypeVar("N")


class Call(Generic[T]):
    """One call, ready to be sent: `parse` makes its answer of what the gate sends."""

    def __init__(self, method: str, params: Dict[str, Any], parse: Callable[[Any], T]) -> None:
        self.method = method
        self.params = params
        self.parse = parse

    def resumed(self, last: Any) -> Optional[Dict[str, Any]]:
        """The params to go on with after `last`, when going on is another call than starting again."""
        return None


class Streaming(Call[T], Generic[T, P]):
    """A call that can also be answered piece by piece."""

    def __init__(
        self, method: str, params: Dict[str, Any], parse: Callable[[Any], T], piece: Callable[[Any], P]
    ) -> None:
        super().__init__(method, params, parse)
        self.piece = piece

    def streamed(self) -> Streaming[T, P]:
        return Streaming(self.method, {**self.params, "stream": True}, self.parse, self.piece)


class Subscription(Streaming[results.Heard, results.Event]):
    """Always streams, and goes on after the last event it saw."""

    def streamed(self) -> Subscription:
        return self

    def resumed(self, last: Any) -> Optional[Dict[str, Any]]:
        if not isinstance(last, dict) or "id" not in last:
            return None
        return {**self.params, "after": last["id"]}


def given(**params: Any) -> Dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def as_tuple(cls: Type[N]) -> Callable[[Any], N]:
    """runId of the wire → run_id of the tuple; from → from_."""
    names = {field: _camel(field) for field in cls._fields}  # type: ignore[attr-defined]

    def made(raw: Any) -> N:
        return cls(**{field: raw[name] for field, name in names.items() if name in raw})

    return made


def _camel(field: str) -> str:
    head, *tail = field.rstrip("_").split("_")
    return head + "".join(word.title() for word in tail)


def a_list(name: str, cls: Type[N]) -> Callable[[Any], List[N]]:
    one = as_tuple(cls)
    return lambda raw: [one(item) for item in raw[name]]


def a_page(cls: Type[T], of: Type[Any]) -> Callable[[Any], T]:
    items = a_list("items", of)
    return lambda raw: cls(items(raw), str(raw.get("continue", "")))  # type: ignore[call-arg]


def tools(raw: Any) -> results.Tools:
    items = a_list("items", results.Listed)(raw)
    return results.Tools(items, str(raw.get("continue", "")), raw.get("unavailable", ()))


def thought(raw: Any) -> results.Thought:
    return as_tuple(results.Thought)({**raw, "usage": as_tuple(results.Usage)(raw.get("usage", {}))})


def embedded(raw: Any) -> results.Embedded:
    vectors = [_vector(one) for one in raw["embeddings"]]
    return results.Embedded(vectors, raw.get("model", ""), as_tuple(results.Usage)(raw.get("usage", {})))


def _vector(raw: Any) -> List[float]:
    if not isinstance(raw, str):
        return list(raw)
    floats = array("f", a2b_base64(raw))
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tolist()


def a_bool(name: str) -> Callable[[Any], bool]:
    return lambda raw: bool(raw[name])


def an_int(name: str) -> Callable[[Any], int]:
    return lambda raw: int(raw[name])


def a_text(name: str) -> Callable[[Any], str]:
    return lambda raw: str(raw[name])


def nothing(raw: Any) -> None:
    return None
