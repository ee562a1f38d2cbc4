"""Selectors: Kubernetes' grammar, on whole objects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors, selectors
from api import samples

OBJ = {
    "metadata": {
        "name": "n",
        "namespace": "ns",
        "labels": {"app": "web", "tier": "a", "n": "5", "x.io/y": ""},
    },
    "spec": {"suspend": True, "priority": 7, "runtimeRef": {"name": "nsjail"}},
    "status": {"phase": "Running"},
    "involvedObject": {"name": "o"},
    "type": "Warning",
    "reason": "a,b",
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "app=web",
        "app==web",
        "app!=db",
        "gone!=x",
        "app in (web, db)",
        "app notin (db)",
        "gone notin (x)",
        "app",
        "!gone",
        "n>4",
        "n<6",
        "x.io/y=",
        "x.io/y",
        "app=web,tier in (a,b),!gone",
        " app = web ",
        "app in (web),tier",
    ],
)
def test_labels_that_match(text: str) -> None:
    assert selectors.labels(text)(OBJ)


@pytest.mark.parametrize(
    "text",
    ["app=db", "app!=web", "app in (db)", "app notin (web)", "gone", "!app", "n>5", "app>1", "gone in ()"],
)
def test_labels_that_do_not_match(text: str) -> None:
    assert not selectors.labels(text)(OBJ)


@pytest.mark.parametrize(
    "text", ["=x", "a=b=c", "a in b", "a in (b", "-a=b", "a=b c", "a<x", "a=" + "x" * 64, "!", "a=b,(c"]
)
def test_bad_label_grammar_is_refused(text: str) -> None:
    with pytest.raises(errors.BadRequest):
        selectors.labels(text)


def test_an_object_without_labels() -> None:
    assert selectors.labels("!a")({}) and not selectors.labels("a")({"metadata": {"labels": None}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "metadata.name=n",
        "metadata.namespace==ns",
        "status.phase!=Failed",
        "spec.suspend=true",
        "spec.priority=7",
        "spec.runtimeRef.name=nsjail",
        "involvedObject.name=o,type=Warning",
        r"reason=a\,b",
        "spec.gone=",
    ],
)
def test_fields_that_match(text: str) -> None:
    assert selectors.fields(text)(OBJ)


@pytest.mark.parametrize("text", ["metadata.name=m", "status.phase=Failed", "type!=Warning", "spec.env=x"])
def test_fields_that_do_not_match(text: str) -> None:
    assert not selectors.fields(text)(OBJ)


@pytest.mark.parametrize("text", ["metadata.labels=x", "data.x=y", "name", "status.hostUID=1", "x" * 9000])
def test_other_fields_are_refused(text: str) -> None:
    with pytest.raises(errors.BadRequest):
        selectors.fields(text)


@given(samples.LABELS, samples.NAMES, st.from_regex(r"[a-z0-9]{1,5}", fullmatch=True))
def test_a_selector_and_its_negation_part_the_world(labels: dict[str, str], key: str, value: str) -> None:
    obj = {"metadata": {"labels": labels}}
    for yes, no in (
        (f"{key}={value}", f"{key}!={value}"),
        (f"{key} in ({value})", f"{key} notin ({value})"),
        (key, f"!{key}"),
    ):
        assert selectors.labels(yes)(obj) != selectors.labels(no)(obj)


@given(samples.LABELS)
def test_an_object_matches_its_own_labels(labels: dict[str, str]) -> None:
    text = ",".join(f"{key}={value}" for key, value in labels.items())
    assert selectors.labels(text)({"metadata": {"labels": labels}})


@given(st.text(max_size=60))
def test_any_text_is_a_selector_or_a_bad_request(text: str) -> None:
    for parse in (selectors.labels, selectors.fields):
        try:
            assert parse(text)(OBJ) in (True, False)
        except errors.BadRequest:
            pass
