"""Whom a TLS client means to talk to: the server name in its ClientHello, out of bytes, without a socket.

Read strictly and bounded: what is no ClientHello of TLS is refused, because bytes that cannot be read cannot be
checked. The bytes themselves are never changed.
"""

from dataclasses import dataclass, field

from agentk.api.errors import Denied, Invalid
from agentk.broker import policy_hosts
from agentk.broker.egress import Target

_MOST = 64 * 1024  # of the handshake message; a post-quantum one is about 2 KiB
_RECORD_MOST = 16384 + 256
_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0


class _NotTls(Exception):
    """What was read is no ClientHello."""


@dataclass
class ClientHello:
    """Feed it what the client sends; it says whether the hello is complete. All bytes are kept in `seen`."""

    seen: bytearray = field(default_factory=bytearray)
    complete: bool = False
    server_name: str = ""  # as written; "" when the client names none
    _at: int = 0  # the next record begins here in `seen`
    _message: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> bool:
        """Whether the hello is complete now. Raises Denied for what is not TLS."""
        self.seen += data
        try:
            while self._record():
                if len(self._message) >= 4 and self._read():
                    self.complete = True
                    return True
            if len(self.seen) > 2 * _MOST:
                raise _NotTls("its hello has no end")
        except _NotTls as problem:
            raise Denied(
                f"a tunnel carries TLS only: {problem}", hint="other HTTP goes by http.request"
            ) from None
        return False

    def _record(self) -> bool:
        """Moves the next whole record's content to the message."""
        head = self.seen[self._at : self._at + 5]
        if head and head[0] != _HANDSHAKE:
            raise _NotTls("this is something else")
        if len(head) > 1 and head[1] != 3:
            raise _NotTls("not a version of TLS")
        if len(head) < 5:
            return False
        size = int.from_bytes(head[3:5], "big")
        if not 0 < size <= _RECORD_MOST:
            raise _NotTls("a record of a wrong size")
        if len(self.seen) < self._at + 5 + size:
            return False
        self._message += self.seen[self._at + 5 : self._at + 5 + size]
        self._at += 5 + size
        return True

    def _read(self) -> bool:
        size = int.from_bytes(self._message[1:4], "big")
        if self._message[0] != _CLIENT_HELLO or size > _MOST:
            raise _NotTls("it does not begin with a hello")
        if len(self._message) < 4 + size:
            return False
        self.server_name = _server_name(bytes(self._message[4 : 4 + size]))
        return True


def check(name: str, target: Target) -> None:
    """Raises Denied unless the hello is for the host the tunnel was asked for.

    With ECH the name in sight is all there is to check: it must be the host like any other, so a hidden second name
    reaches only what that same host serves.
    """
    try:
        same = policy_hosts.canonical(name) == target.host if name else _is_address(target.host)
    except Invalid:
        same = False
    if not same:
        told = f"for {name[:64]!r}" if name else "for no name"
        raise Denied(f"the tunnel is to {target.host}, its TLS is {told}")


def _server_name(hello: bytes) -> str:
    reader = _Reader(hello)
    reader.take(2 + 32)  # version, random
    reader.vector(1)  # session
    reader.vector(2)  # cipher suites
    reader.vector(1)  # compressions
    if reader.ended():
        return ""
    extensions = _Reader(reader.vector(2))
    if not reader.ended():
        raise _NotTls("bytes behind its hello")
    names: list[str] = []
    while not extensions.ended():
        kind, content = extensions.number(2), extensions.vector(2)
        if kind == _SERVER_NAME:
            names += _host_names(content)
    if len(names) > 1:
        raise _NotTls("it names several hosts")
    return names[0] if names else ""


def _host_names(content: bytes) -> list[str]:
    listed = _Reader(_Reader(content).vector(2))
    names: list[str] = []
    while not listed.ended():
        kind, name = listed.number(1), listed.vector(2)
        if kind != _HOST_NAME or not name or not name.isascii():
            raise _NotTls("a server name that is none")
        names.append(name.decode())
    return names


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def ended(self) -> bool:
        return self._at >= len(self._data)

    def take(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) < size:
            raise _NotTls("its hello breaks off")
        self._at += size
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()
