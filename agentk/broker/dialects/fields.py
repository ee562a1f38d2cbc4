"""Shapes: what a field may hold. The tables of the dialects are written in these words.

Everything not named is refused, with the path of the field: a proxy that passes on what it does not know lets its
guest choose endpoint, key or provider. Checking never changes a value and is bounded in depth.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentk.api.errors import BadRequest

DEPTH = 64  # of JSON that is the guest's own (schemas, arguments)

# Known to client libraries and proxies as ways to redirect a call: refused like any unknown field, with the reason.
# fmt: off
_ROUTING = frozenset({
    "api_base", "api_key", "api_type", "api_version", "base_url", "custom_llm_provider",
    "deployment_id", "default_headers", "drop_params", "endpoint", "extra_body", "extra_headers",
    "extra_query", "fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "headers",
    "litellm_metadata", "litellm_params", "mock_response", "mock_tool_calls", "model_info",
    "model_list", "models", "num_retries", "max_retries", "organization", "project", "provider",
    "proxy", "region_name", "request_timeout", "route", "router", "timeout", "user_config",
    "vertex_project", "vertex_location", "vertex_credentials", "aws_access_key_id",
    "aws_secret_access_key", "aws_region_name", "aws_bedrock_runtime_endpoint", "azure_ad_token",
    "inference_geo", "workspace_id", "user_profile_id", "mcp_servers",
})
# fmt: on


@dataclass(frozen=True)
class Shape:
    def takes(self, value: object) -> bool:
        """Whether a value is of this shape's kind at all; `check` says what is wrong inside."""
        raise NotImplementedError

    def named(self) -> str:
        raise NotImplementedError

    def check(self, value: Any, path: str) -> None:
        if not self.takes(value):
            raise wrong(path, f"must be {self.named()}")


@dataclass(frozen=True)
class Text(Shape):
    most: int = 8 * 1024 * 1024

    def takes(self, value: object) -> bool:
        return isinstance(value, str)

    def named(self) -> str:
        return "a string"

    def check(self, value: Any, path: str) -> None:
        super().check(value, path)
        if len(value) > self.most:
            raise wrong(path, f"is longer than {self.most} characters")


