"""The quick look never says yes to what jsonschema refuses, and does say yes to ordinary calls."""

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.broker import methods, methods_fitting

QUICK = {
    name: fits
    for name, told in methods.described().items()
    if (fits := methods_fitting.fitting(told["params"])) is not None
}
EDGES: st.SearchStrategy[Any] = st.sampled_from(
    [0, 0.0, -1, 1, 1.0, 1.5, True, False, None, "", "agent", "k" * 300, [], {}, 10**400]
)
ANYTHING = st.recursive(
    EDGES | st.floats() | st.integers() | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=6,
)


def near(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What often fits, nearly."""
    told = [st.just(schema["default"])] if "default" in schema else []
    told += [st.sampled_from(schema["enum"])] if "enum" in schema else []
    for edge in ("minimum", "maximum", "exclusiveMinimum"):
        if edge in schema:
            told.append(st.sampled_from([schema[edge], schema[edge] + 1, schema[edge] - 1]))
    if schema.get("type") == "string":
        told.append(st.integers(-1, 1).map(lambda more: "a" * (min(schema.get("maxLength", 9), 5000) + more)))
    if schema.get("type") == "array":
        told.append(st.lists(near(schema.get("items", {})), max_size=3))
    if schema.get("type") == "object":
        fields = {key: near(below) for key, below in schema.get("properties", {}).items()}
        told.append(st.fixed_dictionaries({}, optional=fields))
        told.append(st.fixed_dictionaries({**fields, "more": ANYTHING}))
    return st.one_of(*told, ANYTHING)


@pytest.mark.parametrize("name", sorted(QUICK))
@given(data=st.data())
def test_never_yes_to_what_does_not_fit(name: str, data: st.DataObject) -> None:
    schema = methods.described()[name]["params"]
    value = data.draw(near(schema))
    if QUICK[name](value):
        jsonschema.Draft202012Validator(schema).validate(value)


def test_ordinary_calls_need_no_second_look() -> None:
    assert QUICK["state.put"]({"key": "k", "value": {"a": [1]}, "ttlSeconds": 5})
    assert QUICK["state.get"]({"key": "k"})
    assert not QUICK["state.put"]({"key": "k"})
    assert not QUICK["state.put"]({"key": "k", "value": 1, "ttl": 5})
    assert not QUICK["state.put"]({"key": "k", "value": 1, "ttlSeconds": True})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^a"},
        {"type": ["string", "null"]},
        {"oneOf": []},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"a": {"not": {}}}},
        {"type": "array", "uniqueItems": True},
        {"maxLength": 3},
    ],
)
def test_a_rule_that_is_not_known_means_no_quick_look(schema: dict[str, Any]) -> None:
    assert methods_fitting.fitting(schema) is None
