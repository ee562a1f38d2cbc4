"""HTTP/1.1 over a unix socket, as little of it as the daemon's API needs.

`http.client` would cost every command 25 ms of imports. One connection carries one exchange at a time; it is kept
for the next one when the whole answer was read.
"""

import io
import os
import select
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agentk.api import errors

HEADERS_MAX = 200
CHUNK_BYTES = 64 * 1024
# Repeating these is harmless, so an idle connection that died under us is simply opened anew.
_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Down(errors.Unavailable):
    """Nobody listens on the socket: the daemon was never started, or has ended."""


class Cut(errors.Unavailable):
    """The daemon went away in the middle of an answer; whether it did what was asked is not known."""


@dataclass
class _Progress:
    """How far an answer is. Shared, so that connection and answer need not know each other in a circle."""

    finished: bool
    reusable: bool


class Response:
    """An answer whose body is still on the wire: use `read`, or iterate `chunks` or `lines`, once.

    `close` ends its connection: needed for a stream that is left before its end.
    """

    def __init__(self, stream: io.BufferedReader, method: str, close: Callable[[], None]) -> None:
        self._stream = stream
        self.close = close
        self.status = _status(stream)
        self.headers = _headers(stream)
        bodiless = method == "HEAD" or self.status in (204, 304) or self.status < 200
        self._chunked = not bodiless and "chunked" in self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length")
        self._left = 0 if bodiless else int(length) if length and not self._chunked else None
        bounded = self._left is not None or self._chunked
        kept = self.headers.get("connection", "").lower() != "close"
        self.progress = _Progress(finished=self._left == 0, reusable=bounded and kept)

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes. Raises Cut when it ends too early."""
        try:
            yield from self._chunked_body() if self._chunked else self._plain_body()
        except TimeoutError:
            raise errors.Timeout("the daemon did not answer in time") from None
        except (OSError, ValueError) as error:
            raise Cut(f"the connection to the daemon broke: {error}") from None
        self.progress.finished = True

    def lines(self) -> Iterator[bytes]:
        """The body line by line, ends included; the last one may have none."""
        rest = b""
        for chunk in self.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line + b"\n"
        if rest:
            yield rest

    def _plain_body(self) -> Iterator[bytes]:
        left = self._left
        while left is None or left > 0:
            # read1: what is there already, so that a slow stream is seen at once
            data = self._stream.read1(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES))
            if not data:
                if left is None:
                    return
                raise Cut("the daemon went away in the middle of its answer")
            left = None if left is None else left - len(data)
            yield data

    def _chunked_body(self) -> Iterator[bytes]:
        while True:
            head = self._stream.readline(1024)
            if not head:
                raise Cut("the daemon went away in the middle of its answer")
            size = int(head.split(b";")[0], 16)
            if size == 0:
                break
            while size:
                data = self._stream.read1(min(size, CHUNK_BYTES))
                if not data:
                    raise Cut("the daemon went away in the middle of its answer")
                size -= len(data)
                yield data
            self._stream.readline(16)
        while self._stream.readline(CHUNK_BYTES).strip():
            pass  # trailers


class Connection:
    """One socket to the daemon, opened when first needed and again when the daemon closed it."""

    def __init__(self, path: Path, timeout_seconds: float | None) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._socket: socket.socket | None = None
        self._stream: io.BufferedReader | None = None
        self._last: _Progress | None = None

    def exchange(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Readable = b"",
        length: int = 0,
    ) -> Response:
        """Send one request and read the head of its answer. Raises Down, Cut or Timeout."""
        reused = self._still_good()
        try:
            return self._once(method, target, headers, body, length)
        except Cut:
            if not reused or method not in _REPEATABLE or not isinstance(body, bytes):
                raise
            self.close()
            return self._once(method, target, headers, body, length)

    def close(self) -> None:
        for part in (self._stream, self._socket):
            if part:
                part.close()
        self._socket = self._stream = self._last = None

    def __del__(self) -> None:
        self.close()  # a forgotten connection is closed, and not complained about

    def _still_good(self) -> bool:
        """Whether there is an open connection to go on with; closes one that is not."""
        if self._socket and self._last and self._last.finished and self._last.reusable:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN | select.POLLHUP)
            if not poll.poll(0):  # readable while nothing was asked means: closed by the daemon
                return True
        self.close()
        return False

    def _once(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | Readable, length: int
    ) -> Response:
        if self._socket is None:
            self._open()
        assert self._socket and self._stream
        size = len(body) if isinstance(body, bytes) else length
        lines = [f"{method} {target} HTTP/1.1", "Host: agentk"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if size < 0:
            lines.append("Transfer-Encoding: chunked")
        elif size or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {size}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
        try:
            self._send(head, body, chunked=size < 0)
            response = Response(self._stream, method, self.close)
        except TimeoutError:
            self.close()
            raise errors.Timeout("the daemon did not answer in time", hint="agentk daemon status") from None
        except (OSError, ValueError) as error:
            self.close()
            raise Cut(f"the connection to the daemon broke: {error}") from None
        self._last = response.progress
        return response

    def _send(self, head: bytes, body: bytes | Readable, *, chunked: bool) -> None:
        assert self._socket
        if isinstance(body, bytes):
            self._socket.sendall(head + body)
            return
        try:
            self._socket.sendall(head)
            while data := body.read(CHUNK_BYTES):
                self._socket.sendall(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            if chunked:
                self._socket.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was sent: the answer that says why is waiting to be read

    def _open(self) -> None:
        opened = open_socket(self._path, self._timeout_seconds)
        self._socket, self._stream = opened, io.BufferedReader(socket.SocketIO(opened, "r"), CHUNK_BYTES)


def open_socket(path: Path, timeout_seconds: float | None) -> socket.socket:
    """Connected to the daemon. Raises Down when nobody listens, and Forbidden for what is not to be trusted."""
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.settimeout(timeout_seconds)
    try:
        _connect(opened, path)
    except errors.Forbidden:
        opened.close()
        raise
    except (FileNotFoundError, ConnectionRefusedError) as error:
        opened.close()
        raise Down(
            f"the daemon is not running ({path}: {error.strerror})", hint="agentk daemon start"
        ) from None
    except PermissionError:
        opened.close()
        raise errors.Forbidden(
            f"not allowed to open {path}", hint="the daemon answers only the user who runs it"
        ) from None
    except OSError as error:
        opened.close()
        raise errors.Unavailable(f"cannot reach the daemon at {path}: {error}") from None
    return opened


def _connect(opened: socket.socket, path: Path) -> None:
    """Below /tmp another user may have made the directory first, and Secrets are sent here."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        seen = os.fstat(folder)
        if seen.st_uid not in (0, os.getuid()) or seen.st_mode & stat.S_IWOTH:
            raise errors.Forbidden(
                f"{path.parent} belongs to uid {seen.st_uid} or is open to others: what answers there is not trusted",
                hint="set AGENTK_RUN_DIR to a directory of your own",
            )
        opened.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _status(stream: io.BufferedReader) -> int:
    line = stream.readline(1024)
    if not line:
        raise Cut("the daemon closed the connection without an answer")
    parts = line.split()
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        raise Cut(f"this is not HTTP: {line[:80]!r}")
    return int(parts[1])


def _headers(stream: io.BufferedReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(HEADERS_MAX):
        line = stream.readline(CHUNK_BYTES).strip()
        if not line:
            return headers
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    raise Cut("the daemon sent too many headers")
