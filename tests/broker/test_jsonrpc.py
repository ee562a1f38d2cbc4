"""The native dialect without I/O: what is fed, what is to be done, what is written."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors
from agentk.broker.dialects import jsonrpc
from agentk.broker.dialects.jsonrpc import Asked, Conversation, Revoked, Room
from agentk.sdk import wire


def asking(id: wire.Id = 1, **params: Any) -> bytes:
    return wire.request(id, "noop", params)


def calls(events: list[jsonrpc.Event]) -> list[Asked]:
    return [event for event in events if isinstance(event, Asked)]


def lines(events: list[jsonrpc.Event]) -> list[dict[str, Any]]:
    return [json.loads(event) for event in events if isinstance(event, bytes)]


def test_a_call_is_asked_and_answered_once() -> None:
    talk = Conversation(Room())
    [asked] = calls(
        talk.feed(wire.request("a", "noop", {"payload": 1}, "key", f"00-{'a' * 32}-{'b' * 16}-00"))
    )
    assert (asked.method, asked.params, asked.key, asked.trace[:3]) == ("noop", {"payload": 1}, "key", "00-")
    assert json.loads(talk.reply(asked, {"payload": 1})) == {
        "jsonrpc": "2.0",
        "id": "a",
        "result": {"payload": 1},
    }
    assert talk.reply(asked, {}) == talk.fail(asked, errors.Denied("no")) == talk.item(asked, {}) == b""


def test_an_error_carries_its_status_and_its_number() -> None:
    talk = Conversation(Room())
    [asked] = calls(talk.feed(asking()))
    error = json.loads(talk.fail(asked, errors.BudgetExceeded("nothing left", hint="ask")))["error"]
    assert error["code"] == -32003
    assert error["data"]["reason"] == "BudgetExceeded" and error["message"] == "nothing left; ask"


def test_every_error_of_the_tree_has_a_number() -> None:
    reasons = {cls.code for cls in errors._BY_CODE.values()}
    assert reasons - set(wire.CODES) == {"NotAcceptable", "UnsupportedMediaType"}  # of the control API only


def test_a_stream_counts_its_items() -> None:
    talk = Conversation(Room())
    [asked] = calls(talk.feed(asking()))
    told = [json.loads(talk.item(asked, {"text": text})) for text in "ab"]
    assert [one["params"] for one in told] == [
        {"id": 1, "seq": 0, "data": {"text": "a"}},
        {"id": 1, "seq": 1, "data": {"text": "b"}},
    ]


def test_cancel_revokes_what_is_under_way_and_nothing_else() -> None:
    talk = Conversation(Room())
    events = talk.feed(asking(1) + wire.cancel(2) + wire.cancel(1))
    assert isinstance(events[1], Revoked) and events[1].asked is events[0] and len(events) == 2


def test_an_id_in_use_is_refused_and_the_first_call_goes_on() -> None:
    talk = Conversation(Room())
    events = talk.feed(asking(1) + asking(1))
    [refusal] = lines(events)
    assert refusal["id"] is None and "under way" in refusal["error"]["message"]
    assert talk.reply(calls(events)[0], {}) and calls(talk.feed(asking(1)))


def test_a_wrong_message_leaves_the_connection_and_a_wrong_line_ends_it() -> None:
    talk = Conversation(Room())
    [refusal] = lines(talk.feed(b'{"jsonrpc":"2.0","id":7,"method":5}\n'))
    assert refusal["id"] == 7 and refusal["error"]["data"]["kind"] == "Status"
    events = talk.feed(asking() + b"{]\n" + asking(2))
    assert len(calls(events)) == 1
    assert lines(events)[0]["error"]["code"] == wire.PARSE_ERROR
    assert talk.closing and talk.feed(asking()) == []


def test_more_calls_than_the_guest_may_wait_for_room() -> None:
    room = Room(calls=2)
    one, two = Conversation(room), Conversation(room)
    woken: list[str] = []
    first, second = calls(one.feed(asking(1) + asking(2) + asking(3) + asking(4)))
    assert one.blocked and calls(two.feed(asking(1))) == [] and two.blocked
    room.wait(lambda: woken.append("one"))
    room.wait(lambda: woken.append("two"))
    one.reply(first, {})
    assert woken == ["one"] and [asked.id for asked in calls(one.feed())] == [3]
    one.reply(second, {})
    assert woken == ["one", "two"] and [asked.id for asked in calls(two.feed())] == [1]


def test_large_calls_wait_for_each_other_but_one_may_always_run() -> None:
    room = Room(running_bytes=100)
    talk = Conversation(room)
    [asked] = calls(talk.feed(asking(1, payload="x" * 500) + asking(2)))
    assert talk.blocked
    talk.reply(asked, {})
    assert len(calls(talk.feed())) == 1


def test_buffers_of_a_guest_are_bounded_over_all_its_connections() -> None:
    room = Room(held_bytes=1000)
    talks = [Conversation(room) for _ in range(3)]
    assert [lines(talk.feed(b'{"' + b"x" * 400)) for talk in talks[:2]] == [[], []]
    [refusal] = lines(talks[2].feed(b'{"' + b"x" * 400))
    assert refusal["error"]["data"]["reason"] == "RequestEntityTooLarge" and talks[2].closing
    for talk in talks:
        talk.hang_up()
    assert room.held_bytes == 0


def test_one_turn_takes_a_bounded_number_of_lines() -> None:
    talk = Conversation(Room(calls=1000), lines_a_turn=10)
    events = talk.feed(b"".join(asking(n) for n in range(25)))
    taken = [len(calls(events))]
    while talk.more:
        taken.append(len(calls(talk.feed())))
    assert taken == [10, 10, 5]


def test_connections_of_one_guest_share_what_is_read_in_a_turn() -> None:
    room = Room(calls=1000)
    first, second = Conversation(room), Conversation(room)
    many = b"".join(asking(number) for number in range(100))
    assert len(calls(first.feed(many))) == jsonrpc.LINES_A_TURN and first.more
    assert calls(second.feed(many)) == [] and second.more
    room.lines_left = 5
    assert len(calls(second.feed())) == 5 and second.more
    assert calls(first.feed()) == [] and first.more


def test_hanging_up_gives_everything_back() -> None:
    room = Room(calls=2)
    talk = Conversation(room)
    events = talk.feed(asking(1) + asking(2) + asking(3))
    assert talk.hang_up() == calls(events) and talk.hang_up() == []
    assert (room.calls, room.running_bytes, room.held_bytes) == (0, 0, 0)


@pytest.mark.parametrize("answer", [float("nan"), "\ud800", object()])
def test_an_answer_json_cannot_say_is_an_error_of_ours(answer: Any) -> None:
    talk = Conversation(Room())
    [asked] = calls(talk.feed(asking()))
    assert json.loads(talk.reply(asked, {"x": answer}))["error"]["code"] == wire.INTERNAL_ERROR


def test_an_answer_longer_than_a_line_says_so() -> None:
    talk = Conversation(Room(), line_bytes=1000)
    asked, other = calls(talk.feed(asking(1) + asking(2)))
    assert json.loads(talk.reply(asked, "x" * 1000))["error"]["data"]["reason"] == "RequestEntityTooLarge"
    with pytest.raises(errors.TooLarge):
        talk.item(other, "x" * 1000)
    told = json.loads(talk.fail(other, errors.Invalid("x" * 1000)))
    assert told["error"]["data"] == {"reason": "Invalid"}


@given(
    st.lists(
        st.binary(max_size=300) | st.sampled_from([b"\n", asking(1), asking(2), wire.cancel(1), b"[]\n"])
    )
)
def test_nothing_a_guest_sends_does_more_than_be_refused(chunks: list[bytes]) -> None:
    room = Room(calls=2)
    talk = Conversation(room, line_bytes=400)
    for chunk in chunks:
        for event in talk.feed(chunk):
            assert not isinstance(event, bytes) or event.endswith(b"\n")
    talk.hang_up()
    assert (room.calls, room.running_bytes, room.held_bytes) == (0, 0, 0)


@given(st.lists(st.integers(1, 40)), st.integers(1, 5))
def test_calls_come_out_in_order_however_they_are_cut_and_held_back(sizes: list[int], most: int) -> None:
    whole = b"".join(asking(n) for n in range(8))
    cuts = [*sizes, len(whole)]
    room = Room(calls=most)
    talk = Conversation(room, lines_a_turn=3)
    got: list[wire.Id] = []
    while whole or talk.more or talk.blocked:
        size = cuts.pop(0) if cuts else len(whole)
        chunk, whole = whole[:size], whole[size:]
        for asked in calls(talk.feed(chunk)):
            got.append(asked.id)
        for asked in list(talk._under_way.values()):
            talk.reply(asked, {})
    assert got == list(range(8))
