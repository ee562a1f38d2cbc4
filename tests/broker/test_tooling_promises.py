"""Answers held against the schema that their tool promised, whoever wrote the two."""

import asyncio
from typing import Any

import pytest

from agentk.broker.tooling import promising
from agentk.tools import offers
from agentk.tools.offers import Outcome

PROMISED = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def kept(schema: Any, structured: Any, is_error: bool = False) -> Outcome:
    offered = offers.offered("f", "", None, schema)
    said = ({"type": "text", "text": "the answer"},)
    return asyncio.run(promising.kept(offered, Outcome(said, structured, is_error)))


@pytest.mark.parametrize("schema", (PROMISED, None))
def test_what_is_as_promised_passes_as_it_is(schema: Any) -> None:
    assert kept(schema, {"n": 1}) == Outcome(({"type": "text", "text": "the answer"},), {"n": 1}, False)


@pytest.mark.parametrize(
    ("structured", "why"),
    (
        ({"n": "the-lie"}, "structuredContent.n: expected integer"),
        ({}, "n missing"),
        (["the-lie"], "expected object"),
        (None, "gave none"),
    ),
)
def test_what_is_not_is_an_error_that_says_so_and_nothing_of_it_is_passed_on(
    structured: Any, why: str
) -> None:
    told = kept(PROMISED, structured)
    text = told.content[0]["text"]
    assert told.is_error and told.structured is None and why in text
    assert "the-lie" not in text and "the answer" not in text


def test_a_tool_that_failed_owes_nothing() -> None:
    assert kept(PROMISED, None, is_error=True).content[0]["text"] == "the answer"


def test_no_schema_of_a_stranger_holds_the_gate_up() -> None:
    """Each of these took minutes, or the network, if it were followed."""
    regex = {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}
    assert not kept({"type": "object", **regex}, {"a" * 5000 + "!": 1}).is_error
    many = {"anyOf": [{"type": "integer"}] * 2000}
    assert not kept({"type": "object", "properties": {"x": many}}, {"x": ["y" * 1000] * 5000}).is_error
    endless = {"$id": "http://elsewhere/", "$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert not kept({"type": "object", **endless}, {"n": 1}).is_error
    assert kept({"type": "nothing"}, {"n": 1}).is_error
