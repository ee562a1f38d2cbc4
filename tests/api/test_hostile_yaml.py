"""What a hostile or broken file costs is bounded by counts, and it gets a clear error with its place."""

import tracemalloc

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors, manifest

HALF_MEGABYTE = 2**19


def refused(text: str | bytes) -> errors.Invalid:
    with pytest.raises(errors.Invalid) as caught:
        manifest.parse(text, "f.yaml")
    assert str(caught.value).startswith("f.yaml")
    assert len(str(caught.value)) < 20_000
    return caught.value


def laughs(levels: int) -> str:
    rows = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    rows += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(rows)


def test_an_alias_bomb_stops_at_the_limit() -> None:
    builder = manifest._Builder("f.yaml")
    with pytest.raises(errors.Invalid, match="aliases counted"):
        list(builder.documents(laughs(30)))
    assert builder._values <= manifest.MAX_VALUES + 10**6 and not builder._root


def test_a_bomb_of_long_texts_stops_at_the_limit() -> None:
    rows = ["a: &a " + "x" * HALF_MEGABYTE, "b:", *["- *a"] * 100]
    assert "MiB of text" in str(refused("\n".join(rows)))


def test_memory_stays_near_the_size_of_what_was_read() -> None:
    tracemalloc.start()
    refused(laughs(30))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "{[", "!!map {a: "])
def test_depth_is_bounded_and_told_early(opening: str) -> None:
    error = refused(opening * 100_000)
    assert "deeper than 64" in str(error) and error.column < 64 * len(opening) + 20


def test_depth_through_aliases_is_counted() -> None:
    deep = "[" * 40 + "]" * 40
    assert "by alias" in str(refused(f"a: &a {deep}\nb: {'[' * 40}*a{']' * 40}"))


def test_the_deepest_allowed_is_read() -> None:
    assert manifest.parse("a: " + "[" * 63 + "]" * 63, "f")
    assert "deeper" in str(refused("a: " + "[" * 64 + "]" * 64))


@pytest.mark.parametrize("size", [manifest.MAX_BYTES + 1])
def test_size_is_told(size: int) -> None:
    assert "at most 4 MiB" in str(refused(" " * size))
    assert "at most 4 MiB" in str(refused(b" " * size))


@pytest.mark.parametrize("filler", ["#", "#\n", "\n", " ", "a: b\n  ", "---\n"])
def test_full_size_files_of_next_to_nothing_are_read_or_refused(filler: str) -> None:
    text = filler * (manifest.MAX_BYTES // len(filler) // 8)
    try:
        assert len(manifest.parse(text, "f.yaml")) <= 1
    except errors.Invalid as error:
        assert error.file == "f.yaml"


def test_many_values_are_refused() -> None:
    assert "more than 500000 values" in str(refused("[" + "a," * 600_000 + "]"))


def test_anchors_are_counted() -> None:
    assert "anchors" in str(refused("".join(f"- &a{n} x\n" for n in range(2000))))


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\na: 2", 2, 1, 'duplicate key "a"; first given on line 1'),
        ("x:\n  a: 1\n  'a': 2", 3, 3, "duplicate key"),
        ("1: x", 1, 1, "keys must be text"),
        ("true: x", 1, 1, 'quote it, write "true"'),
        ("? [a]\n: b", 1, 3, "keys must be text, found a list"),
        ("~: x", 1, 1, "keys must be text, found nothing"),
        ("a: &x {b: 1}\nc:\n  <<: *x", 3, 3, "merge keys"),
        ("a: !!python/object:os.system x", 1, 4, "tag !!python/object:os.system is not supported"),
        ("a: !!binary aGk=", 1, 4, "tag !!binary"),
        ("a: !!timestamp 2001-01-01", 1, 4, "tag !!timestamp"),
        ("a: !custom {b: 1}", 1, 4, "tag !custom"),
        ("a: !!set {b}", 1, 4, "tag !!set"),
        ("a: &x [*x]", 1, 8, "inside what it stands for"),
        ("a: *gone", 1, 4, "no anchor before it"),
        ("a: 0644", 1, 4, "0o"),
        ("a: .inf", 1, 4, "JSON"),
        ("a: -.Inf", 1, 4, "JSON"),
        ("a: .nan", 1, 4, "JSON"),
        ("a: 99999999999999999999", 1, 4, "64 bits"),
        ("a: 1e999", 1, 4, "too large"),
        ("a:\n\tb: 1", 2, 1, "not tabs"),
        ("a: b: c", 1, 5, "indentation"),
        ("a: [1", 2, 1, "not valid YAML"),
        ("a: 'x", 1, 6, "not valid YAML"),
        ("- a\n- b", 1, 1, "found a list"),
        ("just words", 1, 1, "found text"),
        ("kind: List\nitems:\n- 5", 3, 3, "found a number"),
    ],
)
def test_each_problem_has_its_place_and_words(text: str, line: int, column: int, words: str) -> None:
    error = refused(text)
    assert words in str(error)
    if line:
        assert (error.line, error.column) in ((line, column), (line, column + 1), (line - 1, len(text) + 1))


def test_problems_are_told_together() -> None:
    error = refused("a: 1\na: 2\n5: x\nb: !x y\nc: 007\n")
    assert [cause.line for cause in error.causes] == [2, 3, 4, 5]


def test_at_most_fifty_problems_are_told() -> None:
    assert len(refused("a: 1\n" * 5000).causes) == manifest.MAX_PROBLEMS


@pytest.mark.parametrize("data", [b"a: \xff", b"\xff\xfea\x00", "a: \ud800", b"\xed\xa0\x80: x"])
def test_what_is_not_utf_8_is_refused(data: str | bytes) -> None:
    assert "UTF-8" in str(refused(data))


@pytest.mark.parametrize("text", ["a: \0", "a: \x07", '{"a": "\\ud800"}'])
def test_control_characters_and_half_pairs_are_refused(text: str) -> None:
    assert "not valid YAML" in str(refused(text))


def test_a_value_is_never_quoted() -> None:
    for text in ("password: 0123456789", "password: 99999999999999999999999", "password: .inf", "- hunter2"):
        assert not any(word in str(refused(text)) for word in ("0123456789", "9999999", ".inf", "hunter2"))


@given(st.text(st.sampled_from("ab:-?[]{},&*!|>'\"%@#\n\t 01.~<"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert all(isinstance(m.obj, dict) for m in manifest.parse(text, "f"))
    except errors.Invalid as error:
        assert str(error)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        manifest.parse(data, "f")
    except errors.Invalid as error:
        assert str(error)


@pytest.mark.parametrize("text", [laughs(30), "[" * 1000, "a: 1\na: 2", "a: &x [*x]", "a: \0", "a:\n\tb"])
def test_the_pure_python_parser_is_bounded_too(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_LOADER", yaml.SafeLoader)
    refused(text)
