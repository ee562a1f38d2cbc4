"""`http.request` through a real gate to real servers: what is sent, what is kept back, and what a bad host gets."""

import asyncio
import base64
import contextlib
import gzip
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors, kinds
from agentk.broker import admitting, egress_urls
from tests.broker.fetching_rig import told
from tests.broker.hosts import ALL, Heard, Household, Outside, raw, reply


def test_a_request_goes_out_as_it_was_meant_and_is_on_record(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        outside.tls.says["/a/../b//c%2e"] = reply(b"hello", x_one="1", Set_Cookie="a=1\r\nSet-Cookie: b=2")
        got = await house.request(
            outside.url("/a/../b//c%2e?x=%zz&y=a b".replace(" ", "+")),
            method="POST",
            body="ünï",
            headers={
                "X-Mine": "1",
                "Host": "evil",
                "Connection": "x-hop",
                "X-Hop": "1",
                "Content-Length": "9",
            },
        )
        assert (got["status"], got["body"], got["encoding"], got["truncated"]) == (
            200,
            "hello",
            "utf-8",
            False,
        )
        assert (got["headers"]["x-one"], got["headers"]["set-cookie"]) == ("1", "a=1\nb=2")
        (heard,) = outside.tls.heard
        assert heard.line == "POST /a/../b//c%2e?x=%zz&y=a+b HTTP/1.1"
        assert heard.all("host") == [f"api.example:{outside.tls.port}"]
        assert heard.all("accept-encoding") == ["identity"]
        assert {name.lower() for name, _ in heard.headers} == {
            "host", "x-mine", "accept-encoding", "content-length", "connection"
        }  # fmt: skip
        assert heard.body == "ünï".encode()
        assert house.records() == [("intent", ""), ("result", "ok")]
        assert (house.calls(), outside.asked) == (1, ["api.example"])

    told(tmp_path, story)


def test_bytes_come_as_base64_and_long_answers_are_cut_at_a_letter(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        outside.tls.says["/bytes"] = reply(b"\xff\x00")
        outside.tls.says["/long"] = reply("ab€".encode() * 100_000)
        bytes_ = await house.request(outside.url("/bytes"))
        assert (base64.b64decode(bytes_["body"]), bytes_["encoding"]) == (b"\xff\x00", "base64")
        long = await house.request(outside.url("/long"), maxBytes=9)
        assert (long["body"], long["truncated"]) == ("ab€ab", True)
        assert (await house.request(outside.url("/long"), maxBytes=0))["body"] == ""
        whole = await house.request(outside.url("/bytes"), maxBytes=2)
        assert whole["truncated"] is False

    told(tmp_path, story)


@pytest.mark.parametrize(
    "url",
    [
        "https://u:p@api.example/",
        "https://api.example\\@evil.example/",
        "https://api.example:0/",
        "https://api.example:99999/",
        "https:///path",
        "https://api.example /",
        "https://api.example/a\tb",
        "https://[::1/",
        "https://2130706433/",
        "https://0x7f.1/",
    ],
)
def test_what_is_not_one_address_to_everybody_is_refused(url: str) -> None:
    with pytest.raises(errors.BadRequest):
        egress_urls.parse(url)


@given(st.text(max_size=60))
def test_no_text_crashes_the_reading_of_a_url(text: str) -> None:
    for one in (text, f"https://{text}", f"http://a.example/{text}"):
        with contextlib.suppress(errors.BadRequest):
            url = egress_urls.parse(one)
            assert egress_urls.parse(str(url)) == url
    with contextlib.suppress(errors.UpstreamError):
        egress_urls.joined(egress_urls.parse("https://a.example/b"), text)


def test_hosts_and_methods_that_no_rule_allows_hear_nothing(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        with pytest.raises(errors.Denied, match=r"no rule of spec\.network"):
            await house.request("https://evil.example/")
        with pytest.raises(errors.Denied, match=r"no rule of spec\.network"):
            await house.request("https://169.254.169.254/latest")
        assert (outside.asked, outside.tls.heard) == ([], [])
        assert house.records()[-1] == ("result", "error")
        port = outside.tls.port
        spec = outside.spec(
            {"host": "api.example", "ports": [port], "methods": ["GET"], "privateAddresses": True}
        )
        house.guest = replace(house.guest, spec=spec)
        with pytest.raises(errors.Denied, match="POST is not allowed"):
            await house.request(outside.url(), method="POST")

    told(tmp_path, story)


def test_names_that_lead_inside_are_refused(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        house.guest = replace(
            house.guest, spec=outside.spec({"host": "*.example", "ports": [outside.tls.port]})
        )
        with pytest.raises(errors.Denied, match="loopback"):
            await house.request(outside.url())
        outside.answers["api.example"] = ["1.1.1.1", "169.254.169.254"]
        with pytest.raises(errors.Denied, match="metadata"):
            await house.request(outside.url())
        assert outside.tls.heard == []

    told(tmp_path, story)


def test_private_addresses_need_the_policy_too(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        with pytest.raises(errors.Denied, match="privateAddresses"):
            await house.request(outside.url())
        assert house.records() == [("note", "denied")]

    told(tmp_path, story, rules=ALL[:1])


def test_a_certificate_of_another_host_is_not_believed(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        port = outside.tls.port
        entry = {"host": "stranger.example", "ports": [port], "privateAddresses": True}
        house.guest = replace(house.guest, spec=outside.spec(entry))
        with pytest.raises(errors.UpstreamError, match=r"certificate.*stranger\.example"):
            await house.request(outside.url(host="stranger.example"))
        assert outside.tls.heard == []

    told(tmp_path, story)


# Secrets


def echo_everything(secret: str) -> Callable[[Heard, asyncio.StreamWriter], Awaitable[None]]:
    """Sends back what it was given, in every form, in headers, and in pieces of a few bytes."""

    async def say(heard: Heard, writer: asyncio.StreamWriter) -> None:
        (value,) = heard.all("authorization")
        assert value == f"Bearer {secret}"
        forms = [
            value, base64.b64encode(value.encode()).decode(), base64.urlsafe_b64encode(b"x" + value.encode()).decode(),
            quote(value), quote(value, safe=""), re.sub("%..", lambda hex: hex[0].lower(), quote(value)),
            json.dumps(value),
            json.dumps(json.dumps({"a": value})), value.replace("/", "\\/"), value.encode().hex(),
        ]  # fmt: skip
        body = "|".join(forms).encode()
        head = (
            f"HTTP/1.1 200 OK\r\nX-Echo: {value}\r\nSet-Cookie: t={quote(value)}\r\n{secret.partition('/')[0]}: 1\r\n"
            f"X-{secret.replace('/', '').replace('=', '')}: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        writer.write(head.encode())
        for at in range(0, len(body), 3):
            part = body[at : at + 3]
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    return say


def test_a_secret_goes_to_its_host_and_never_comes_back(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        secret = outside.secrets["gh/token"]
        outside.tls.says["/echo"] = echo_everything(secret)
        got = await house.request(
            outside.url("/echo"), headers={"authorization": "mine", "AUTHORIZATION": "too"}
        )
        answer = json.dumps(got)
        assert answer.count("[redacted]") >= 12
        for form in (
            secret,
            quote(secret, safe=""),
            secret.encode().hex(),
            base64.b64encode(secret.encode()).decode(),
        ):
            assert form not in answer
        assert secret.encode() not in house.written()
        outside.tls.says["/who"] = reply(b"ok")
        await house.request(outside.url("/who", host="other.example"))
        assert outside.tls.heard[-1].all("authorization") == []

    told(tmp_path, story, api_example="Authorization")


def test_cutting_an_answer_never_shows_the_beginning_of_a_secret(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        secret = outside.secrets["gh/token"]
        outside.tls.says["/tail"] = reply(b"token=" + secret.encode() + b" and more")
        outside.tls.says["/broken"] = raw(
            b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nt=" + secret[:9].encode()
        )
        for most in range(30):
            got = await house.request(
                outside.url("/tail"), maxBytes=most, headers={"Range": f"bytes=0-{most}", "If-Range": "x"}
            )
            assert secret[:2] not in got["body"]
        assert outside.tls.heard[-1].all("range") == []
        with pytest.raises(errors.UpstreamError, match="broke off"):
            await house.request(outside.url("/broken"))

    told(tmp_path, story, api_example="Authorization")


def test_a_packed_echo_is_unpacked_and_scrubbed(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        secret = outside.secrets["gh/token"].encode()
        packed = gzip.compress(b"a" + secret) + gzip.compress(secret * 2)
        outside.tls.says["/gzip"] = reply(packed, content_encoding="gzip")
        outside.tls.says["/br"] = reply(b"...", content_encoding="br")
        outside.tls.says["/lie"] = reply(b"no gzip", content_encoding="gzip")
        outside.tls.says["/short"] = reply(packed[:20], content_encoding="gzip")
        got = await house.request(outside.url("/gzip"), headers={"Accept-Encoding": "gzip"})
        assert (got["body"], "content-encoding" in got["headers"]) == ("a" + "[redacted]" * 3, False)
        assert outside.tls.heard[-1].all("accept-encoding") == ["identity"]
        for path in ("/br", "/lie", "/short"):
            with pytest.raises(errors.UpstreamError):
                await house.request(outside.url(path))

    told(tmp_path, story, api_example="Authorization")


def test_a_small_answer_that_unpacks_to_a_huge_one_is_cut(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        bomb = gzip.compress(bytes(200_000_000), 9)
        outside.tls.says["/bomb"] = reply(bomb, content_encoding="gzip")
        got = await house.request(outside.url("/bomb"), maxBytes=1000)
        assert (len(got["body"]), got["truncated"]) == (1000, True)

    told(tmp_path, story)


@pytest.mark.parametrize(
    "value, why", [("tiny", "too short"), ("two lines\nof text", "line"), ("a long one\0with", "line")]
)
def test_a_value_that_cannot_be_used_is_refused_unsent(tmp_path: Path, value: str, why: str) -> None:
    async def story(outside: Outside, house: Household) -> None:
        outside.secrets["gh/token"] = value
        with pytest.raises(errors.Unavailable, match=why) as caught:
            await house.request(outside.url())
        assert value not in str(caught.value)
        assert outside.tls.heard == []

    told(tmp_path, story, api_example="Authorization")


def test_a_secret_never_travels_in_clear_but_within_closed_networks(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        outside.clear.says["/"] = reply(b"ok")
        assert (await house.request(outside.plain()))["body"] == "ok"
        assert outside.clear.heard[0].all("x-key") == [f"Bearer {outside.secrets['gh/token']}"]
        outside.answers["plain.example"] = ["127.0.0.1", "1.1.1.1"]
        with pytest.raises(errors.Denied, match="in clear"):
            await house.request(outside.plain())
        assert len(outside.clear.heard) == 1

    told(tmp_path, story, plain_example="X-Key")


# What admission says of spec.secrets


@pytest.mark.parametrize(
    "inject, field, why",
    [
        ({"host": "*.example", "header": "X"}, "host", "host"),
        ({"host": "evil.example", "header": "X"}, "host", "no rule of spec.network.egress allows"),
        ({"host": "api.example", "header": "Content-Length"}, "header", "gate's own"),
        ({"host": "API.example.", "header": "x-key"}, "header", "another secret"),
    ],
)
def test_a_secret_that_would_go_nowhere_is_refused_by_its_field(
    inject: dict[str, str], field: str, why: str
) -> None:
    first = {"name": "gh", "key": "t", "inject": {"host": "api.example", "header": "X-Key"}}
    spec = {
        "network": {"egress": {"allow": [{"host": "api.example"}]}},
        "secrets": [first, {**first, "inject": inject}],
    }
    with pytest.raises(errors.Invalid, match=why) as caught:
        admitting.check(kinds.AGENT, {"metadata": {"name": "a"}, "spec": spec})
    assert caught.value.field == f"spec.secrets[1].inject.{field}"
    admitting.check(kinds.AGENT, {"metadata": {"name": "a"}, "spec": {**spec, "secrets": [first]}})
