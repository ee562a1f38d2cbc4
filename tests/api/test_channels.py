import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agentk.api import channels, errors


def ends(protocol: str = channels.V5) -> tuple[channels.Speaker, channels.Speaker]:
    """A client and a server."""
    return (
        channels.Speaker(client=True, protocol=protocol),
        channels.Speaker(client=False, protocol=protocol),
    )


def test_a_message_is_heard_on_its_channel() -> None:
    client, server = ends()
    assert server.feed(client.say(0, b"in")) == [channels.Heard(0, b"in")]
    assert client.feed(server.say(2, b"err")) == [channels.Heard(2, b"err")]


@given(
    some.lists(some.tuples(some.integers(0, 2), some.binary(max_size=300)), max_size=8), some.integers(1, 40)
)
def test_pieces_of_any_length_make_the_same_stream(said: list[tuple[int, bytes]], step: int) -> None:
    client, server = ends()
    wire = b"".join(client.say(channel, data) for channel, data in said)
    heard: dict[int, bytes] = {}
    for at in range(0, len(wire), step):
        for channel, data in server.feed(wire[at : at + step]):
            heard[channel] = heard.get(channel, b"") + data
    wanted: dict[int, bytes] = {}
    for channel, data in said:
        if data:
            wanted[channel] = wanted.get(channel, b"") + data
    assert heard == wanted


def test_a_long_message_is_handed_on_as_it_comes() -> None:
    client, server = ends()
    wire = client.say(0, b"x" * 1_000_000)
    assert sum(len(one.data) for one in server.feed(wire[:500_000])) > 490_000


def test_what_means_something_as_a_whole_is_heard_at_once_and_bounded() -> None:
    client, server = ends()
    wire = client.say(channels.RESIZE, channels.sized(80, 24))
    assert server.feed(wire[:9]) == []
    assert [channels.size(one.data) for one in server.feed(wire[9:])] == [(80, 24)]
    assert server.feed(client.say(channels.RESIZE, b" " * 5000)) == []
    assert server.ended
    client.feed(server.answers())
    assert client.ended


def test_closing_a_channel_has_words_since_v5() -> None:
    client, server = ends()
    assert server.feed(client.close_channel(0)) == [channels.Heard(channels.CLOSE, b"\0")]
    assert ends(channels.V4)[0].close_channel(0) == b""


def test_text_is_heard_like_bytes() -> None:
    from wsproto import connection, events

    client = connection.Connection(connection.ConnectionType.CLIENT)
    assert ends()[1].feed(client.send(events.TextMessage("\0é"))) == [channels.Heard(0, "é".encode())]


def test_a_ping_is_answered_and_the_end_too() -> None:
    client, server = ends()
    server.feed(client.ping())
    assert client.feed(server.answers()) == []
    server.feed(client.end())
    assert server.ended and not client.ended
    client.feed(server.answers())
    assert client.ended and client.say(0, b"x") == b"" == client.end()


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\x82\x05abcde", bytes(64)])
def test_noise_ends_it(noise: bytes) -> None:
    server = ends()[1]
    assert server.feed(noise) == []
    assert server.ended and server.feed(b"more") == []


@given(some.binary(max_size=200))
def test_no_noise_surprises_it(noise: bytes) -> None:
    server = ends()[1]
    server.feed(noise)
    server.answers()


@pytest.mark.parametrize("code", [0, 1, 7, 124, 127, 137, 255])
def test_exit_codes_survive(code: int) -> None:
    assert channels.exit_code(json.loads(json.dumps(channels.exited(code)))) == code


@pytest.mark.parametrize(
    "status",
    [
        {"status": "Failure", "reason": "InternalError", "message": "no"},
        {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode"}]}},
        {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": "x"}},
        {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"message": "4096"}]}},
        {"status": "Failure", "details": [], "code": 404},
        {},
    ],
)  # fmt: skip
def test_what_tells_no_code_is_an_error(status: dict[str, object]) -> None:
    with pytest.raises(errors.AgentkError):
        channels.exit_code(status)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"Width": 0, "Height": 2}', b'{"Width": true, "Height": 2}']
)
def test_sizes_that_mean_nothing(data: bytes) -> None:
    assert channels.size(data) is None


def test_the_better_protocol_is_chosen() -> None:
    assert channels.choose(["v4.channel.k8s.io", "v5.channel.k8s.io"]) == channels.V5
    with pytest.raises(errors.BadRequest):
        channels.choose(["channel.k8s.io"])
