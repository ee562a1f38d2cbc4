"""Which hosts a guest reaches: rules, addresses, names that change their mind, and tunnels with a real TLS client."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from agentk.api.errors import AgentkError, BadRequest, Denied, Invalid, UpstreamError
from agentk.broker import egress, egress_addresses, egress_hello, egress_tunnel
from agentk.broker.dialects.http import HttpService, Respond
from agentk.broker.dialects.http_reading import Request

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


# Server names


def hello_of(name: str | None) -> bytes:
    """What a real TLS client sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("size", [1, 2, 5, 100, 100_000])
def test_name_of_a_real_client_in_pieces(size: int) -> None:
    data = hello_of("api.example.com")
    hello = egress_hello.ClientHello()
    told = [hello.feed(data[start : start + size]) for start in range(0, len(data), size)]
    assert told[-1]
    assert not any(told[:-1])
    assert hello.server_name == "api.example.com"
    assert bytes(hello.seen) == data


def test_hello_split_over_many_records() -> None:
    message = hello_of("api.example.com")[5:]
    hello = egress_hello.ClientHello()
    for start in range(0, len(message), 7):
        part = message[start : start + 7]
        done = hello.feed(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part)
    assert done
    assert hello.server_name == "api.example.com"


def test_client_without_a_name() -> None:
    hello = egress_hello.ClientHello()
    assert hello.feed(hello_of(None))
    assert hello.server_name == ""


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x16\x02", b"\x15\x03\x01", b"\x16\x03\x01\0\0"]
)
def test_what_is_no_tls_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(Denied, match="TLS only"):
        egress_hello.ClientHello().feed(data)


@given(st.binary(max_size=300), st.integers(0, 600), st.integers(1, 64))
def test_no_bytes_crash_the_hello(noise: bytes, at: int, size: int) -> None:
    data = bytearray(hello_of("api.example.com"))
    data[at : at + len(noise)] = noise
    for given_bytes in (bytes(data), noise):
        hello = egress_hello.ClientHello()
        try:
            for start in range(0, len(given_bytes), size):
                if hello.feed(given_bytes[start : start + size]):
                    break
        except Denied:
            pass


def test_hello_without_end_is_bounded() -> None:
    hello = egress_hello.ClientHello()
    with pytest.raises(Denied, match="TLS only"):
        hello.feed(b"\x16\x03\x01\x40\x00\x01\x00\xff\xff" + b"a" * 16380)
        for _ in range(20):
            hello.feed(b"\x16\x03\x01\x40\x00" + b"a" * 16384)


@pytest.mark.parametrize(
    "name, host, fine",
    [
        ("a.example", "a.example", True),
        ("A.EXAMPLE.", "a.example", True),
        ("b.example", "a.example", False),
        ("", "a.example", False),
        ("", "192.0.2.1", True),
        ("", "2001:4860::1", True),
        ("a.example", "192.0.2.1", False),
        ("a_\x00", "a.example", False),
    ],
)
def test_name_must_be_the_tunnels_host(name: str, host: str, fine: bool) -> None:
    target = egress.Target(host, 443, "x")
    if fine:
        egress_hello.check(name, target)
    else:
        with pytest.raises(Denied, match="the tunnel is to"):
            egress_hello.check(name, target)


# Tunnels: a real TLS client, through a real door, to a real TLS server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "api.example")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("api.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(*form) + signed.public_bytes(serialization.Encoding.PEM))
    return path


