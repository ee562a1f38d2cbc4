"""Hosts of the world outside, for the tests of egress: real servers that say what the test wants, byte for byte.

Every name leads to 127.0.0.1, as a name server of the test's says; the certificates are of an authority of the test's.
"""

import asyncio
import contextlib
import functools
import os
import socket
import ssl
import tempfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agentk.broker import egress, egress_authority, egress_fetching, egress_secrets, gate, policy
from agentk.broker.budgets import Budgets
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.calling import fetching, proxying
from agentk.broker.dialects import serving_proxy
from agentk.broker.dialects.http import HttpService, Respond
from agentk.broker.dialects.http_reading import Request
from agentk.broker.door import Door
from agentk.broker.words import Call, Guest
from agentk.store.journal import Journal, Settings
from agentk.store.journal_anchor import StateAnchor
from agentk.store.journal_redaction import Redactor

NAMES = ("api.example", "other.example", "plain.example")


@dataclass(frozen=True)
class Heard:
    """One request as it stood on the wire."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


Say = Callable[[Heard, asyncio.StreamWriter], Awaitable[None]]


def reply(body: bytes = b"", status: str = "200 OK", **headers: str) -> Say:
    async def say(heard: Heard, writer: asyncio.StreamWriter) -> None:
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""])
        writer.write(head.encode() + (b"" if heard.line.startswith("HEAD ") else body))

    return say


def raw(*parts: bytes) -> Say:
    async def say(heard: Heard, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return say


@dataclass
class Host:
    """One server. `says` answers by path; what was heard is kept."""

    says: dict[str, Say] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *rest = head.strip().split("\r\n")
            headers = tuple((one.partition(":")[0], one.partition(":")[2].strip()) for one in rest)
            sizes = [int(value) for name, value in headers if name.lower() == "content-length"]
            heard = Heard(line, headers, await reader.readexactly(sizes[0]) if sizes else b"")
            self.heard.append(heard)
            path = line.split(" ")[1].partition("?")[0]
            await self.says.get(path, reply(b"nothing here", "404 Not Found"))(heard, writer)
            await writer.drain()
        writer.close()


class Outside:
    """A host that speaks TLS, one that does not, and the daemon's way to them."""

    def __init__(self) -> None:
        self.tls, self.clear = Host(), Host()
        self.answers: dict[str, Sequence[str]] = {}  # what the name server says; 127.0.0.1 by default
        self.asked: list[str] = []
        self.secrets = {"gh/token": "s3cr3t/Value+with=chars"}

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Outside"]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate())
        one = await asyncio.start_server(self.tls.serve, "127.0.0.1", 0, ssl=context)
        two = await asyncio.start_server(self.clear.serve, "127.0.0.1", 0)
        self.tls.port, self.clear.port = (one.sockets[0].getsockname()[1], two.sockets[0].getsockname()[1])
        self.dialer = egress.Dialer(self.resolve)
        try:
            yield self
        finally:
            one.close()
            two.close()
            self.dialer.close()

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.get(host, ["127.0.0.1"])

    async def secret(self, namespace: str, name: str, key: str) -> str:
        return self.secrets[f"{name}/{key}"]

    def url(self, path: str = "/", host: str = "api.example") -> str:
        return f"https://{host}:{self.tls.port}{path}"

    def plain(self, path: str = "/", host: str = "plain.example") -> str:
        return f"http://{host}:{self.clear.port}{path}"

    def spec(self, *allow: dict[str, Any], **inject: str) -> dict[str, Any]:
        """An agent that reaches both; `inject`: header by host (with - for .), of the one secret there is."""
        ports = [self.tls.port, self.clear.port]
        listed = allow or tuple({"host": name, "ports": ports, "privateAddresses": True} for name in NAMES)
        secrets = [
            {"name": "gh", "key": "token", "inject": {"host": host, "header": header, "prefix": "Bearer "}}
            for host, header in ((key.replace("_", "."), value) for key, value in inject.items())
        ]
        return {"network": {"egress": {"allow": list(listed)}}, "secrets": secrets}


ALL = [
    {"name": "all", "effect": "Allow", "methods": ["*"]},
    {"name": "private", "effect": "Allow", "methods": ["*"], "features": ["privateAddresses"]},
]


