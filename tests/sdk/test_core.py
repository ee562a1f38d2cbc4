"""The client without I/O: whatever is cut, repeated or lost, every call ends once, with its own answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.broker.dialects.jsonrpc import Asked, Conversation, Room
from agentk.sdk import answers, calls, core, errors, wire


def asked(line: bytes) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(line)
    return told


def test_every_call_has_its_own_key_unless_one_is_given() -> None:
    mine = core.Core(trace=f"00-{'a' * 32}-{'b' * 16}-01")
    lines = [asked(mine.begin(calls.noop())[1]) for _ in range(3)]
    assert len({line["key"] for line in lines}) == 3 and len({line["id"] for line in lines}) == 3
    assert lines[0]["trace"].startswith("00-aaaa")
    assert asked(mine.begin(calls.noop(), "order-17")[1])["key"] == "order-17"


def test_a_new_connection_says_again_what_is_under_way_with_the_same_key() -> None:
    mine = core.Core()
    first, one = mine.begin(calls.noop(1))
    _, two = mine.begin(calls.noop(2))
    mine.feed(wire.response(first.id, {"payload": 1})[:5])  # half an answer is none
    assert mine.again() == one + two
    assert mine.feed(wire.response(first.id, {"payload": 1})) == [first] and first.outcome() == 1
    assert mine.again() == two


def test_pieces_heard_before_are_not_heard_twice() -> None:
    mine = core.Core()
    flight, _ = mine.begin(calls.think("x").streamed())
    mine.feed(wire.stream(1, 0, "a") + wire.stream(1, 1, "b"))
    mine.again()
    mine.feed(b"".join(wire.stream(1, n, piece) for n, piece in enumerate("abc")))
    assert list(flight.items) == ["a", "b", "c"]


def test_a_subscription_goes_on_after_its_last_event_as_a_new_call() -> None:
    mine = core.Core()
    flight, line = mine.begin(calls.event_subscribe(["a.*"]))
    assert asked(mine.again()) == asked(line)
    mine.feed(wire.stream(1, 0, {"id": 41}) + wire.stream(1, 1, {"id": 42}))
    again = asked(mine.again())
    assert again["params"] == {"types": ["a.*"], "after": 42} and again["key"] != asked(line)["key"]
    mine.feed(wire.stream(1, 0, {"id": 43}))
    assert [item["id"] for item in flight.items] == [41, 42, 43]


def test_what_is_taken_back_is_not_heard_any_more() -> None:
    mine = core.Core()
    flight, _ = mine.begin(calls.noop())
    assert asked(mine.cancel(flight))["params"] == {"id": flight.id} and mine.cancel(flight) == b""
    assert mine.feed(wire.failure(flight.id, -32006, "taken back")) == [] and mine.again() == b""


def test_an_error_has_a_class_a_hint_and_its_status() -> None:
    status = {"reason": "TooManyRequests", "details": {"hint": "wait", "retryAfterSeconds": 3}}
    error = errors.from_answer(-32015, "full; wait", status)
    assert isinstance(error, errors.TooManyRequests) and str(error) == "full; wait"
    assert (error.hint, error.retry_after_seconds, error.status) == ("wait", 3, status)


@pytest.mark.parametrize(
    ("code", "data", "kind"),
    [
        (-32602, None, errors.Invalid),
        (-32601, None, errors.NotFound),
        (-32603, {"reason": "Newer"}, errors.CallError),
        (1, [], errors.CallError),
        (-32013, {"reason": "Forbidden"}, errors.Denied),
        (-32017, {"reason": "Timeout", "details": 5}, TimeoutError),
    ],
)
def test_any_error_of_any_gate_can_be_raised(code: int, data: Any, kind: type[Exception]) -> None:
    assert isinstance(errors.from_answer(code, "no", data), kind)


def test_a_gate_that_cannot_read_us_ends_what_is_under_way() -> None:
    mine = core.Core()
    flight, _ = mine.begin(calls.noop())
    mine.feed(wire.failure(None, wire.PARSE_ERROR, "not JSON"))
    with pytest.raises(errors.CallError, match="not JSON"):
        flight.outcome()
    assert mine.again() == b""


@pytest.mark.parametrize("answer", [None, 5, {}, {"version": "x"}])
def test_an_answer_of_another_shape_is_an_error(answer: Any) -> None:
    mine = core.Core()
    flight, _ = mine.begin(calls.state_put("k", 1))
    mine.feed(wire.response(1, answer))
    with pytest.raises(errors.CallError, match="something else"):
        flight.outcome()


def test_what_cannot_be_sent_is_said_at_once() -> None:
    mine = core.Core()
    with pytest.raises(errors.Invalid):
        mine.begin(calls.noop({1, 2}))
    with pytest.raises(errors.TooLarge):
        mine.begin(calls.noop("x" * wire.LINE_BYTES))
    assert not mine.busy


@given(st.lists(st.binary(max_size=100)))
def test_garbage_is_no_gate_and_nothing_worse(chunks: list[bytes]) -> None:
    mine = core.Core()
    mine.begin(calls.noop())
    for chunk in chunks:
        try:
            mine.feed(chunk)
        except ConnectionError:
            mine.again()


def test_patience_grows_and_ends() -> None:
    patience = core.Patience(10)
    assert [patience.pause(now) for now in (0, 1, 2)] == [0.05, 0.1, 0.2]
    assert patience.pause(10) is None and patience.pause(11) == 0.05
    patience.heard()
    assert patience.pause(100) == 0.05


@given(st.lists(st.sampled_from(["ask", "break", "answer", "cut"]), max_size=40), st.data())
def test_over_any_breaks_every_call_ends_once_with_its_own_answer(
    steps: list[str], data: st.DataObject
) -> None:
    """Both ends of the wire, fed by hand: the other end answers a key it knows as it did before."""
    mine, flights, known = core.Core(), [], dict[str, Any]()
    theirs, waiting = Conversation(Room()), list[Asked]()

    def send(line: bytes) -> None:
        for event in theirs.feed(line):
            assert isinstance(event, Asked)
            waiting.append(event)

    def answer(one: Asked) -> bytes:
        return theirs.reply(one, known.setdefault(one.key, {"payload": [one.params["payload"], len(known)]}))

    for n, step in enumerate([*steps, "break"]):
        if step == "ask":
            flight, line = mine.begin(answers.Call("noop", {"payload": n}, lambda raw: raw["payload"]))
            flights.append((n, flight))
            send(line)
        elif step == "break":
            theirs.hang_up()
            theirs, waiting = Conversation(Room()), []
            send(mine.again())
        elif waiting:
            line = answer(waiting.pop(data.draw(st.integers(0, len(waiting) - 1))))
            if step == "answer":
                mine.feed(line)
            else:  # done, and the answer lost on the way
                theirs.hang_up()
                theirs, waiting = Conversation(Room()), []
                send(mine.again())
    for one in waiting:
        mine.feed(answer(one))
    assert [flight.outcome()[0] for _, flight in flights] == [n for n, _ in flights]
    assert len({flight.outcome()[1] for _, flight in flights}) == len(flights) and not mine.busy
