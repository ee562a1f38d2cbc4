"""Which hosts a guest reaches: rules, addresses, names that change their mind, and tunnels with a real TLS client."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api.errors import AgentkError, BadRequest, Denied, Invalid, UpstreamError
from agentk.broker import egress, egress_addresses

# Rules


def rules(*allow: dict[str, Any], default: str = "Deny") -> egress.Egress:
    return egress.parse({"network": {"egress": {"default": default, "allow": list(allow)}}})


@pytest.mark.parametrize(
    "rule, host, allowed",
    [
        ("api.example.com", "api.example.com", True),
        ("API.Example.COM.", "api.example.com", True),
        ("api.example.com", "evil-api.example.com", False),
        ("api.example.com", "api.example.com.evil.example", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "evilexample.com", False),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("192.0.2.7", "192.0.2.7", True),
    ],
)
def test_hosts_match_exactly_or_below(rule: str, host: str, allowed: bool) -> None:
    spec = rules({"host": rule})
    if allowed:
        assert egress.permitted(spec, host, 443).host == host
    else:
        with pytest.raises(Denied, match="no rule"):
            egress.permitted(spec, host, 443)


def test_port_is_443_unless_written() -> None:
    with pytest.raises(Denied):
        egress.permitted(rules({"host": "a.example"}), "a.example", 80)
    assert egress.permitted(rules({"host": "a.example", "ports": [80]}), "a.example", 80).port == 80


def test_methods_bind_a_request_and_are_kept_for_a_tunnel() -> None:
    spec = rules({"host": "a.example", "methods": ["get"]})
    assert egress.permitted(spec, "a.example", 443, "GET").methods == {"GET"}
    with pytest.raises(Denied, match="POST is not allowed"):
        egress.permitted(spec, "a.example", 443, "POST")
    assert egress.permitted(spec, "a.example", 443).methods == {"GET"}


def test_default_allow_leaves_listed_hosts_as_they_are_written() -> None:
    spec = rules({"host": "a.example", "ports": [443]}, default="Allow")
    assert egress.permitted(spec, "b.example", 8443).rule == "spec.network.egress.default"
    with pytest.raises(Denied):
        egress.permitted(spec, "a.example", 80)


def test_no_egress_means_none() -> None:
    with pytest.raises(Denied):
        egress.permitted(egress.parse({}), "a.example", 443)


@pytest.mark.parametrize(
    "host", ["*", "a.*", "*.*.example", "*.192.0.2.1", "http://a.example", "a.example:443", ""]
)
def test_rule_that_means_nothing_is_named(host: str) -> None:
    with pytest.raises(Invalid) as caught:
        rules({"host": "ok.example"}, {"host": host})
    assert caught.value.field == "spec.network.egress.allow[1].host"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a.example:443", ("a.example", 443)),
        ("A.Example.:443", ("a.example", 443)),
        ("[2001:4860::1]:443", ("2001:4860::1", 443)),
        ("[::ffff:10.0.0.1]:443", ("10.0.0.1", 443)),
    ],
)
def test_authority(text: str, expected: tuple[str, int]) -> None:
    assert egress.authority(text) == expected


TRICKS = [
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "127.0.0.1.",
    "017700000001",
    "0x7F.0x0.0.1",
]
BAD = [
    "a.example",
    "a.example:",
    "a.example:0",
    "a.example:65536",
    "a.example:x",
    "::1:443",
    "a@b:443",
    "a b:1",
    ":1",
]


@pytest.mark.parametrize("text", [*BAD, "a%00.example:443", "[fe80::1%25eth0]:443", "[::1:443", "a..b:443"])
def test_authority_that_is_not_one_host(text: str) -> None:
    with pytest.raises(BadRequest):
        egress.authority(text)


@pytest.mark.parametrize("host", TRICKS)
def test_numbers_in_disguise_never_reach_the_resolver(host: str) -> None:
    try:
        name, _ = egress.authority(f"{host}:443")
    except BadRequest:
        return
    assert name == "127.0.0.1"
    with pytest.raises(Denied, match="loopback"):
        egress.vetted(egress.Target(name, 443, "x"), [name])


@given(st.text(max_size=40))
def test_no_text_crashes_authority(text: str) -> None:
    try:
        egress.authority(text)
    except AgentkError:
        pass


# Addresses

CLOSED = {  # opened by a rule that says so
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "::1": "loopback",
    "10.0.0.1": "private",
    "172.16.0.1": "private",
    "192.168.1.1": "private",
    "100.64.0.1": "private",
    "100.127.255.255": "private",
    "169.254.1.1": "link-local",
    "fe80::1": "link-local",
    "fd12:3456::1": "private",
    "fec0::1": "private",
    "198.18.0.1": "private",
    "::ffff:10.0.0.1": "private",
    "::ffff:127.0.0.1": "loopback",
    "2002:7f00:1::": "loopback",
    "2002:c0a8:101::1": "private",
    "64:ff9b::10.0.0.1": "private",
    "64:ff9b::127.0.0.1": "loopback",
}
NEVER = {
    "0.0.0.0": "unspecified",
    "0.1.2.3": "reserved",
    "::": "unspecified",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "ff02::1": "multicast",
    "192.0.2.1": "reserved",
    "2001:db8::1": "reserved",
    "169.254.169.254": "metadata",
    "169.254.170.2": "metadata",
    "100.100.100.200": "metadata",
    "fd00:ec2::254": "metadata",
    "::ffff:169.254.169.254": "metadata",
    "64:ff9b::169.254.169.254": "metadata",
    "2002:a9fe:a9fe::1": "metadata",
    "::10.0.0.1": "unspecified",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "unspecified",  # Teredo
    "fe80::1%1": "zone",
    "not an address": "no address",
}


@pytest.mark.parametrize("address", CLOSED)
def test_closed_networks_are_refused_unless_opened(address: str) -> None:
    assert CLOSED[address] in egress_addresses.refusal(address, private=False)
    assert egress_addresses.refusal(address, private=True) == ""


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_no_rule_opens(address: str) -> None:
    assert egress_addresses.refusal(address, private=False)
    assert egress_addresses.refusal(address, private=True)


def test_metadata_is_reached_only_by_its_own_address() -> None:
    assert egress_addresses.refusal("169.254.169.254", private=True, named=True) == ""
    assert "metadata" in egress_addresses.refusal("169.254.169.254", private=False, named=True)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "64:ff9b::1.1.1.1", "2002:101:101::1"]
)
def test_public_addresses_are_fine(address: str) -> None:
    assert egress_addresses.refusal(address, private=False) == ""


@given(st.ip_addresses().map(str))
def test_every_address_has_a_verdict(address: str) -> None:
    assert isinstance(egress_addresses.refusal(address, private=True), str)
    if not egress_addresses.refusal(address, private=False):
        assert not egress_addresses.refusal(address, private=True)


def test_one_bad_answer_refuses_all() -> None:
    target = egress.Target("a.example", 443, "x")
    assert egress.vetted(target, ["1.1.1.1", "1.1.1.1"]) == ("1.1.1.1",)
    with pytest.raises(Denied, match="private") as caught:
        egress.vetted(target, ["1.1.1.1", "10.1.2.3"])
    assert "10.1.2.3" not in str(caught.value)


# Connecting


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answers(*found: Sequence[str]) -> tuple[egress.Resolve, list[str]]:
    """A name server that says something else every time it is asked."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return found[len(asked) - 1]

    return resolve, asked


