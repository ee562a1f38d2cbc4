"""The wire: what is read, what is refused, and that nothing a stranger sends does more than be refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.sdk import wire

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda below: st.lists(below, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), below, max_size=4),
    max_leaves=10,
)  # fmt: skip
ids = st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


def refused(line: bytes) -> wire.Refused:
    with pytest.raises(wire.Refused) as caught:
        wire.read_request(line)
    return caught.value


def asking(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "noop", **members}).encode()


@given(ids, st.dictionaries(st.sampled_from("abc"), values))
def test_what_one_end_writes_the_other_reads(id: wire.Id, params: dict[str, Any]) -> None:
    line = wire.request(id, "noop", params, "k", f"00-{'a' * 32}-{'b' * 16}-01")
    assert line.count(b"\n") == 1
    assert wire.read_request(line[:-1]) == (id, "noop", params, "k", f"00-{'a' * 32}-{'b' * 16}-01")
    assert wire.read_request(wire.cancel(id)[:-1]) == wire.Cancel(id)
    assert wire.read_answer(wire.response(id, params)[:-1]) == wire.Response(id, params)
    assert wire.read_answer(wire.failure(id, -3, "no", params)[:-1]) == wire.Failure(id, -3, "no", params)
    assert wire.read_answer(wire.stream(id, 4, params)[:-1]) == wire.Stream(id, 4, params)


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_else(line: bytes) -> None:
    for read in (wire.read_request, wire.read_answer):
        try:
            read(line)
        except wire.Refused:
            pass


@given(values)
def test_any_json_that_is_no_request_is_refused_and_nothing_else(told: Any) -> None:
    for read in (wire.read_request, wire.read_answer):
        try:
            read(json.dumps(told).encode())
        except wire.Refused:
            pass


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b'{"params": {"b": {"x": 1, "y": 1, "x": 2}}}', "'x' twice"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"[" * 250 + b"]" * 250, "nested"),
        (b"[" * 90_000, "nested"),
        (b"[" * 1_000_000, "more than"),
        (b'{"a":' * 50_000, "nested"),
        (b"hello", "not JSON"),
        (b'{"a": 1} {"b": 2}', "follows"),
        (b"1" * 5000, "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
    ],
)
def test_what_is_no_json_of_ours_ends_the_connection(line: bytes, word: str) -> None:
    error = refused(line)
    assert error.fatal and error.code == wire.PARSE_ERROR and word in error.message


@pytest.mark.parametrize(
    ("members", "code", "word"),
    [
        ({"jsonrpc": "1.0"}, wire.INVALID_REQUEST, "2.0"),
        ({"method": 3}, wire.INVALID_REQUEST, "method"),
        ({"method": ""}, wire.INVALID_REQUEST, "method"),
        ({"params": [1]}, wire.INVALID_PARAMS, "by name"),
        ({"id": None}, wire.INVALID_REQUEST, "needs an id"),
        ({"id": True}, wire.INVALID_REQUEST, "needs an id"),
        ({"id": 1.5}, wire.INVALID_REQUEST, "needs an id"),
        ({"id": 2**63}, wire.INVALID_REQUEST, "needs an id"),
        ({"id": "x" * 201}, wire.INVALID_REQUEST, "needs an id"),
        ({"key": 5}, wire.INVALID_REQUEST, "key"),
        ({"key": "x" * 201}, wire.INVALID_REQUEST, "key"),
        ({"trace": "00-abc"}, wire.INVALID_REQUEST, "traceparent"),
        ({"token": "x"}, wire.INVALID_REQUEST, "'token'"),
    ],
)
def test_a_message_that_is_wrong_is_told_so_and_the_connection_stays(
    members: dict[str, Any], code: int, word: str
) -> None:
    error = refused(asking(**members))
    assert not error.fatal and error.code == code and word in error.message
    assert error.id == (None if "id" in members else 1)


def test_a_batch_is_refused_by_name() -> None:
    error = refused(b"[" + asking() + b"]")
    assert not error.fatal and "batches" in error.message


def test_cancel_needs_just_the_id() -> None:
    assert "cancel" in refused(b'{"jsonrpc":"2.0","method":"cancel","params":{"id":1,"x":2}}').message


def test_commas_and_brackets_within_texts_do_not_count() -> None:
    text = '[[{{,,\\"' * 200_000
    told = wire.read_request(asking(params={"text": text}))
    assert isinstance(told, wire.Request) and told.params["text"] == text


@pytest.mark.parametrize(
    "line", [b'{"a":[' + b"0," * 200_000 + b"0]}", b'{"a":[' + b'"",' * 300_000 + b"0]}"]
)
def test_more_values_than_anybody_needs_are_refused_before_they_are_built(line: bytes) -> None:
    assert "more than 100000 values" in refused(line).message


@pytest.mark.parametrize("deep", [b"[" * 100 + b"]" * 100, b'{"a":' * 99 + b"{}" + b"}" * 99])
def test_a_hundred_levels_are_fine(deep: bytes) -> None:
    wire.decode(deep, wire.VALUES)


def test_an_answer_may_have_more_values_and_members_that_are_new() -> None:
    numbers = [0.5] * 200_000
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "result": numbers, "new": 1}).encode()
    assert wire.read_answer(line) == wire.Response(1, numbers)
    assert wire.read_answer(b'{"jsonrpc":"2.0","method":"new.thing"}') is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", object(), {1, 2}])
def test_what_json_cannot_say_is_never_sent(value: Any) -> None:
    with pytest.raises(wire.UNSAYABLE):
        wire.request(1, "noop", {"x": value})


@given(st.lists(st.binary(min_size=1).filter(lambda b: b"\n" not in b and not b.isspace())), st.data())
def test_lines_come_out_however_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    buffer, got = wire.Lines(), []
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        buffer.feed(whole[:size])
        whole = whole[size:]
        while (line := buffer.take()) is not None:
            got.append(line)
    assert got == lines and len(buffer) == 0


def test_blank_lines_are_nothing() -> None:
    buffer = wire.Lines()
    buffer.feed(b"\n\r\n  \nx\r\n")
    assert buffer.take() == b"x\r" and buffer.take() is None


@pytest.mark.parametrize("data", [b"x" * 10, b"x" * 10 + b"\n", b"x" * 50])
def test_a_line_too_long_ends_it_whether_or_not_it_ends(data: bytes) -> None:
    buffer = wire.Lines(10)
    buffer.feed(data)
    with pytest.raises(wire.Refused) as caught:
        buffer.take()
    assert caught.value.fatal and len(buffer) == 0


def test_the_longest_line_is_read() -> None:
    buffer = wire.Lines(10)
    buffer.feed(b"x" * 9 + b"\n")
    assert buffer.take() == b"x" * 9
