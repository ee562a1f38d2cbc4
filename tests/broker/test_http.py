"""The HTTP door on real sockets: what is answered, what is refused, and that no bytes make it crash or hang."""

import asyncio
import json
from pathlib import Path

from agentk.api.errors import Denied
from agentk.broker.dialects.http import HttpService, Respond
from agentk.broker.dialects.http_reading import Limits, Reader, Received, Request
from tests.broker.http_rig import GET, HOST, asked, closing, echo, run, serving


def test_get_is_answered_with_its_path_and_query() -> None:
    answer = run(asked(HttpService(echo), closing(b"GET /a%20b?x=1#f HTTP/1.1\r\n" + HOST + b"\r\n")))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
        "method": "GET",
        "path": "/a%20b",
        "query": "x=1",
        "size": 0,
    }


def test_keep_alive_serves_the_next_request_on_the_same_connection() -> None:
    answer = run(asked(HttpService(echo), GET + closing(GET.replace(b"/a", b"/b"))))
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.index(b'"/a"') < answer.index(b'"/b"')


def test_http_1_0_gets_an_answer_without_chunks() -> None:
    async def stream(request: Request, respond: Respond) -> None:
        respond.start(200)
        await respond.write(b"one")
        respond.end(b"two")

    answer = run(asked(HttpService(stream), b"GET / HTTP/1.0\r\n" + HOST + b"\r\n"))
    assert answer.endswith(b"\r\n\r\nonetwo")
    assert b"chunked" not in answer


def test_chunked_body_in_one_byte_pieces() -> None:
    head = b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    body = b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
    reader = Reader(Limits(), by_unix=False)
    for byte in head + body:
        reader.feed(bytes([byte]))
    (received,) = reader.done
    assert isinstance(received, Received)
    assert received.request.body == b"hello world"
    assert "trailer" not in received.request.headers


def test_expect_100_continue_is_told_to_go_on() -> None:
    async def main() -> None:
        async with serving(HttpService(echo)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"POST / HTTP/1.1\r\n"
                + HOST
                + b"Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
            )
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"hi")
            assert b'"size": 2' in await reader.read()
            writer.close()

    run(main())


def test_streamed_answer_comes_in_chunks() -> None:
    async def stream(request: Request, respond: Respond) -> None:
        respond.start(200, {"content-type": "text/event-stream", "transfer-encoding": "gzip"})
        for part in (b"data: 1\n\n", b"", b"data: 2\n\n"):
            await respond.write(part)
        respond.end()

    answer = run(asked(HttpService(stream), closing(GET)))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n"
    assert head.count(b"transfer-encoding") == 1


def test_head_has_no_body() -> None:
    answer = run(asked(HttpService(echo), closing(GET.replace(b"GET", b"HEAD"))))
    assert answer.endswith(b"\r\n\r\n")


def test_unix_socket_takes_any_host(tmp_path: Path) -> None:
    async def main() -> bytes:
        service = HttpService(echo)
        path = str(tmp_path / "gate.sock")
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: service.connection(by_unix=True), path
        )
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(
            b"GET /a HTTP/1.1\r\nHost: whatever\r\nOrigin: http://whatever\r\nConnection: close\r\n\r\n"
        )
        answer = await reader.read()
        writer.close()
        server.close()
        return answer

    assert run(main()).startswith(b"HTTP/1.1 200")


async def denying(request: Request, respond: Respond) -> None:
    raise Denied("rule 'none' says no")


def test_refusal_of_the_gate_is_told() -> None:
    answer = run(asked(HttpService(denying), closing(GET)))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "PolicyDenied"


def test_header_with_a_line_break_is_never_written() -> None:
    async def split(request: Request, respond: Respond) -> None:
        respond.whole(200, {"x": "a\r\nset-cookie: b"}, b"")

    answer = run(asked(HttpService(split), closing(GET)))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in answer


def test_connect_hands_over_the_transport_and_what_came_with_it() -> None:
    got: list[tuple[str, bytes]] = []

    async def tunnel(request: Request, respond: Respond) -> None:
        transport, already = respond.tunnel()
        got.append((request.authority, already))
        transport.write(b"raw")
        transport.close()

    data = b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n\x16hello"
    answer = run(asked(HttpService(echo, tunnel), data))
    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nraw"
    assert got == [("api.example:443", b"\x16hello")]


def test_connect_without_egress_is_denied() -> None:
    answer = run(asked(HttpService(echo), b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 403 ")


def test_proxied_request_goes_to_the_tunnel_handler() -> None:
    got: list[Request] = []

    async def tunnel(request: Request, respond: Respond) -> None:
        got.append(request)
        respond.whole(200, {}, b"ok")

    run(
        asked(
            HttpService(echo, tunnel),
            closing(b"GET http://api.example/x?y=1 HTTP/1.1\r\nHost: api.example\r\n\r\n"),
        )
    )
    assert (got[0].authority, got[0].path, got[0].query) == ("api.example:80", "/x", "y=1")


def test_absolute_url_of_the_door_itself_is_an_ordinary_request() -> None:
    reader = Reader(Limits(), by_unix=False, port=8700)
    reader.feed(b"GET http://127.0.0.1:8700/a HTTP/1.1\r\nHost: 127.0.0.1:8700\r\n\r\n")
    (received,) = reader.done
    assert isinstance(received, Received)
    assert (received.request.authority, received.request.path) == ("", "/a")


def test_upgrade_is_declined_by_a_plain_answer() -> None:
    answer = run(asked(HttpService(echo), GET[:-2] + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\nmore"))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer
