"""What a Tool may say of itself, and how holes in its texts are filled."""

from typing import Any

import pytest

from agentk.api import admit, errors, inputs, templates
from api import samples

SECRET = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
OPERATION = {"source": {"inline": "{}"}, "operation": "x"}
JQ = {
    "argv": ["jq", "{filter}"],
    "stdin": "{*}",
    "parameters": {"type": "object", "properties": {"filter": {"type": "string"}}, "required": ["filter"]},
}
FILES = {"inline": {"files": {"m.py": ""}}}


def told(obj: dict[str, Any]) -> list[tuple[str, str]]:
    try:
        admit.admit(obj)
    except errors.Invalid as error:
        return [(cause.field, cause.message) for cause in error.causes]
    return []


def tool(**spec: Any) -> dict[str, Any]:
    return samples.ours("Tool", **spec)


def test_a_tool_has_its_defaults() -> None:
    spec = admit.admit(tool(command=JQ, idempotent=True))["spec"]
    assert spec["idempotent"] == "true" and spec["sharing"] == "Shared" and spec["timeout"] == "60s"
    assert spec["command"]["output"] == "Text" and "jail" not in spec


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec"),
        ({"command": JQ, "http": {"url": "http://a.example/"}}, "spec"),
        ({"command": JQ, "mcp": {}, "python": {"functions": ["m:f"]}}, "spec.mcp"),
        ({"command": {**JQ, "argv": ["jq", "{other}"]}}, "spec.command.argv[1]"),
        ({"command": {**JQ, "argv": ["{filter}"]}}, "spec.command.argv[0]"),
        ({"command": {**JQ, "argv": ["jq", "{a b}"]}}, "spec.command.argv[1]"),
        ({"command": {"argv": ["id"], "parameters": {"type": "array"}}}, "spec.command.parameters"),
        ({"command": {"argv": ["id"], "parameters": {"properties": 7}}}, "spec.command.parameters"),
        ({"command": {"argv": ["id"], "parameters": {"$ref": "http://a.example/x"}}}, "spec.command.parameters"),
        (
            {"command": {"argv": ["id"], "parameters": {"properties": {"a": {"pattern": "(a+)+$"}}}}},
            "spec.command.parameters",
        ),
        ({"command": JQ, "secrets": [{"name": "a"}]}, "spec.secrets"),
        ({"command": JQ, "timeout": "0s"}, "spec.timeout"),
        ({"command": JQ, "jail": {"resources": {"limits": {"memory": "64m"}}}}, "spec.jail.resources.limits.memory"),
        ({"python": {"functions": ["m:f"]}}, "spec.python.source"),
        ({"python": {"functions": ["m:_f"], "source": FILES}}, "spec.python.functions[0]"),
        ({"python": {"functions": ["m"], "source": FILES}}, "spec.python.functions[0]"),
        ({"http": {"url": "http://{host}/x"}}, "spec.http.url"),
        ({"http": {"url": "http://a.example{x}/", "parameters": {"properties": {"x": {}}}}}, "spec.http.url"),
        ({"http": {"url": "https://user@a.example/"}}, "spec.http.url"),
        ({"http": {"url": "http://a.example/", "body": "x"}}, "spec.http.body"),
        ({"http": {"url": "http://a.example/"}, "jail": {}}, "spec.jail"),
        ({"http": {"openapi": OPERATION, "privateAddresses": True}}, "spec.http.openapi.server"),
        ({"http": {"openapi": OPERATION, "headers": [SECRET]}}, "spec.http.openapi.server"),
        (
            {
                "http": {
                    "url": "{url}",
                    "parameters": {"properties": {"url": {}}},
                    "headers": [SECRET],
                }
            },
            "spec.http.headers",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_at_its_field(spec: dict[str, Any], field: str) -> None:
    assert field in [at for at, _ in told(tool(**spec))]


def test_only_the_default_namespace_offers_to_everybody() -> None:
    obj = tool(command=JQ, everywhere=True)
    assert told(obj) == []
    obj["metadata"]["namespace"] = "team"
    assert [at for at, _ in told(obj)] == ["spec.everywhere"]


def test_an_agent_names_each_tool_once_and_rules_say_something() -> None:
    grants = [{"ref": {"name": "a"}}, {"ref": {"name": "a"}, "arguments": [{"argument": "path"}]}]
    assert [at for at, _ in told(samples.agent(tools=grants))] == [
        "spec.tools[1].ref.name",
        "spec.tools[1].arguments[0]",
    ]


def test_a_template_is_read_once() -> None:
    template = templates.parse("a{{{x}}}{y?-r}{*}")
    assert template == ("a{", templates.Hole("x"), "}", templates.Hole("y", "-r"), templates.Hole("*"))
    assert templates.names(template) == {"x", "y"}
    assert templates.whole(templates.parse("{x}")) == "x" and templates.whole(template) == ""
    assert templates.lacks(template, {"y": True}) and not templates.lacks(template, {"x": 1})
    for wrong in ("{", "}", "{}", "{1}", "{a", "{*?x}"):
        with pytest.raises(errors.Invalid):
            templates.parse(wrong)


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "maximum": 3}, "kind": {"enum": ["a", "b"]}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("arguments", "field", "word"),
    [
        ({}, "params.arguments", "n missing"),
        ({"n": True}, "params.arguments.n", "integer"),
        ({"n": 2.0}, "params.arguments.n", "integer"),
        ({"n": 4}, "params.arguments.n", "maximum"),
        ({"n": 1, "kind": "secret value"}, "params.arguments.kind", "expected one of"),
        ({"n": 1, "x": "secret value"}, "params.arguments", 'unknown argument "x"; there are kind, n'),
    ],
)
def test_arguments_are_held_against_a_schema(arguments: Any, field: str, word: str) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        inputs.check(SCHEMA, arguments)
    assert caught.value.field == field and word in caught.value.message
    assert "secret value" not in str(caught.value.to_status())


