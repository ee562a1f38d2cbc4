"""What daemon and launcher say to each other, byte by byte, without either of them."""

import json
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors
from agentk.runtime import box
from agentk.runtime.launcher import wire

BOX = box.Box(
    id="u-1",
    uid="u",
    namespace="default",
    attempt=1,
    argv=("true",),
    env={"A": "b"},
    mounts=(box.Mount("files", "/x", files={"a": "Yg=="}),),
    limits=box.Limits(pids=3),
    log=box.LogLimits(max_files=2),
)
ENDED = box.Exit(
    7, None, "wait", "2026-01-02T03:04:05.000000Z", box.Counters(oom_kills=1), box.Intent("Killed")
)
SEEN = box.Seen(
    "u-1", "u", "default", 1, "box", "Exited", box.Process(1, 2, "b"), exit=ENDED, unenforced=("cpu: why",)
)


def told(value: object) -> dict[str, object]:
    """As it arrives."""
    return dict(json.loads(json.dumps(wire.plain(value))))


def test_boxes_and_what_is_seen_survive_the_way() -> None:
    assert wire.box_from(told(BOX)) == BOX
    assert wire.seen_from(told(SEEN)) == SEEN


def test_fields_of_a_newer_daemon_are_ignored_and_missing_ones_have_defaults() -> None:
    message = {"id": "u-1", "uid": "u", "namespace": "d", "attempt": 1, "argv": ["x"], "gpu": {"count": 4}}
    assert wire.box_from({**message, "limits": {"pids": 2, "gpu": 1}}).limits == box.Limits(pids=2)


@pytest.mark.parametrize("message", [{}, {"id": "x"}, {"id": "x", "argv": 5}, {"limits": 3}])
def test_what_is_no_box_is_told(message: dict[str, object]) -> None:
    with pytest.raises(errors.BadRequest):
        wire.box_from(message)


NAMES = st.text().filter(lambda name: name != "fds")  # that one is the wire's own


@given(st.lists(st.dictionaries(NAMES, st.integers() | st.text()), max_size=5), st.integers(1, 40))
def test_messages_arrive_whole_however_they_are_cut(messages: list[dict[str, object]], size: int) -> None:
    data = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    inbox, got = wire.Inbox(), []
    for start in range(0, len(data), size):
        got += [message for message, _ in inbox.feed(data[start : start + size])]
    assert got == messages


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"fds": 1}', b'{"fds": -1}', b'{"fds": "x"}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(errors.BadRequest):
        wire.Inbox().feed(line + b"\n")


def test_a_line_without_end_is_refused() -> None:
    inbox = wire.Inbox()
    with pytest.raises(errors.TooLarge):
        for _ in range(40):
            inbox.feed(b"x" * (1 << 19))


def test_descriptors_arrive_with_their_message() -> None:
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    with ours, theirs:
        outbox, inbox = wire.Outbox(), wire.Inbox()
        outbox.put({"id": 1})
        outbox.put({"id": 2}, [write])
        assert outbox.flush(ours)
        got = []
        while len(got) < 2:
            got += inbox.feed(*wire.receive(theirs))
    assert [(message["id"], len(fds)) for message, fds in got] == [(1, 0), (2, 1)]
    os.write(got[1][1][0], b"x")
    assert os.read(read, 1) == b"x"
    for fd in (read, write, got[1][1][0]):
        os.close(fd)


def test_a_full_socket_keeps_the_rest() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        outbox, inbox = wire.Outbox(), wire.Inbox()
        outbox.put({"text": "x" * 3_000_000})
        assert not outbox.flush(ours)
        got: list[tuple[wire.Message, list[int]]] = []
        while not got:
            got += inbox.feed(*wire.receive(theirs))
            outbox.flush(ours)
    assert len(got[0][0]["text"]) == 3_000_000
    assert outbox.waiting_bytes == 0
