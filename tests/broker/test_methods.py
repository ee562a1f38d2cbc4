"""Parameters are read strictly, and every problem names its field."""

from typing import Any

import pytest

from agentk.api import errors
from agentk.broker import methods


@pytest.mark.parametrize("name", sorted(methods.described()))
def test_every_method_has_a_reader_and_a_recording(name: str) -> None:
    assert methods.recording(name) in ("none", "local", "effect")
    assert callable(methods.parser(name))


def test_defaults_are_filled_in() -> None:
    assert methods.parser("hello")({}) == {"client": ""}
    assert methods.parser("state.put")({"key": "k", "value": None})["scope"] == "agent"


@pytest.mark.parametrize(
    ("name", "params", "field", "told"),
    [
        ("state.put", {"key": "k"}, "params", "value missing"),
        ("state.put", {"key": 5, "value": 1}, "params.key", "expected string"),
        ("state.put", {"key": "k", "value": 1, "scop": "agent"}, "params", 'unknown parameter "scop"'),
        ("state.put", {"key": "k", "value": 1, "scope": "world"}, "params.scope", "expected one of"),
        ("exec", {"code": "1", "argv": ["x"]}, "params", "exactly one of code, argv"),
        ("exec", {"argv": ["x"], "language": "node"}, "params", "argv and language cannot"),
    ],
)
def test_bad_parameters_are_told_with_their_field(
    name: str, params: dict[str, Any], field: str, told: str
) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        methods.parser(name)(params)
    assert (caught.value.field, told in caught.value.causes[0].message) == (field, True)


def test_a_misspelt_parameter_gets_a_hint() -> None:
    with pytest.raises(errors.BadRequest) as caught:
        methods.parser("state.put")({"key": "k", "value": 1, "ttlSecond": 3})
    assert "ttlSeconds" in caught.value.causes[0].hint


def test_a_value_is_never_quoted() -> None:
    with pytest.raises(errors.BadRequest) as caught:
        methods.parser("state.put")({"key": {"password": "hunter2-hunter2"}, "value": 1})
    assert "hunter2" not in str(caught.value.to_status())


def test_free_values_are_bounded() -> None:
    with pytest.raises(errors.TooLarge, match="at most 1048576"):
        methods.parser("state.put")({"key": "k", "value": "é" * 600_000})


def test_what_comes_in_is_not_changed() -> None:
    given: dict[str, Any] = {}
    methods.parser("hello")(given)
    assert given == {}