def test_a_hostile_schema_costs_nothing() -> None:
    """It comes from a tool's author: what could take for ever, or lead elsewhere, is not looked at."""
    loop = {"$ref": "#", "properties": {"a": {"pattern": "(a+)+$", "$ref": "#/$defs/x"}}}
    inputs.check(loop, {"a": "a" * 50 + "!"})
    deep: Any = {}
    for _ in range(200):
        deep = {"properties": {"a": deep}}
    assert "deeper" in inputs.problem(deep)
    assert "KiB" in inputs.problem({"properties": {str(n): {"type": "string"} for n in range(5000)}})
    wide = {"anyOf": [{"maxProperties": n} for n in range(5000)]}
    inputs.check(wide, {str(n): n for n in range(5000)})


_EVER, _SLOW = "(a+)+$", "a" * 60 + "!"
_OLD = {"$schema": "http://json-schema.org/draft-07/schema#"}


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        ({"patternProperties": {_EVER: {}}, "additionalProperties": False}, {_SLOW: 1}),
        ({"properties": {"a": {**_OLD, "pattern": _EVER}}}, {"a": _SLOW}),
        ({"properties": {"a": {**_OLD, "dependencies": {"const": {"pattern": _EVER}}}}}, {"a": _SLOW}),
        ({"properties": {"a": {**_OLD, "$ref": "#"}}}, {"a": 1}),
        ({"properties": {"a": {"items": {"anyOf": [{"type": "string"}] * 3000 + [{}]}}}}, {"a": [1] * 3000}),
        ({"anyOf": [{"required": ["x"]}] * 3000 + [{}]}, {"a": "a" * 4_000_000}),
        # What is left out of a choice is no reason to refuse.
        ({"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}, {"a": 1}),
        ({"not": {"properties": {"a": {"pattern": "b"}}}}, {"a": "a"}),
        ({"if": {"properties": {"a": {"format": "date"}}}, "then": False}, {"a": "a"}),
    ],
)
def test_no_schema_takes_for_ever_nor_refuses_what_it_does_not_say(
    schema: dict[str, Any], arguments: Any
) -> None:
    inputs.check(schema, arguments)


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"anyOf": [{}] * 20_000}, ""),  # as much as fits: the library takes 17 s for it
        (
            {"properties": {"a": {"type": ["string", "null"], "maxLength": 3.0, "x-mine": 5}}, "not": False},
            "",
        ),
        ({"type": ["string", "text"]}, "type: expected array"),
        ({"properties": {"a": {"items": [{}]}}}, "properties.a.items: expected a schema"),
        ({"oneOf": []}, "oneOf: expected a list of schemas"),
        ({"allOf": [{"required": ["a", 1]}]}, "allOf[0].required: expected a list of names"),
        ({"multipleOf": 0}, "multipleOf: expected a number above 0"),
        ({"minItems": True}, "minItems: expected a whole number"),
        ({"dependentRequired": {"a": "b"}}, "dependentRequired: expected lists of names"),
    ],
)
def test_a_schema_is_looked_at_once(schema: dict[str, Any], where: str) -> None:
    told = inputs.problem_of_result(schema)
    assert told.startswith(f"is no JSON Schema: {where}") if where else told == ""


def test_choices_are_held_as_far_as_they_are_whole() -> None:
    one_of = {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}
    partly = {"oneOf": [{"required": ["a"], "pattern": "x"}, {"required": ["b"]}]}
    inputs.check(one_of, {"a": 1})
    inputs.check(partly, {"a": 1, "b": 1})
    for schema, arguments in ((one_of, {"a": 1, "b": 1}), (one_of, {}), (partly, {})):
        with pytest.raises(errors.BadRequest):
            inputs.check(schema, arguments)
    with pytest.raises(errors.BadRequest, match="too long"):
        inputs.check_result({"items": {"anyOf": [{"type": "string"}] * 3000 + [{}]}}, [1] * 3000)


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": 5},
        {"properties": {"a": None}},
        {"properties": {"a": {"type": "banana"}}},
        {"properties": {"a": {"multipleOf": 0}}},
        {"dependentRequired": 5},
        {"required": 5},
        {"anyOf": 5},
        {"type": {}},
    ],
)
def test_what_a_stranger_calls_a_schema_refuses_the_call_and_nothing_else(schema: dict[str, Any]) -> None:
    with pytest.raises(errors.BadRequest):
        inputs.check(schema, {"a": 1})


def test_a_field_below_is_meant_before_one_elsewhere() -> None:
    with pytest.raises(errors.Invalid, match=r"did you mean 'spec\.mcp\.stdio\.command'"):
        admit.admit(tool(mcp={"command": "npx"}))
