"""Tunnels: whom their TLS is for, and real ones through a real door."""

import asyncio
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

from agentk.api.errors import AgentkError, Denied
from agentk.broker import egress, egress_hello, egress_tunnel
from agentk.broker.dialects.http import HttpService, Respond
from agentk.broker.dialects.http_reading import Request

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