class World:
    """A TLS server that sends everything back, and a door whose tunnel leads there whatever the name."""

    def __init__(self, certificate: Path, limits: egress_tunnel.TunnelLimits) -> None:
        self.certificate = certificate
        self.limits = limits
        self.carried: asyncio.Queue[egress_tunnel.Carried | AgentkError] = asyncio.Queue()
        self.reached = 0
        self.answers = 1_000_000

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reached += 1  # called once a handshake is whole
        try:
            while self.answers and (data := await reader.read(65536)):
                self.answers -= 1
                writer.write(data)
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass
        writer.close()

    async def tunnel(self, request: Request, respond: Respond) -> None:
        host, port = egress.authority(request.authority)
        target = egress.Target(host, port, "test", private=True)
        outside = await self.dialer.connect(target)
        transport, already = respond.tunnel()
        try:
            carried = await egress_tunnel.carry(transport, already, outside, target, self.limits)
        except AgentkError as error:
            self.carried.put_nowait(error)
        else:
            self.carried.put_nowait(carried)

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        self.server = await asyncio.start_server(self.echo, "127.0.0.1", 0, ssl=context)
        self.port = self.server.sockets[0].getsockname()[1]

        async def resolve(host: str, port: int) -> Sequence[str]:
            return ["127.0.0.1"]

        async def nothing(request: Request, respond: Respond) -> None:
            respond.whole(404, {}, b"")

        self.dialer = egress.Dialer(resolve)
        service = HttpService(nothing, self.tunnel)
        door = await asyncio.get_running_loop().create_server(
            lambda: service.connection(by_unix=False), "127.0.0.1", 0
        )
        self.door = door.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            door.close()
            self.server.close()
            self.dialer.close()
            await service.close()

    async def connected(self, host: str = "api.example") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """What a client has after the proxy said 200."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.door)
        writer.write(f"CONNECT {host}:{self.port} HTTP/1.1\r\nHost: {host}:{self.port}\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        return reader, writer

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))


def in_world(
    certificate: Path, story: Any, limits: egress_tunnel.TunnelLimits | None = None
) -> egress_tunnel.Carried | AgentkError:
    async def main() -> egress_tunnel.Carried | AgentkError:
        world = World(certificate, limits or egress_tunnel.TunnelLimits())
        async with world.standing():
            await story(world)
            return await world.carried.get()

    return asyncio.run(main())


def test_tls_goes_through_both_ways_and_is_counted(certificate: Path) -> None:
    size = 3_000_000  # more than any buffer on the way

    async def story(world: World) -> None:
        reader, writer = await world.connected()
        await writer.start_tls(world.trusting(), server_hostname="api.example")

        async def send() -> None:
            for _ in range(size // 100_000):
                writer.write(b"x" * 100_000)
                await writer.drain()

        sending = asyncio.create_task(send())
        assert await reader.readexactly(size) == b"x" * size
        await sending
        writer.close()

    carried = in_world(certificate, story)
    assert isinstance(carried, egress_tunnel.Carried)
    assert carried.sent_bytes > size
    assert carried.received_bytes > size


def test_tls_for_another_host_is_cut_before_the_host_hears_of_it(certificate: Path) -> None:
    heard = []

    async def story(world: World) -> None:
        _, writer = await world.connected()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await writer.start_tls(world.trusting(), server_hostname="evil.example")
        heard.append(world.reached)
        writer.close()

    refused = in_world(certificate, story)
    assert isinstance(refused, Denied)
    assert "evil.example" in str(refused)
    assert heard == [0]


def test_what_is_no_tls_is_cut(certificate: Path) -> None:
    async def story(world: World) -> None:
        reader, writer = await world.connected()
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"\x15\x03")
        writer.close()

    assert isinstance(in_world(certificate, story), Denied)


def test_silent_tunnel_is_cut(certificate: Path) -> None:
    async def story(world: World) -> None:
        reader, writer = await world.connected()
        await reader.read()
        writer.close()

    refused = in_world(certificate, story, egress_tunnel.TunnelLimits(hello_seconds=0.02))
    assert isinstance(refused, Denied)
    assert "in time" in str(refused)


def test_idle_tunnel_ends(certificate: Path) -> None:
    async def story(world: World) -> None:
        reader, writer = await world.connected()
        await writer.start_tls(world.trusting(), server_hostname="api.example")
        await reader.read()
        writer.close()

    carried = in_world(certificate, story, egress_tunnel.TunnelLimits(idle_seconds=0.2))
    assert isinstance(carried, egress_tunnel.Carried)
    assert carried.ended == "idle"


def test_guest_that_hangs_up_before_its_hello_ends_the_tunnel(certificate: Path) -> None:
    async def story(world: World) -> None:
        _, writer = await world.connected()
        writer.close()

    ended = in_world(certificate, story)
    assert isinstance(ended, AgentkError)
    assert "hung up" in str(ended)


def test_host_that_hangs_up_ends_the_tunnel(certificate: Path) -> None:
    async def story(world: World) -> None:
        world.answers = 1
        reader, writer = await world.connected()
        await writer.start_tls(world.trusting(), server_hostname="api.example")
        writer.write(b"bye")
        assert await reader.read() == b"bye"
        writer.close()

    carried = in_world(certificate, story)
    assert isinstance(carried, egress_tunnel.Carried)
    assert carried.ended in ("closed", "lost")
