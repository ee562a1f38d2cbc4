"""The egress proxy with real clients: plain requests, tunnels that are carried, and tunnels that are read along."""

import asyncio
import http.client
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.broker.hosts import ALL, Household, Outside, reply, trusting
from tests.broker.proxy_rig import Tunnel, ended, fetched, told

# Plain requests


def test_a_plain_request_is_passed_on_and_is_a_call_like_others(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household, port: int) -> None:
        outside.clear.says["/a%20b"] = reply(b"x" * 100_000, x_one="1")
        cookie = "c=ü".encode()
        status, body, headers = await fetched(
            outside.plain("/a%20b?q=1"), port, Cookie=cookie.decode("latin-1")
        )
        assert (status, len(body), headers["x-one"]) == (200, 100_000, "1")
        (heard,) = outside.clear.heard
        assert heard.line == "GET /a%20b?q=1 HTTP/1.1"
        assert heard.all("host") == [f"plain.example:{outside.clear.port}"]
        assert heard.all("cookie")[0].encode("latin-1") == cookie
        assert (heard.all("proxy-connection"), heard.all("connection")) == ([], ["close"])
        assert house.records() == [("intent", ""), ("result", "ok")]
        assert house.calls() == 1
        assert b'"receivedBytes":100000' in house.written()

    told(tmp_path, story)


def test_posted_bytes_arrive_as_they_are(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household, port: int) -> None:
        outside.clear.says["/p"] = reply(b"ok")

        def post() -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request(
                "PUT", outside.plain("/p"), body=bytes(range(256)) * 100, headers={"Expect": "100-continue"}
            )
            status = connection.getresponse().status
            connection.close()
            return status

        assert await asyncio.to_thread(post) == 200
        assert outside.clear.heard[0].body == bytes(range(256)) * 100

    told(tmp_path, story)


def test_what_nobody_allows_is_refused_with_the_reason(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household, port: int) -> None:
        status, body, _ = await fetched("http://evil.example/x", port)
        assert (status, "evil.example:80" in json.loads(body)["error"]["message"]) == (403, True)
        status, _, _ = await fetched("http://169.254.169.254/latest", port)
        assert (status, outside.asked, outside.clear.heard) == (403, [], [])
        with pytest.raises(urllib.error.URLError, match="403"):
            await fetched("https://evil.example/x", port)
        assert [status for _, status in house.records()] == ["", "error"] * 3

    told(tmp_path, story)


def test_the_budget_and_the_policy_hold_for_the_proxy_too(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household, port: int) -> None:
        outside.clear.says["/"] = reply(b"ok")
        for _ in range(50):
            await fetched(outside.plain(), port)
        assert (await fetched(outside.plain(), port))[0] == 429
        with pytest.raises(urllib.error.URLError, match="429"):
            await fetched(outside.url(), port)
        assert len(outside.clear.heard) == 50

    told(tmp_path, story)


def test_the_policy_sees_every_plain_request_and_every_tunnel(tmp_path: Path) -> None:
    rules = [
        *ALL,
        {"name": "no-admin", "effect": "Deny", "methods": ["http.request"], "paths": ["/admin*"], "hosts": ["plain.*"]},
        {"name": "no-tunnel", "effect": "Deny", "methods": ["http.request"], "httpMethods": ["CONNECT"]},
    ]  # fmt: skip

    async def story(outside: Outside, house: Household, port: int) -> None:
        status, body, _ = await fetched(outside.plain("/x/..%2fadmin"), port)
        assert (status, b"no-admin" in body) == (403, True)
        with pytest.raises(urllib.error.URLError, match="403"):
            await fetched(outside.url(), port)
        assert outside.tls.heard == outside.clear.heard == []
        assert house.records() == [("note", "denied")] * 2

    told(tmp_path, story, rules=rules)


@pytest.mark.parametrize(
    "lines, status",
    [
        (["TRACE http://plain.example:{port}/ HTTP/1.1"], 405),
        (["GET http://plain.example:{port}/ HTTP/1.1", "Upgrade: websocket"], 400),
        (["GET http://plain.example:{port}/ HTTP/1.1", "Upgrade: h2c"], 200),
        (["GET http://u@plain.example:{port}/ HTTP/1.1"], 400),
        (
            ["POST http://plain.example:{port}/ HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked"],
            400,
        ),
        (["CONNECT plain.example HTTP/1.1"], 400),
        (["CONNECT plain.example:0 HTTP/1.1"], 400),
        (["CONNECT evil@plain.example:{port} HTTP/1.1"], 400),
    ],
)
def test_odd_requests(tmp_path: Path, lines: list[str], status: int) -> None:
    async def story(outside: Outside, house: Household, port: int) -> None:
        outside.clear.says["/"] = reply(b"ok")
        tunnel = Tunnel(*await asyncio.open_connection("127.0.0.1", port))
        got = await tunnel.ask(
            *(line.format(port=outside.clear.port) for line in lines), host="plain.example"
        )
        assert got.startswith(b"HTTP/1.1 %d " % status), got
        assert len(outside.clear.heard) == (status == 200)

    told(tmp_path, story)


# Tunnels that are carried


def test_a_tunnel_is_carried_and_counted_and_the_gate_sees_nothing_of_it(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household, port: int) -> None:
        outside.tls.says["/hidden-path"] = reply(b"x" * 500_000)
        status, body, _ = await fetched(outside.url("/hidden-path"), port, Authorization="Bearer mine-alone")
        assert (status, len(body)) == (200, 500_000)
        assert outside.tls.heard[0].all("authorization") == ["Bearer mine-alone"]
        await ended(house)
        written = house.written()
        assert b"hidden-path" not in written and b"mine-alone" not in written
        assert (house.records(), house.calls()) == ([("intent", ""), ("result", "ok")], 1)
        assert b'"receivedBytes":5' in written

    told(tmp_path, story)


def test_a_tunnel_for_another_host_is_cut(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household, port: int) -> None:
        tunnel = await Tunnel.to(port, f"api.example:{outside.tls.port}")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await tunnel.writer.start_tls(trusting(), server_hostname="other.example")
        tunnel.writer.close()
        await ended(house)
        assert (outside.tls.heard, house.records()[-1]) == ([], ("result", "error"))

    told(tmp_path, story)
