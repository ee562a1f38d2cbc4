"""Merge patch and JSON patch, by their RFCs and within bounds."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors, patches
from api import samples

JSON = st.recursive(
    st.booleans() | st.integers() | samples.TEXTS,
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), below, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("ab/~", max_size=2), JSON, max_size=3)


@pytest.mark.parametrize(
    ("obj", "patch", "made"),  # RFC 7386, appendix A
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(obj: Any, patch: Any, made: Any) -> None:
    assert patches.merge_patch(obj, patch) == made


@pytest.mark.parametrize("patch", [None, [], "x", 5])
def test_a_merge_patch_is_an_object(patch: Any) -> None:
    with pytest.raises(errors.BadRequest):
        patches.merge_patch({}, patch)


@given(OBJECTS, OBJECTS)
def test_merge_patch_is_repeatable_and_changes_nothing_given(obj: Any, patch: Any) -> None:
    before = copy.deepcopy((obj, patch))
    once = patches.merge_patch(obj, patch)
    assert patches.merge_patch(once, patch) == once and (obj, patch) == before


def op(name: str, path: str, **more: Any) -> dict[str, Any]:
    return {"op": name, "path": path, **more}


@pytest.mark.parametrize(
    ("obj", "operations", "made"),
    [
        ({}, [op("add", "/a", value=1)], {"a": 1}),
        ({"a": [1, 3]}, [op("add", "/a/1", value=2)], {"a": [1, 2, 3]}),
        ({"a": [1]}, [op("add", "/a/-", value=2)], {"a": [1, 2]}),
        ({"a": 1}, [op("remove", "/a")], {}),
        ({"a": [1, 2]}, [op("remove", "/a/0")], {"a": [2]}),
        ({"a": 1}, [op("replace", "/a", value=[2])], {"a": [2]}),
        ({"a": [1]}, [op("replace", "/a/0", value=2)], {"a": [2]}),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"a": 1}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": 1, "b": 1}),
        ({"a/b": {"~": 1}}, [op("test", "/a~1b/~0", value=1)], {"a/b": {"~": 1}}),
        ({"a": 1}, [op("replace", "", value={"b": 2})], {"b": 2}),
        ({"": 1}, [op("replace", "/", value=2)], {"": 2}),
        ({"a": 1}, [op("add", "/a", value=None)], {"a": None}),
    ],
)
def test_json_patch(obj: Any, operations: Any, made: Any) -> None:
    assert patches.json_patch(obj, operations) == made


@pytest.mark.parametrize(
    "operations",
    [
        [op("test", "/a", value=2)],
        [op("test", "/a", value=True)],
        [op("test", "/n", value=[1.5, {"x": 0}])],
        [op("remove", "/b")],
        [op("replace", "/b", value=1)],
        [op("add", "/b/c", value=1)],
        [op("add", "/n/9", value=1)],
        [op("add", "/n/01", value=1)],
        [op("remove", "/n/-")],
        [op("remove", "")],
        [op("replace", "", value=5)],
        [op("add", "/a/x", value=1)],
        [{"op": "move", "from": "/o", "path": "/o/x"}],
    ],
)
def test_what_does_not_apply_is_invalid(operations: Any) -> None:
    with pytest.raises(errors.Invalid):
        patches.json_patch({"a": 1, "n": [1], "o": {}}, operations)


@pytest.mark.parametrize(
    "operations",
    [
        None,
        {},
        "x",
        [5],
        [{}],
        [op("add", "/a")],
        [op("zap", "/a")],
        [op("add", "a", value=1)],
        [op("move", "/a")],
        [op("add", "/a" * 70, value=1)],
        [op("add", "/a", value="\0")],
    ],
)
def test_what_is_no_patch_is_a_bad_request(operations: Any) -> None:
    with pytest.raises(errors.BadRequest):
        patches.json_patch({}, operations)


def test_operations_and_copies_are_bounded() -> None:
    with pytest.raises(errors.TooLarge):
        patches.json_patch({}, [op("add", "/a", value=1)] * 10_001)
    doubling = [{"op": "copy", "from": "/a", "path": "/a/-"}] * 60
    with pytest.raises((errors.TooLarge, errors.Invalid)):
        patches.json_patch({"a": [1]}, doubling)


def test_a_chain_of_moves_cannot_nest_without_end() -> None:
    deeper = [
        op("add", "/b", value={"x": 1}),
        {"op": "move", "from": "/a", "path": "/b/a"},
        {"op": "move", "from": "/b", "path": "/a"},
    ]
    with pytest.raises(errors.Invalid, match="deeper"):
        patches.json_patch({"a": {}}, deeper * 500)


@given(OBJECTS, OBJECTS)
def test_any_object_can_be_patched_into_any_other(obj: Any, other: Any) -> None:
    before = copy.deepcopy(obj)
    operations = [op("remove", f"/{k.replace('~', '~0').replace('/', '~1')}") for k in obj]
    operations += [
        op("add", f"/{k.replace('~', '~0').replace('/', '~1')}", value=v) for k, v in other.items()
    ]
    assert patches.json_patch(obj, operations) == other and obj == before
