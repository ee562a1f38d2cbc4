"""The calls of the SDK are those of the schema, by name and by parameter, and the fronts have them all."""

import base64
import inspect
import json
import struct
from typing import Any

import jsonschema
import pytest

from agentk.data import files
from agentk.sdk import aio, answers, calls, client, granted, remembering, results

METHODS: dict[str, Any] = json.loads((files.folder("schemas") / "syscalls.json").read_text())["methods"]
# What a front sets, or a parser knows: not for people to give.
SET_HERE = {"think": {"stream"}, "exec": {"stream"}, "embed": {"encoding"}, "tool.call": {"stream"}}
SHORTHANDS = {"exec_python", "exec_shell"}
# The least that each call takes.
LEAST: dict[str, dict[str, Any]] = {
    "think": {"prompt": "hi"},
    "embed": {"input": "a cat"},
    "exec": {"code": "1"},
    "agent.spawn": {"spec": {}},
    "skill.run": {"name": "x", "function": "f"},
}


def function(method: str) -> Any:
    return getattr(calls, method.replace(".", "_"))


def least(method: str) -> Any:
    given = LEAST.get(method)
    if given is None:
        asked = METHODS[method]["params"]
        samples: dict[Any, Any] = {"string": "x", "array": ["x"], "integer": 1, None: {"any": "json"}}
        given = {key: samples[asked["properties"][key].get("type")] for key in asked.get("required", ())}
        given.update({"url": "http://x/"} if "url" in given else {})
    return function(method)(**given)


def test_every_call_is_there_and_no_other() -> None:
    made = {
        name
        for name, value in vars(calls).items()
        if inspect.isfunction(value)
        and value.__module__ in (calls.__name__, granted.__name__, remembering.__name__)
    }
    assert made - SHORTHANDS == {method.replace(".", "_") for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_parameters_are_those_of_the_schema(method: str) -> None:
    asked = METHODS[method]["params"]
    told = inspect.signature(function(method)).parameters
    assert {answers._camel(name) for name in told} | SET_HERE.get(method, set()) == set(asked["properties"])
    needed = {name for name, parameter in told.items() if parameter.default is parameter.empty}
    assert {answers._camel(name) for name in needed} == set(asked.get("required", ()))


@pytest.mark.parametrize("method", METHODS)
def test_the_least_call_is_as_the_schema_wants_it(method: str) -> None:
    call = least(method)
    assert call.method == method
    jsonschema.validate(call.params, METHODS[method]["params"], cls=jsonschema.Draft202012Validator)
    assert isinstance(call, answers.Streaming) == ("stream" in METHODS[method])
    if isinstance(call, answers.Streaming):
        jsonschema.validate(call.streamed().params, METHODS[method]["params"])


@pytest.mark.parametrize("method", METHODS)
def test_what_the_schema_answers_is_understood(method: str) -> None:
    call = least(method)
    told = sample(METHODS[method]["result"])
    if method == "embed":
        told["embeddings"] = [[0.5]]
    made = call.parse(told)
    if isinstance(made, tuple):
        assert {answers._camel(name) for name in type(made)._fields} >= set(told)  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", [method for method in METHODS if "stream" in METHODS[method]])
def test_pieces_of_the_schema_are_understood(method: str) -> None:
    told = sample(METHODS[method]["stream"])
    piece = least(method).piece(told)
    for name in told:
        assert getattr(piece, "tool_calls" if name == "toolCalls" else name) == told[name]


@pytest.mark.parametrize("front", [client.Agent, aio.Agent])
@pytest.mark.parametrize("name", sorted({method.replace(".", "_") for method in METHODS} | SHORTHANDS))
def test_both_fronts_have_every_call_with_its_words(front: Any, name: str) -> None:
    method = getattr(front, name)
    assert method.__doc__ == getattr(calls, name).__doc__ and method.__doc__


@pytest.mark.parametrize("method", METHODS)
def test_the_schema_is_strict_bounded_and_tells_of_every_field(method: str) -> None:
    described = METHODS[method]
    assert set(described) <= {"description", "journal", "params", "result", "stream"}
    assert described["journal"] in ("none", "local", "effect")
    assert described["params"]["additionalProperties"] is False
    assert described["description"].endswith(".") or "?" in described["description"]
    for part in ("params", "result", "stream"):
        schema = described.get(part, {"properties": {}})
        jsonschema.Draft202012Validator.check_schema(schema)
        for name, field in schema["properties"].items():
            assert field["description"].endswith((".", "}.")), f"{part}.{name}"
            assert part != "params" or bounded(field), name
            if "default" in field:
                jsonschema.validate(field["default"], field)


def bounded(field: dict[str, Any]) -> bool:
    if "enum" in field or "x-agentk-max-bytes" in field or field.get("type") == "boolean":
        return True
    if field.get("type") in ("integer", "number"):
        return "maximum" in field and bool({"minimum", "exclusiveMinimum"} & set(field))
    if field.get("type") == "array":
        return "maxItems" in field
    if field.get("type") == "object":  # responseFormat and the like: the line is the bound
        return True
    return "maxLength" in field


def sample(schema: dict[str, Any]) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        return {name: sample(field) for name, field in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample(schema.get("items", {}))]
    return {"string": "x", "integer": 1, "number": 1.5, "boolean": True, None: None}[kind]


def test_vectors_come_packed_or_as_numbers() -> None:
    packed = base64.b64encode(struct.pack("<3f", 0.5, -1, 2)).decode()
    made = calls.embed("x").parse({"embeddings": [packed, [1.0]], "model": "m"})
    assert made.embeddings == [[0.5, -1.0, 2.0], [1.0]]


def test_a_reply_gives_its_bytes() -> None:
    assert results.Reply(body="é").read() == "é".encode()
    assert results.Reply(body="AP8=", encoding="base64").read() == b"\x00\xff"


def test_answers_read_as_text() -> None:
    assert str(results.Thought(text="hi")) == "hi" and str(results.Ran(stdout="42\n")) == "42\n"
    assert results.Ran().ok and not results.Ran(exit_code=1).ok and not results.Ran(state="Running").ok
