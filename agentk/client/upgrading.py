"""Connections to the daemon that become something else than HTTP, and sockets of ours that lead to them.

A socket that we listen on is the owner's alone: 0600, made under another name and put in its place in one step, never
through a link, and never in place of what somebody else made or listens on.
"""

import contextlib
import errno
import os
import secrets
import socket
import stat
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from agentk.api import errors
from agentk.client import wire

_PATH_MAX = 107  # bytes in sun_path, less its NUL
_BACKLOG = 128
_HEAD_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024
_ANSWER_SECONDS = 60.0
_UCRED = struct.Struct("iII")


def upgrade(
    daemon: Path, target: str, protocol: str, headers: Mapping[str, str] | None = None
) -> socket.socket:
    """A connection on which `protocol` is spoken from here on. Raises what the daemon's Status stands for."""
    opened = wire.open_socket(daemon, _ANSWER_SECONDS)
    try:
        told = {"Host": "agentk", "Connection": "Upgrade", "Upgrade": protocol, **(headers or {})}
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
        opened.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
        answer = b""
        while b"\r\n\r\n" not in answer:
            # A byte at a time: what follows the head is not ours to read. It is short, and read once.
            more = opened.recv(1)
            if not more or len(answer) > _HEAD_BYTES:
                raise wire.Cut("the daemon closed the connection without an answer")
            answer += more
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise _refused(opened, answer)
    except TimeoutError:
        opened.close()
        raise errors.Timeout("the daemon did not answer in time", hint="agentk daemon status") from None
    except OSError as error:
        opened.close()
        raise wire.Cut(f"the connection to the daemon broke: {error}") from None
    except BaseException:
        opened.close()
        raise
    opened.settimeout(None)
    return opened


def _refused(opened: socket.socket, head: bytes) -> errors.AgentkError:
    import json

    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    left, body = min(int(headers.get("content-length", "0")), _HEAD_BYTES), b""
    while len(body) < left and (data := opened.recv(left - len(body))):
        body += data
    with contextlib.suppress(ValueError):
        status = json.loads(body)
        if isinstance(status, dict) and status.get("kind") == "Status":
            return errors.from_status(status)
    return wire.Cut(f"this is no answer: {lines[0][:80]}")


class Bridge:
    """Listens on one path, and leads every connection of our own uid to one that `connect` opens."""

    def __init__(self, path: Path, connect: Callable[[], socket.socket]) -> None:
        """Raises Invalid, Forbidden or AlreadyExists when the path cannot be ours."""
        self.path = path
        self._connect = connect
        self._listener, self._made = listen(path)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name=f"bridge {path}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Hangs up on everybody and takes the socket away, if it is still ours. Safe to call again."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()
        with contextlib.suppress(OSError):
            seen = self.path.lstat()
            if (seen.st_dev, seen.st_ino) == self._made:
                self.path.unlink()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _is_closed(self) -> bool:
        return self._closed

    def _accept(self) -> None:
        while not self._closed:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                continue
            if _uid(caller) != os.getuid():
                caller.close()
                continue
            threading.Thread(target=self._serve, args=(caller,), name="bridged", daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        """One caller, to its end."""
        try:
            upstream = self._connect()
        except errors.AgentkError:
            caller.close()
            return
        with caller, upstream:
            with self._lock:
                self._open |= {caller, upstream}
                closed = self._is_closed()
            if closed:
                return
            back = threading.Thread(target=_pump, args=(upstream, caller), name="bridged back", daemon=True)
            back.start()
            _pump(caller, upstream)
            back.join()
            with self._lock:
                self._open -= {caller, upstream}


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Copies until the source ends, and says so to the sink; a sink that is gone ends the source too."""
    try:
        while data := source.recv(_CHUNK_BYTES):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def listen(path: Path) -> tuple[socket.socket, tuple[int, int]]:
    """A listening socket at `path`, 0600, and the device and inode of its file."""
    if len(os.fsencode(path)) > _PATH_MAX:
        raise errors.Invalid(f"the socket path is too long: {path}: at most {_PATH_MAX} bytes")
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.Invalid(f"{path.parent}: {error.strerror}") from None
    try:
        mode = os.fstat(folder).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise errors.Forbidden(
                f"everybody may replace what is in {path.parent}",
                hint=f"chmod o-w {path.parent}, or another path",
            )
        _check_free(path, folder)
        return _bound(path, folder)
    finally:
        os.close(folder)


def _check_free(path: Path, folder: int) -> None:
    try:
        seen = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(seen.st_mode):
        raise errors.AlreadyExists(
            f"{path} is in the way: it is no socket", hint=f"move it away: mv {path} …"
        )
    if seen.st_uid != os.getuid():
        raise errors.Forbidden(f"{path} belongs to uid {seen.st_uid}", hint="choose another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(f"/proc/self/fd/{folder}/{path.name}")
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return  # what an ended process left
            if error.errno not in (errno.EAGAIN, errno.EINPROGRESS):
                raise
    raise errors.AlreadyExists(f"somebody already listens on {path}", hint="choose another --socket")


def _bound(path: Path, folder: int) -> tuple[socket.socket, tuple[int, int]]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fresh = f".agentk-{secrets.token_hex(4)}"
    try:
        os.fchmod(listener.fileno(), 0o600)  # Linux gives the file the mode of the unbound socket
        listener.bind(f"/proc/self/fd/{folder}/{fresh}")
        try:
            seen = os.stat(fresh, dir_fd=folder, follow_symlinks=False)
            listener.listen(_BACKLOG)
            os.rename(fresh, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(fresh, dir_fd=folder)
            raise
    except OSError as error:
        listener.close()
        raise errors.Forbidden(f"cannot make {path}: {error.strerror}") from None
    except BaseException:
        listener.close()
        raise
    return listener, (seen.st_dev, seen.st_ino)


def _uid(caller: socket.socket) -> int:
    told = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(told)[1])
