"""`http.request` and hosts that behave badly: redirects, answers that never end, headers that are none."""

import asyncio
import base64
import contextlib
import itertools
import json
import string
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors
from agentk.broker.egress_scrubbing import Needles, Stream
from tests.broker.fetching_rig import told
from tests.broker.hosts import ALL, Heard, Household, Outside, raw, reply

# Redirects


def test_a_redirect_within_a_host_is_followed_and_changes_the_method_as_browsers_do(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        outside.tls.says |= {
            "/303": reply(status="303 See Other", location="/end?x=1"),
            "/307": reply(status="307 Temporary Redirect", location="end"),
            "/loop": reply(status="302 Found", location="/loop"),
            "/end": reply(b"end"),
        }
        got = await house.request(outside.url("/303"), method="POST", body="b", headers={"Content-Type": "x"},
                                  followRedirects=True)  # fmt: skip
        assert (got["body"], got["url"]) == ("end", outside.url("/end?x=1"))
        assert outside.tls.heard[-1].line.startswith("GET ")
        assert (outside.tls.heard[-1].all("content-type"), outside.tls.heard[-1].body) == ([], b"")
        await house.request(outside.url("/307"), method="POST", body="b", followRedirects=True)
        assert (outside.tls.heard[-1].line[:5], outside.tls.heard[-1].body) == ("POST ", b"b")
        assert (await house.request(outside.url("/303")))["status"] == 303
        before = len(outside.tls.heard)
        with pytest.raises(errors.UpstreamError, match="10 redirects"):
            await house.request(outside.url("/loop"), followRedirects=True)
        assert len(outside.tls.heard) - before == 11

    told(tmp_path, story)


def test_a_redirect_takes_no_secret_to_another_host(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        secret = outside.secrets["gh/token"]
        away = outside.url(f"/away?token={quote(secret, safe='')}", host="other.example")
        outside.tls.says |= {"/go": reply(status="302 Found", location=away), "/away": reply(b"there")}
        got = await house.request(
            outside.url("/go"),
            followRedirects=True,
            headers={"Cookie": "c=1", "X-Api-Key": "k", "X-Other": "1"},
        )
        assert got["body"] == "there"
        heard = outside.tls.heard[-1]
        assert secret not in str(heard) and quote(secret, safe="") not in str(heard)
        assert (heard.all("cookie"), heard.all("x-api-key"), heard.all("x-other")) == ([], [], ["1"])
        assert heard.all("authorization") == []

    told(tmp_path, story, api_example="Authorization")


@pytest.mark.parametrize(
    "location, wrong",
    [
        ("https://evil.example/", errors.Denied),
        ("http://169.254.169.254/latest/meta-data", errors.Denied),
        ("//169.254.169.254/", errors.Denied),
        ("https://user@api.example/", errors.UpstreamError),
        ("file:///etc/passwd", errors.UpstreamError),
        ("gopher://api.example/", errors.UpstreamError),
        ("https://[::1", errors.UpstreamError),
    ],
)
def test_every_hop_is_judged(tmp_path: Path, location: str, wrong: type[errors.AgentkError]) -> None:
    async def story(outside: Outside, house: Household) -> None:
        outside.tls.says["/"] = reply(status="302 Found", location=location)
        with pytest.raises(wrong):
            await house.request(outside.url(), followRedirects=True)
        assert len(outside.tls.heard) == 1

    told(tmp_path, story)


def test_every_hop_is_judged_by_the_policy_too(tmp_path: Path) -> None:
    rules = [*ALL, {"name": "no-admin", "effect": "Deny", "methods": ["http.request"], "paths": ["/admin*"]}]

    async def story(outside: Outside, house: Household) -> None:
        outside.tls.says["/"] = reply(status="302 Found", location="/x/%2e%2e/admin")
        with pytest.raises(errors.Denied, match=r'redirected: .*"no-admin"'):
            await house.request(outside.url(), followRedirects=True)

    told(tmp_path, story, rules=rules)


# Hosts that behave badly

OK = b"HTTP/1.1 200 OK\r\n"
BAD = {
    "too little": OK + b"Content-Length: 10\r\n\r\nabc",
    "no HTTP": b"SSH-2.0-x\r\n\r\n",
    "nothing": b"",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length and chunks": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "many headers": OK + b"X: 1\r\n" * 1000 + b"\r\n",
    "a huge header": OK + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    "large headers": OK + (b"X: " + b"a" * 8000 + b"\r\n") * 100 + b"\r\n",
    "bad chunks": OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "chunks without an end": OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_answer_is_an_error_of_the_upstream(tmp_path: Path, what: str) -> None:
    async def story(outside: Outside, house: Household) -> None:
        outside.tls.says["/"] = raw(BAD[what])
        with pytest.raises(errors.UpstreamError) as caught:
            await house.request(outside.url())
        assert "s3cr3t" not in str(caught.value)
        assert house.records()[-1] == ("result", "error")
        assert house.calls() == 1

    told(tmp_path, story, api_example="Authorization")


def test_headers_with_odd_bytes_are_left_out_or_made_text(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        outside.tls.says["/"] = raw(OK + b"X-Odd: \xff\xfe\r\nX-Word: \xc3\xbc\r\nContent-Length: 0\r\n\r\n")
        got = await house.request(outside.url())
        assert (got["headers"]["x-word"], got["headers"]["x-odd"]) == ("ü", "\ufffd\ufffd")

    told(tmp_path, story)


def test_who_does_not_answer_in_time_is_given_up_and_let_go(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        hung_up = asyncio.Event()

        async def slow(heard: Heard, writer: asyncio.StreamWriter) -> None:
            writer.write(OK + b"Content-Length: 5\r\n\r\nab")
            with contextlib.suppress(ConnectionError):
                while not writer.transport.is_closing():
                    await asyncio.wait({asyncio.ensure_future(writer.wait_closed())})
            hung_up.set()

        outside.tls.says["/"] = slow
        with pytest.raises(errors.Timeout, match=r"api\.example did not answer within 0\.2 s"):
            await house.request(outside.url(), timeoutSeconds=0.2)
        await hung_up.wait()
        assert house.records()[-1] == ("result", "error")

    told(tmp_path, story)


def test_who_never_stops_is_cut_off(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        cut = asyncio.Event()

        async def endless(heard: Heard, writer: asyncio.StreamWriter) -> None:
            writer.write(OK + b"\r\n")
            try:
                while not writer.transport.is_closing():
                    writer.write(b"x" * 65536)
                    await writer.drain()
                    await asyncio.sleep(0)  # draining alone does not let others run
            finally:
                cut.set()

        outside.tls.says["/"] = endless
        got = await house.request(outside.url(), maxBytes=1_000_000)
        assert (len(got["body"]), got["truncated"]) == (1_000_000, True)
        await cut.wait()

    told(tmp_path, story)


def test_a_call_that_is_taken_back_hangs_up_on_the_host(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household) -> None:
        begun = asyncio.Event()

        async def silent(heard: Heard, writer: asyncio.StreamWriter) -> None:
            begun.set()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        outside.tls.says["/"] = silent
        task = asyncio.create_task(house.request(outside.url()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert house.records()[-1] == ("result", "cancelled")
        assert house.calls() == 1

    told(tmp_path, story)


@pytest.mark.parametrize(
    "params",
    [
        {"headers": {"X": "a\r\nY: b"}},
        {"headers": {"X\r\nY": "b"}},
        {"headers": {"X Y": "b"}},
        {"headers": {"X": "\ud800"}},
        {"body": "\ud800"},
        {"body": "not base64!", "encoding": "base64"},
        {"method": "TRACE"},
        {"method": "CONNECT"},
    ],
)
def test_nothing_a_guest_writes_splits_a_request(tmp_path: Path, params: dict[str, Any]) -> None:
    async def story(outside: Outside, house: Household) -> None:
        with pytest.raises(errors.BadRequest):
            await house.request(outside.url(), **params)
        assert outside.tls.heard == []

    told(tmp_path, story)


# Scrubbing


@given(
    st.text(string.printable, min_size=8, max_size=40).filter(lambda text: len(text.strip()) >= 8),
    st.lists(st.integers(0, 200), max_size=20),
    st.binary(max_size=60),
    st.integers(0, 2),
)
def test_where_an_answer_is_cut_changes_nothing(
    secret: str, cuts: list[int], noise: bytes, form: int
) -> None:
    said = [secret.encode(), base64.b64encode(secret.encode()), json.dumps(secret)[1:-1].encode()][form]
    data = noise + said + noise[:7] + said[: len(said) // 2]
    needles = Needles([secret])
    stream = Stream(needles)
    places = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    parts = [stream.feed(data[one:two]) for one, two in itertools.pairwise(places)]
    assert secret.encode() not in b"".join(parts)
    assert said[:-2] not in b"".join(parts) or said[:-2] in noise + noise[:7]
    assert b"".join(parts) + stream.end() == b"".join([needles.whole(data)])
