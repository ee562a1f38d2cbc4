"""Text to objects with their places."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors, manifest


def one(text: str) -> dict[str, object]:
    (found,) = manifest.parse(text, "f.yaml")
    return found.obj


def test_documents_come_in_order_and_empty_ones_are_skipped() -> None:
    text = "# only words\n---\na: 1\n---\n---\n# nothing\n---\nb: 2\n...\n"
    assert [m.obj for m in manifest.parse(text, "f")] == [{"a": 1}, {"b": 2}]
    assert manifest.parse("", "f") == manifest.parse("\n---\n---\n", "f") == []


def test_positions_of_values_keys_and_what_is_missing() -> None:
    (m,) = manifest.parse("a: 1\nb:\n  - x: 5\n    y: [7, 8]\n", "f")
    assert m.position() == (1, 1)
    assert m.position(("b", 0, "x")) == (3, 8)
    assert m.position(("b", 0, "x"), key=True) == (3, 5)
    assert m.position(("b", 0, "y", 1)) == (4, 12)
    assert m.position(("b", 0, "gone", "deeper")) == m.position(("b", 0)) == (3, 5)
    assert m.position(("b", 9)) == m.position(("b",)) == (3, 3)


def test_positions_count_through_documents() -> None:
    second = manifest.parse("a: 1\n---\n\nb: 2\n", "f")[1]
    assert second.position(("b",)) == (4, 4)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NO", "NO"),
        ("on", "on"),
        ("yes", "yes"),
        ("y", "y"),
        ("2001-01-01", "2001-01-01"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("1.2.3", "1.2.3"),
        ("500m", "500m"),
        ("=", "="),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("10", 10),
        ("-3", -3),
        ("0", 0),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("! 5", "5"),
        ("|\n  two\n  lines", "two\nlines"),
        (">-\n  one\n  line", "one line"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert one(f"a: {text}") == {"a": value}
    assert type(one(f"a: {text}")["a"]) is type(value)


def test_a_list_is_flattened_with_positions() -> None:
    text = (
        "apiVersion: v1\nkind: List\nitems:\n- kind: A\n  x: 1\n- kind: List\n  items:\n  - {kind: B, x: 2}\n"
    )
    a, b = manifest.parse(text, "f")
    assert (a.obj["kind"], b.obj["kind"]) == ("A", "B")
    assert a.position(("x",)) == (5, 6) and b.position(("x",)) == (8, 18)


def test_items_of_a_kinds_own_list_take_its_kind() -> None:
    (m,) = manifest.parse('{"apiVersion": "g/v1", "kind": "AgentList", "items": [{"metadata": {}}]}', "f")
    assert m.obj == {"apiVersion": "g/v1", "kind": "Agent", "metadata": {}}


def test_an_alias_is_a_copy() -> None:
    obj = one("a: &x {n: [1]}\nb: *x\nc: *x\n")
    assert obj["b"] == obj["c"] == {"n": [1]}
    obj["b"]["n"].append(2)  # type: ignore[index]
    assert obj["a"] == obj["c"] == {"n": [1]}


def test_anchors_end_with_their_document() -> None:
    with pytest.raises(errors.Invalid, match="no anchor"):
        manifest.parse("a: &x 1\n---\nb: *x\n", "f")


@pytest.mark.parametrize("value", ["😀", "a\\b", "\\ud83d", "tab\t", "é", '"', "/", "\u2028"])
def test_json_texts_survive(value: str) -> None:
    assert one(json.dumps({"a": value})) == {"a": value}


def test_json_with_tabs_has_positions() -> None:
    (m,) = manifest.parse('{\n\t"a": {\n\t\t"b": [1, 2]\n\t}\n}\n', "f.json")
    assert m.obj == {"a": {"b": [1, 2]}} and m.position(("a", "b", 1)) == (3, 12)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), max_size=8),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.text("abc./", min_size=1, max_size=4), below, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text("kxyz", min_size=1, max_size=4), JSON, max_size=3))
def test_any_json_object_is_read_as_json_reads_it(obj: dict[str, object]) -> None:
    for text in (json.dumps(obj), json.dumps(obj, indent=2), json.dumps(obj, ensure_ascii=False)):
        assert one(text) == obj


def test_bytes_with_and_without_a_byte_order_mark() -> None:
    assert manifest.parse(b"\xef\xbb\xbfa: 1", "f")[0].obj == {"a": 1}
    assert manifest.parse("\ufeffa: é".encode(), "f")[0].obj == {"a": "é"}
