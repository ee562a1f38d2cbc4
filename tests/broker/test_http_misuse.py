"""The HTTP door and who means it ill: requests that never end, floods, hang-ups, handlers that fail."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.broker.dialects.http import HttpService, Respond
from agentk.broker.dialects.http_reading import Limits, Reader, Received, Refused, Request
from tests.broker.http_rig import GET, HOST, asked, closing, echo, run, serving

POST = b"POST /a HTTP/1.1\r\n" + HOST
REFUSED = {
    "length and chunked": (400, POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunked and length": (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n"),
    "two lengths": (400, POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\naa"),
    "the same length twice": (400, POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na"),
    "a list of lengths": (400, POST + b"Content-Length: 1, 1\r\n\r\na"),
    "a signed length": (400, POST + b"Content-Length: +1\r\n\r\na"),
    "a hexadecimal length": (400, POST + b"Content-Length: 0x1\r\n\r\na"),
    "an empty length": (400, POST + b"Content-Length:\r\n\r\n"),
    "a folded header": (400, POST + b"X: a\r\n b\r\n\r\n"),
    "a folded coding": (400, POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    "space before the colon": (400, POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    "a vertical tab": (400, POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"),
    "gzip, chunked": (400, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "chunked twice": (
        400,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "identity": (400, POST + b"Transfer-Encoding: identity\r\nContent-Length: 1\r\n\r\na"),
    "an unknown coding": (400, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "chunked in HTTP/1.0": (
        400,
        b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "a bad chunk size": (400, POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
    "a long chunk size": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n"),
    "data after a chunk": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\naX0\r\n\r\n"),
    "bare line feeds": (400, b"GET / HTTP/1.1\nHost: 127.0.0.1\n\n"),
    "a bare carriage return": (400, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\rX: y\r\n\r\n"),
    "a NUL": (400, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\0\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "a foreign host": (421, b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
    "a host that begins like ours": (421, b"GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n"),
    "a host with a user": (421, b"GET / HTTP/1.1\r\nHost: localhost:1@evil\r\n\r\n"),
    "a foreign origin": (403, b"GET / HTTP/1.1\r\n" + HOST + b"Origin: https://evil.example\r\n\r\n"),
    "the null origin": (403, b"GET / HTTP/1.1\r\n" + HOST + b"Origin: null\r\n\r\n"),
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
    "HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "no HTTP at all": (400, b"\x16\x03\x01\x02\x00\x01\x00"),
    "an unknown expectation": (417, POST + b"Content-Length: 1\r\nExpect: tea\r\n\r\n"),
    "a body over the limit": (413, POST + b"Content-Length: 8388609\r\nExpect: 100-continue\r\n\r\n"),
    "a length of a thousand digits": (413, POST + b"Content-Length: 00000000000000000001\r\n\r\na"),
    "one large header": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 40_000 + b"\r\n\r\n"),
    "many headers": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X: 1\r\n" * 200 + b"\r\n"),
    "a large path": (431, b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n"),
    "large trailers": (
        431,
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nT: " + b"a" * 40_000 + b"\r\n\r\n",
    ),
    "a proxied https URL": (400, b"GET https://h/x HTTP/1.1\r\nHost: h\r\n\r\n"),
    "a proxied URL with a user": (400, b"GET http://u@h/x HTTP/1.1\r\nHost: h\r\n\r\n"),
    "CONNECT with a body": (400, b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_and_closed(what: str) -> None:
    calls = 0

    async def count(request: Request, respond: Respond) -> None:
        nonlocal calls
        calls += 1
        await echo(request, respond)

    status, data = REFUSED[what]
    smuggled = GET.replace(b"/a", b"/smuggled")
    answer = run(asked(HttpService(count, count), data + smuggled))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"connection: close" in head
    assert json.loads(body)["error"]["message"]
    assert calls == 0


@pytest.mark.parametrize("what", REFUSED)
def test_refused_byte_by_byte_too(what: str) -> None:
    status, data = REFUSED[what]
    reader = Reader(Limits(), by_unix=False)
    for byte in data:
        reader.feed(bytes([byte]))
    (refused,) = reader.done
    assert isinstance(refused, Refused)
    assert refused.status == status


def test_chunked_body_over_the_limit_is_refused_and_not_kept() -> None:
    reader = Reader(Limits(body_bytes=1000), by_unix=False)
    reader.feed(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(100):
        reader.feed(b"64\r\n" + b"a" * 100 + b"\r\n")
    (refused,) = reader.done
    assert isinstance(refused, Refused)
    assert refused.status == 413


def test_large_body_sent_whole_still_sees_its_413() -> None:
    answer = run(
        asked(
            HttpService(echo, limits=Limits(body_bytes=10)),
            POST + b"Content-Length: 900000\r\n\r\n" + b"a" * 900_000,
        )
    )
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_requests_sent_ahead_are_bounded() -> None:
    answer = run(asked(HttpService(echo), GET * 20))
    assert answer.count(b"HTTP/1.1 200") == 8
    assert answer.count(b"HTTP/1.1 429") == 1


def body_of(size: int) -> bytes:
    return b"POST /a HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (HOST, size)


def test_bodies_of_all_connections_are_bounded_together() -> None:
    async def story() -> None:
        service = HttpService(echo, limits=Limits(held_bytes=1000))
        async with serving(service) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(3):  # what was answered is held no more
                writer.write(body_of(900) + b"x" * 900)
                assert b"200 OK" in await reader.readuntil(b"}")
            writer.write(body_of(900) + b"x" * 600)
            other, other_writer = await asyncio.open_connection("127.0.0.1", port)
            while service.held.take(401):  # until the first 600 have been read
                service.held.give(401)
                await asyncio.sleep(0.001)
            other_writer.write(body_of(900) + b"x" * 500)
            assert b" 429 " in await other.read()
            writer.close()
            other_writer.close()
            while not service.held.take(1000):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.001)

    run(story())


def test_headers_that_never_end_are_cut_off() -> None:
    answer = run(asked(HttpService(echo, limits=Limits(head_seconds=0.02)), GET[:-2] + b"X: 1\r\n"))
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_body_that_never_ends_is_cut_off() -> None:
    limits = Limits(body_seconds=0.02)
    answer = run(asked(HttpService(echo, limits=limits), POST + b"Content-Length: 5\r\n\r\nab"))
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_silent_connection_is_closed() -> None:
    assert run(asked(HttpService(echo, limits=Limits(head_seconds=0.02)), b"")) == b""


def test_idle_connection_is_closed_after_its_answer() -> None:
    answer = run(asked(HttpService(echo, limits=Limits(idle_seconds=0.02)), GET))
    assert answer.startswith(b"HTTP/1.1 200")


def test_hang_up_cancels_the_call() -> None:
    async def main() -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def wait(request: Request, respond: Respond) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async with serving(HttpService(wait)) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            await begun.wait()
            writer.close()
            await cancelled.wait()

    run(main())


def test_flood_behind_a_call_cancels_it() -> None:
    async def main() -> None:
        cancelled = asyncio.Event()

        async def wait(request: Request, respond: Respond) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async with serving(HttpService(wait)) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET + b"x" * 500_000)
            await cancelled.wait()
            writer.close()

    run(main())


def unread(port: int) -> socket.socket:
    """A guest with a small receive buffer that never reads."""
    guest = socket.socket()
    guest.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    guest.connect(("127.0.0.1", port))
    guest.sendall(GET)
    return guest


def test_writer_waits_for_a_guest_that_does_not_read_and_gives_up() -> None:
    async def main() -> None:
        written = 0
        ended = asyncio.Event()

        async def pour(request: Request, respond: Respond) -> None:
            nonlocal written
            respond.start(200)
            try:
                while True:
                    await respond.write(b"x" * 65536)
                    written += 65536
            finally:
                ended.set()

        async with serving(HttpService(pour, limits=Limits(stall_seconds=0.05))) as port:
            with unread(port):
                await ended.wait()
        assert written < 32 * 1024 * 1024

    run(main())


async def broken(request: Request, respond: Respond) -> None:
    raise ZeroDivisionError("secret of the host")


async def broken_late(request: Request, respond: Respond) -> None:
    respond.start(200)
    await respond.write(b"half")
    raise ZeroDivisionError("secret of the host")


async def forgetful(request: Request, respond: Respond) -> None:
    respond.start(200)


def test_handler_that_fails_gives_a_500_without_its_words() -> None:
    answer = run(asked(HttpService(broken), closing(GET)))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer


@pytest.mark.parametrize("handler", [broken_late, forgetful])
def test_answer_that_breaks_off_never_looks_whole(
    handler: Callable[[Request, Respond], Awaitable[None]],
) -> None:
    async def main() -> None:
        async with serving(HttpService(handler)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            got = b""
            try:
                while part := await reader.read(100):
                    got += part
            except ConnectionResetError:
                pass
            assert b"200 OK" in got
            assert not got.endswith(b"0\r\n\r\n")
            writer.close()

    run(main())


FRAGMENTS = [
    GET,
    POST,
    b"\r\n",
    b"\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"0\r\n\r\n",
]


@given(st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=40)), max_size=12))
def test_no_bytes_crash_the_reader(parts: list[bytes]) -> None:
    reader = Reader(Limits(), by_unix=False)
    for part in parts:
        reader.feed(part)
    assert all(isinstance(item, Received | Refused) for item in reader.done)


@given(
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=40)), max_size=12), st.integers(1, 30)
)
def test_where_the_bytes_are_cut_changes_nothing(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)
    whole, cut = Reader(Limits(), by_unix=False), Reader(Limits(), by_unix=False)
    whole.feed(data)
    for start in range(0, len(data), size):
        cut.feed(data[start : start + size])
    assert [type(item) for item in whole.done] == [type(item) for item in cut.done]
    received = [item.request for item in whole.done if isinstance(item, Received)]
    assert received == [item.request for item in cut.done if isinstance(item, Received)]


def test_no_bytes_hang_the_connection() -> None:
    limits = Limits(head_seconds=0.02, body_seconds=0.02, idle_seconds=0.02, linger_seconds=0.02)

    @given(st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=40)), max_size=8))
    def closes(parts: list[bytes]) -> None:
        with contextlib.suppress(ConnectionResetError):  # what was not read when it closed
            run(asked(HttpService(echo, limits=limits), b"".join(parts)))

    closes()
