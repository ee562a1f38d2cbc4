"""Functions read as tools and called, by the program that a jail runs."""

import json
import subprocess
import sys
from typing import Any

import pytest

from agentk.api import errors
from agentk.tools import outputs, pythons

SHOP = '''
import dataclasses, enum, typing
from typing import Annotated, Literal, Optional

class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"

@dataclasses.dataclass
class Item:
    name: str
    count: int = 1

def order(item: Item, size: Size = Size.SMALL, tags: "list[str]" = (), to: Optional[str] = None,
          how: Literal["air", "sea"] = "air", note: Annotated[str, "Anything."] = "") -> dict[str, int]:
    """Orders something.

    Two lines of it.

    Args:
        item: What to order,
            and how much.
        to: Where it goes.

    Returns:
        nothing much
    """
    print("to whoever reads", item, size)
    return {"count": item.count, "large": int(size is Size.LARGE), "tags": len(tags)}

async def later(n: int):
    """Later.

    :param n: a number
    :returns: the same
    """
    return n + 1

def wrong(x: str):
    raise ValueError(f"not {x}")

def positional(x, /): ...

def pay(sum: int, idempotency_key: str):
    return [sum, idempotency_key]
'''


def line_of(text: str) -> int:
    return next(at for at, line in enumerate(SHOP.splitlines(), 1) if text in line)


def run(**asked: Any) -> outputs.Ran:
    order = pythons.order({"shop.py": SHOP, "data.bin": "x"}, "", **asked)
    argv = [sys.executable, *pythons.argv()[1:]]
    done = subprocess.run(argv, input=order, capture_output=True)
    return outputs.Ran(done.returncode, done.stdout, done.stderr)


def test_a_signature_and_a_docstring_are_a_schema() -> None:
    names = ["shop:order", "shop:later"]
    order, later = pythons.offered(run(functions=names), names)
    assert order.description == "Orders something.\n\nTwo lines of it."
    asked = order.input_schema
    assert asked["required"] == ["item"] and asked["additionalProperties"] is False
    fields = asked["properties"]
    assert fields["item"]["properties"] == {"name": {"type": "string"}, "count": {"type": "integer"}}
    assert (
        fields["item"]["required"] == ["name"]
        and fields["item"]["description"] == "What to order, and how much."
    )
    assert fields["size"] == {"enum": ["s", "l"]} and fields["how"] == {
        "enum": ["air", "sea"],
        "default": "air",
    }
    assert fields["tags"] == {"type": "array", "items": {"type": "string"}}
    assert fields["to"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "Where it goes."}
    assert fields["note"] == {"type": "string", "description": "Anything.", "default": ""}
    assert later.input_schema["properties"] == {"n": {"type": "integer", "description": "a number"}}


def test_a_function_is_called_with_what_it_expects() -> None:
    given = {"item": {"name": "a", "count": 3}, "size": "l", "tags": ["x"]}
    told = pythons.outcome(run(call="shop:order", arguments=given))
    assert told.structured == {"count": 3, "large": 1, "tags": 1} and not told.is_error
    assert pythons.outcome(run(call="shop:later", arguments={"n": 1})).structured == 2
    wrong = pythons.outcome(run(call="shop:wrong", arguments={"x": "so"}))
    said = wrong.content[0]["text"]
    assert wrong.is_error and said == f"ValueError: not so (shop.py, line {line_of('raise ValueError')})"
    ended = pythons.outcome(outputs.Ran(3, b""))
    assert ended.content[0]["text"] == "it ended with exit code 3, and without an answer"


def test_a_key_is_given_to_a_function_that_takes_one_and_asked_of_nobody() -> None:
    (pay,) = pythons.offered(run(functions=["shop:pay"], keyed=True), ["shop:pay"])
    assert list(pay.input_schema["properties"]) == ["sum"] and pay.input_schema["required"] == ["sum"]
    forged = {"sum": 1, "idempotency_key": "forged"}
    assert pythons.outcome(run(call="shop:pay", arguments=forged, key="k")).structured == [1, "k"]
    assert pythons.outcome(run(call="shop:later", arguments={"n": 1}, key="k")).structured == 2
    (pay,) = pythons.offered(run(functions=["shop:pay"]), ["shop:pay"])
    assert "idempotency_key" in pay.input_schema["properties"]


@pytest.mark.parametrize("functions", [["shop:missing"], ["nowhere:f"], ["shop:positional"]])
def test_what_cannot_be_read_says_why(functions: list[str]) -> None:
    with pytest.raises(errors.UpstreamError, match="cannot be read"):
        pythons.offered(run(functions=functions), functions)


def test_why_it_cannot_be_read_is_said_once() -> None:
    with pytest.raises(errors.UpstreamError) as told:
        pythons.offered(run(functions=["shop:missing"]), ["shop:missing"])
    assert told.value.message.count("has no attribute 'missing'") == 1


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[" * 100_000,
        b"null",
        json.dumps({"offers": [{"name": "other"}]}).encode(),
        json.dumps({"offers": [{"name": "f", "inputSchema": {"$ref": "http://a.example/"}}]}).encode(),
        json.dumps({"offers": "x" * 5000}).encode(),
    ],
)
def test_a_jail_that_lies_about_functions_is_not_believed(said: bytes) -> None:
    with pytest.raises(errors.UpstreamError):
        pythons.offered(outputs.Ran(0, said), ["m:f"])
    assert pythons.outcome(outputs.Ran(0, said)).is_error