@dataclass(frozen=True)
class Flag(Shape):
    def takes(self, value: object) -> bool:
        return isinstance(value, bool)

    def named(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Number(Shape):
    low: float = -1e9
    high: float = 1e9

    def takes(self, value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    def named(self) -> str:
        return "a number"

    def check(self, value: Any, path: str) -> None:
        super().check(value, path)
        if not self.low <= value <= self.high:  # NaN is neither
            raise wrong(path, f"must be between {self.low:g} and {self.high:g}")


@dataclass(frozen=True)
class Whole(Number):
    low: float = 0
    high: float = 2**53

    def takes(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def named(self) -> str:
        return "a whole number"


@dataclass(frozen=True)
class OneOf(Shape):
    words: frozenset[str]

    def takes(self, value: object) -> bool:
        return isinstance(value, str)

    def named(self) -> str:
        return "one of " + ", ".join(sorted(self.words))

    def check(self, value: Any, path: str) -> None:
        if not isinstance(value, str) or value not in self.words:
            raise wrong(path, f"must be {self.named()}")


@dataclass(frozen=True)
class Items(Shape):
    of: Shape
    most: int = 100_000

    def takes(self, value: object) -> bool:
        return isinstance(value, list)

    def named(self) -> str:
        return "a list"

    def check(self, value: Any, path: str) -> None:
        super().check(value, path)
        if len(value) > self.most:
            raise wrong(path, f"has more than {self.most} items")
        for index, item in enumerate(value):
            self.of.check(item, f"{path}[{index}]")


@dataclass(frozen=True)
class Fields(Shape):
    """An object with these fields and no others. null stands for "not given" where a field is not required."""

    known: Mapping[str, Shape]
    required: frozenset[str] = frozenset()

    def takes(self, value: object) -> bool:
        return isinstance(value, dict)

    def named(self) -> str:
        return "an object"

    def check(self, value: Any, path: str) -> None:
        super().check(value, path)
        for name, held in value.items():
            at = f"{path}.{name}" if path else name
            shape = self.known.get(name)
            if shape is None:
                raise _unknown(at, name)
            if held is not None or name in self.required:
                shape.check(held, at)
        for name in sorted(self.required - value.keys()):
            raise wrong(f"{path}.{name}" if path else name, "is required")


@dataclass(frozen=True)
class Tagged(Shape):
    """An object whose `tag` field says which of several shapes it has; `absent` is meant when there is no tag."""

    tag: str
    kinds: Mapping[str, Shape]
    absent: str = ""
    other: Shape | None = None  # the shape of tags not listed; without it they are refused

    def takes(self, value: object) -> bool:
        return isinstance(value, dict)

    def named(self) -> str:
        return "an object"

    def check(self, value: Any, path: str) -> None:
        super().check(value, path)
        word = value.get(self.tag)
        word = self.absent if word is None else word
        shape = self.kinds.get(word, self.other) if isinstance(word, str) else None
        if shape is None:
            known = ", ".join(sorted(self.kinds))
            raise wrong(f"{path}.{self.tag}", f"must be one of {known}")
        shape.check(value, path)


@dataclass(frozen=True)
class Either(Shape):
    """The first shape that takes the value's kind is the one it must have."""

    shapes: tuple[Shape, ...]

    def takes(self, value: object) -> bool:
        return any(shape.takes(value) for shape in self.shapes)

    def named(self) -> str:
        return " or ".join(dict.fromkeys(shape.named() for shape in self.shapes))

    def check(self, value: Any, path: str) -> None:
        super().check(value, path)
        next(shape for shape in self.shapes if shape.takes(value)).check(value, path)


@dataclass(frozen=True)
class Json(Shape):
    """JSON of the guest's own, only bounded in depth."""

    only: tuple[type, ...] = field(default=(dict, list, str, int, float, bool, type(None)))

    def takes(self, value: object) -> bool:
        return isinstance(value, self.only)

    def named(self) -> str:
        return "an object" if self.only == (dict,) else "JSON"

    def check(self, value: Any, path: str) -> None:
        super().check(value, path)
        level = [value]
        for _ in range(DEPTH):
            level = [inner for outer in level for inner in children(outer)]
            if not level:
                return
        raise wrong(path, f"is nested deeper than {DEPTH} levels")


@dataclass(frozen=True)
class Labels(Shape):
    """Strings by name, few and short."""

    most: int = 16
    key_most: int = 64
    value_most: int = 512
    names: frozenset[str] = frozenset()  # names that are refused

    def takes(self, value: object) -> bool:
        return isinstance(value, dict)

    def named(self) -> str:
        return "an object of strings"

    def check(self, value: Any, path: str) -> None:
        super().check(value, path)
        if len(value) > self.most:
            raise wrong(path, f"has more than {self.most} entries")
        for name, text in value.items():
            if name in self.names:
                raise _unknown(f"{path}.{name}", name)
            if len(name) > self.key_most:
                raise wrong(path, f"has a name longer than {self.key_most} characters")
            Text(self.value_most).check(text, f"{path}.{name}")


def children(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def one_of(*words: str) -> OneOf:
    return OneOf(frozenset(words))


def named(*required: str, **known: Shape) -> Fields:
    return Fields(known, frozenset(required))


def tag(word: str, *required: str, **known: Shape) -> Fields:
    """An object whose field `type` is `word`."""
    return named("type", *required, type=one_of(word), **known)


def by_type(*kinds: Fields, absent: str = "") -> Tagged:
    """Objects told apart by their field `type`."""
    words: dict[str, Shape] = {}
    for kind in kinds:
        words.update(dict.fromkeys(getattr(kind.known["type"], "words", ()), kind))
    return Tagged("type", words, absent)


def wrong(path: str, what: str) -> BadRequest:
    return BadRequest(f"{path or 'the body'} {what}", field=path)


def _unknown(path: str, name: str) -> BadRequest:
    if name in _ROUTING:
        what = f"{path} is refused: where a call goes, and with which key, is the ModelRoute's to say"
    else:
        what = f"{path} is not a field that an agent may send"
    return BadRequest(what, field=path)
