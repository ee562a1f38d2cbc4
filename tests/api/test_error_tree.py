"""Errors keep what they know on the wire and print the place first."""

import pickle

import pytest

from agentk.api import errors

FULL = errors.Invalid(
    'Agent "a" is invalid',
    file="a.yaml",
    causes=[
        errors.Cause("spec.x", "unknown field", 3, 5, "did you mean 'y'?", "a.yaml"),
        errors.Cause("spec.z", "is required", 2, 1, "", "a.yaml", "FieldValueRequired"),
    ],
    kind="Agent",
    name="a",
)


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        errors.NotFound('agent "a" not found', hint="agentk get agents", kind="Agent", name="a"),
        errors.Unavailable("starting", retry_after_seconds=1),
        errors.Conflict("Apply failed with 1 conflict", causes=[errors.Cause(".spec.x", "conflict with b")]),
        errors.AgentkError("a bug"),
        errors.RuntimeRefused("no cgroup", field="spec.resources.limits.memory", file="f", line=1, column=2),
    ],
)
def test_a_status_and_back_is_the_same_error(error: errors.AgentkError) -> None:
    back = errors.from_status(error.to_status())
    assert (type(back), vars(back), str(back)) == (type(error), vars(error), str(error))


def test_a_cause_that_the_message_tells_is_not_told_again() -> None:
    cause = errors.Cause("params.a", "expected integer")
    for message in ("wrong: params.a: expected integer", "expected integer"):
        told = errors.BadRequest(message, causes=[cause])
        assert told.to_status()["message"] == message and str(told) == message
        assert str(errors.from_status(told.to_status())).count("expected integer") == 1


def test_every_class_has_its_own_code() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.AgentkError)]
    codes = [c.code for c in classes]
    assert len(set(codes)) == len(codes)
    for cls in classes:
        assert type(errors.from_status(cls("x").to_status())) is cls


def test_a_status_has_kubernetes_form() -> None:
    status = FULL.to_status()
    assert (status["apiVersion"], status["kind"], status["status"]) == ("v1", "Status", "Failure")
    assert (status["reason"], status["code"]) == ("Invalid", 422)
    assert status["details"]["causes"][0]["field"] == "spec.x"
    assert status["details"]["causes"][0]["message"] == "unknown field; did you mean 'y'?"
    assert "spec.x: unknown field" in status["message"] and "spec.z: is required" in status["message"]


def test_the_place_comes_first() -> None:
    assert str(errors.Invalid("bad", file="a.yaml", line=3, column=4)) == "a.yaml:3:4: bad"
    assert str(errors.Invalid("bad", file="a.yaml")) == "a.yaml: bad"
    assert str(errors.Invalid("bad", line=3, field="spec.x", hint="good")) == "line 3: spec.x: bad; good"


def test_one_cause_is_one_line_and_many_are_listed() -> None:
    one = errors.Invalid('Agent "a" is invalid', file="a.yaml", causes=FULL.causes[:1])
    assert str(one) == "a.yaml:3:5: Agent \"a\" is invalid: spec.x: unknown field; did you mean 'y'?"
    assert len(str(FULL).splitlines()) == 3


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"reason": 5, "code": "x", "details": [], "message": None},
        {"details": {"causes": [1, {}], "line": "x"}},
    ],
)
def test_a_foreign_status_is_still_an_error(status: dict[str, object]) -> None:
    assert isinstance(errors.from_status(status), errors.AgentkError)


def test_an_unknown_reason_falls_back_to_the_number() -> None:
    assert isinstance(errors.from_status({"reason": "Gone", "code": 410, "message": "m"}), errors.Expired)


def test_an_error_survives_pickling() -> None:
    back = pickle.loads(pickle.dumps(FULL))
    assert str(back) == str(FULL) and back.causes == FULL.causes