class Household:
    """A gate with `http.request`, its journal and one guest."""

    def __init__(self, folder: Path, outside: Outside, spec: dict[str, Any], rules: Any = None) -> None:
        self.anchor: list[str] = []
        self.folder, self.outside = folder, outside
        self.authorities = egress_authority.Authorities(bytes(32))
        self.journal = Journal.open(
            folder,
            StateAnchor(lambda: self.anchor[-1] if self.anchor else None, self.anchor.append),
            Settings(redact=Redactor(outside.secrets.values())),
        )
        self.budgets = Budgets()
        self.budgets.put("namespace/default", Owner("quota", "q"), Limits(), 0.0)
        self.budgets.put("u", Owner("agent", "a"), Limits(calls=50), 0.0)
        compiled = policy.read("test", {"level": "baseline", "rules": ALL if rules is None else rules})
        self.guest = Guest("u", "default", "a", 1, "u-1", "u-1", spec)
        secrets = egress_secrets.Secrets(outside.secret)
        limits = egress_fetching.Limits(connect_seconds=5, silent_seconds=20)
        self.fetcher = egress_fetching.Fetcher(outside.dialer, secrets, trusting(), limits)
        made = fetching.methods(fetcher=self.fetcher, rules=lambda guest: compiled)
        self.gate = gate.Gate(
            gate.Rooms(
                methods=made,
                rules=lambda guest: compiled,
                journal=self.journal,
                budgets=self.budgets,
                path=lambda guest: (f"namespace/{guest.namespace}", guest.uid),
                take_turn=lambda *_: _no_turn(),
                forms=proxying.forms(fetcher=self.fetcher, dialer=outside.dialer),
            )
        )

    async def request(self, url: str, **params: Any) -> Any:
        return await self.gate.call(Call(self.guest, "http.request", {"url": url, **params}), _nobody)

    @contextlib.asynccontextmanager
    async def proxy(self) -> AsyncIterator[int]:
        """The door of the guest's box, and the proxy behind it. Yields its port."""
        proxy = serving_proxy.handler(self.gate, lambda: self.guest, self.fetcher, self.authorities.context)
        self.service = service = HttpService(_not_here, proxy)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            door = Door([os.dup(listener.fileno())], {"http": service.connection})
            door.open()
            try:
                yield listener.getsockname()[1]
            finally:
                await service.close()
                await door.close()
                assert door.connections == 0 and not service.tasks

    def records(self) -> list[tuple[str, str]]:
        def read(conn: Any) -> list[tuple[str, str]]:
            rows = conn.execute("SELECT kind, status FROM records WHERE method <> '' ORDER BY id")
            return [tuple(row) for row in rows]

        return self.journal.read(read)

    def calls(self) -> int:
        standing = self.budgets.standing("u", 0.0)
        return standing.used.calls + standing.held.calls

    def close(self) -> None:
        self.journal.close()

    def written(self) -> bytes:
        """All that is on the disk, unpacked."""

        def read(conn: Any) -> bytes:
            told = b""
            for (table,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                for row in conn.execute(f"SELECT * FROM {table}"):
                    for value in row:
                        data = value if isinstance(value, bytes) else str(value).encode()
                        told += data + b"\n" + _unpacked(data)
            return told

        return self.journal.read(read)


@contextlib.asynccontextmanager
async def _no_turn() -> AsyncIterator[Any]:
    yield None


async def _not_here(request: Request, respond: Respond) -> None:
    respond.whole(404, {}, b"")


async def _nobody(data: Any) -> None:
    raise AssertionError("http.request streams nothing")


def _unpacked(data: bytes) -> bytes:
    for bits in (15, 31, -15):
        with contextlib.suppress(zlib.error):
            return zlib.decompress(data, bits)
    return b""


@functools.cache
def _authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    return _signed("the test's authority", key, None), key


@functools.cache
def certificate(*names: str) -> Path:
    """A file with the hosts' key and certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    signed = _signed("hosts", key, _authority(), names or NAMES)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    with tempfile.NamedTemporaryFile(suffix=".pem", delete=False) as file:
        file.write(key.private_bytes(*form) + signed.public_bytes(serialization.Encoding.PEM))
    return Path(file.name)


def trusting() -> ssl.SSLContext:
    """Believes the test's authority, as the daemon does those of its machine."""
    return ssl.create_default_context(cadata=authority_pem())


def authority_pem() -> str:
    return _authority()[0].public_bytes(serialization.Encoding.PEM).decode()


def _signed(
    name: str, key: ec.EllipticCurvePrivateKey, by: Any, names: Sequence[str] = ()
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer, issuer_key = (by[0].subject, by[1]) if by else (subject, key)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if by:
        named = [egress_authority._alternative(one) for one in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(named), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