def test_connects_to_what_was_looked_at_and_asks_once() -> None:
    async def main() -> None:
        async with listening() as port:
            resolve, asked = answers(["127.0.0.1"], ["169.254.169.254"])
            dialer = egress.Dialer(resolve)
            outside = await dialer.connect(egress.Target("a.example", port, "x", private=True))
            assert outside.getpeername() == ("127.0.0.1", port)
            assert asked == ["a.example"]
            outside.close()
            dialer.close()

    asyncio.run(main())


def test_name_that_points_inside_is_refused_before_connecting() -> None:
    async def main() -> None:
        async with listening() as port:
            dialer = egress.Dialer(answers(["127.0.0.1"])[0])
            with pytest.raises(Denied, match="loopback"):
                await dialer.connect(egress.Target("a.example", port, "x"))
            dialer.close()

    asyncio.run(main())


def test_real_resolver_knows_localhost() -> None:
    async def main() -> None:
        async with listening() as port:
            dialer = egress.Dialer()
            outside = await dialer.connect(egress.Target("localhost", port, "x", private=True))
            assert outside.getpeername()[1] == port
            outside.close()
            with pytest.raises(UpstreamError, match="does not resolve"):
                await dialer.connect(egress.Target("a.invalid", port, "x"))
            dialer.close()

    asyncio.run(main())


def test_next_address_is_tried_when_one_refuses() -> None:
    async def main() -> None:
        async with listening() as port:
            dialer = egress.Dialer(answers(["::1", "127.0.0.1"])[0])
            outside = await dialer.connect(egress.Target("a.example", port, "x", private=True))
            outside.close()
            dialer.close()

    asyncio.run(main())


def test_nobody_listening_is_an_upstream_error() -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            dialer = egress.Dialer()
            with pytest.raises(UpstreamError, match="failed"):
                await dialer.connect(egress.Target("127.0.0.1", taken.getsockname()[1], "x", private=True))
            dialer.close()

    asyncio.run(main())
