"""HTTP over a unix socket, against a server that answers byte by byte what the test says."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentk.api import errors, kinds
from agentk.client import client, watching, wire

Server = Callable[..., Path]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """`server([answer, answer], [answer])`: two answers on the first connection, one on the second."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s"))
    listening.listen()
    threads: list[threading.Thread] = []

    def serve(accepted: socket.socket, answers: list[bytes]) -> None:
        with accepted, accepted.makefile("rb") as reading:
            for answer in answers:
                size = 0
                while line := reading.readline().strip():
                    name, _, value = line.partition(b":")
                    size = int(value) if name.lower() == b"content-length" else size
                reading.read(size)
                accepted.sendall(answer)

    def accept(connections: tuple[list[bytes], ...]) -> None:
        for answers in connections:
            try:
                accepted = listening.accept()[0]
            except OSError:
                return  # nobody came
            threads.append(threading.Thread(target=serve, args=(accepted, answers), daemon=True))
            threads[-1].start()

    def start(*connections: list[bytes]) -> Path:
        threads.append(threading.Thread(target=accept, args=(connections,), daemon=True))
        threads[-1].start()
        return tmp_path / "s"

    yield start
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    for thread in threads:
        thread.join(10)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away")
def test_somebody_elses_daemon_is_told_nothing(tmp_path: Path) -> None:
    """Where there is no XDG_RUNTIME_DIR the socket is below /tmp, and another user may have been there first."""
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(tmp_path / "s"))
        stranger.listen()
        os.chown(tmp_path, 12345, 12345)
        with pytest.raises(errors.Forbidden, match="uid 12345"):
            wire.Connection(tmp_path / "s", 10).exchange("POST", "/", {}, b"a secret")


def read(path: Path, method: str = "GET") -> bytes:
    return wire.Connection(path, 10).exchange(method, "/", {}).read()


def test_a_body_of_known_length(server: Server) -> None:
    assert read(server([OK])) == b"ok"


def test_chunks_with_extensions_and_trailers(server: Server) -> None:
    body = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
    )
    assert read(server([body])) == b"abcde"


def test_a_body_that_ends_with_the_connection(server: Server) -> None:
    assert read(server([b"HTTP/1.1 200 OK\r\n\r\nall of it"])) == b"all of it"


def test_lines_across_chunks(server: Server) -> None:
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n3\r\nc\nd\r\n0\r\n\r\n"
    response = wire.Connection(server([body]), 10).exchange("GET", "/", {})
    assert list(response.lines()) == [b"a\n", b"bc\n", b"d"]


def test_a_connection_is_used_again(server: Server) -> None:
    connection = wire.Connection(server([OK, OK, OK]), 10)
    assert [connection.exchange("GET", "/", {}).read() for _ in range(3)] == [b"ok"] * 3


def test_a_connection_the_daemon_closed_is_opened_anew(server: Server) -> None:
    connection = wire.Connection(server([OK], [OK]), 10)
    assert [connection.exchange("GET", "/", {}).read() for _ in range(2)] == [b"ok"] * 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a number\r\n",
        b"SSH-2.0-nonsense\r\n",
    ],
)
def test_an_answer_cut_short_is_told(server: Server, answer: bytes) -> None:
    with pytest.raises(wire.Cut):
        read(server([answer]))


def test_a_post_is_never_repeated_by_itself(server: Server) -> None:
    connection = wire.Connection(server([OK, b""], [OK]), 10)
    connection.exchange("POST", "/", {}).read()
    with pytest.raises(wire.Cut):
        connection.exchange("POST", "/", {}).read()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(wire.Down, match="not running"):
        read(tmp_path / "nothing")


def test_on_down_is_asked_once_and_then_the_request_is_sent(tmp_path: Path, server: Server) -> None:
    asked = []

    def start() -> None:
        asked.append(1)
        (tmp_path / "later").symlink_to(server([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"]))

    assert client.Client(tmp_path / "later", start).request("GET", "/") == {}
    assert asked == [1]


def test_a_status_becomes_its_error(server: Server) -> None:
    status = json.dumps(errors.Conflict("taken", hint="choose another").to_status()).encode()
    answer = b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n%s" % (len(status), status)
    with pytest.raises(errors.Conflict) as told:
        client.Client(server([answer])).request("GET", "/x")
    assert (told.value.message, told.value.hint) == ("taken", "choose another")


def test_an_error_that_is_no_status_is_still_told(server: Server) -> None:
    with pytest.raises(errors.AgentkError, match="502: a proxy's words"):
        answer = b"HTTP/1.1 502 Bad\r\nContent-Length: 15\r\n\r\na proxy's words"
        client.Client(server([answer])).request("GET", "/x")


def obj(name: str, version: str) -> dict[str, object]:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": version}}


def stream(*events: tuple[str, object]) -> bytes:
    lines = "".join(json.dumps({"type": kind, "object": one}) + "\n" for kind, one in events).encode()
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + lines


def page(version: str, *items: dict[str, object]) -> bytes:
    body = json.dumps({"metadata": {"resourceVersion": version}, "items": items}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_a_watch_that_is_too_old_lists_again_and_tells_what_it_missed(server: Server) -> None:
    gone = errors.Expired("too old").to_status()
    path = server(
        [page("1", obj("a", "1"), obj("b", "1")), page("9", obj("b", "7"), obj("c", "8"))],
        [stream(("MODIFIED", obj("a", "2")), ("ERROR", gone))],
        [stream(("BOOKMARK", obj("", "10")), ("ADDED", obj("d", "11")))],
    )
    api = client.Client(path)
    selection = client.Selection(kinds.AGENT, "default")
    listing = api.list(selection)
    seen = []
    for event in watching.watch(api, selection, listing):
        seen.append((event.type, event.obj["metadata"]["name"]))
        if len(seen) == 5:
            break
    assert seen == [("MODIFIED", "a"), ("DELETED", "a"), ("MODIFIED", "b"), ("ADDED", "c"), ("ADDED", "d")]
