"""Sockets of ours: whose they are, what they replace, and what goes through them."""

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.client import upgrading


def echo() -> socket.socket:
    """An end of a pair whose other end gives back what it reads."""
    ours, other = socket.socketpair()

    def answer() -> None:
        with other:
            while data := other.recv(1000):
                other.sendall(data)

    threading.Thread(target=answer, daemon=True).start()
    return ours


def said(path: Path, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(1000), b""))


def test_bytes_go_both_ways_and_ends_are_told(tmp_path: Path) -> None:
    bridge = upgrading.Bridge(tmp_path / "s", echo)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    bridge.start()
    assert said(tmp_path / "s", b"x" * 100_000) == b"x" * 100_000
    bridge.close()
    bridge.close()
    assert not list(tmp_path.iterdir())


def test_a_caller_is_let_go_when_the_daemon_refuses(tmp_path: Path) -> None:
    def refuse() -> socket.socket:
        raise errors.Unavailable("no")

    bridge = upgrading.Bridge(tmp_path / "s", refuse)
    bridge.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "s"))
        assert sock.recv(1) == b""
    bridge.close()


def test_what_ended_left_is_replaced_and_what_listens_is_not(tmp_path: Path) -> None:
    listener, _ = upgrading.listen(tmp_path / "s")
    with pytest.raises(errors.AlreadyExists, match="somebody already listens"):
        upgrading.listen(tmp_path / "s")
    listener.close()
    again, _ = upgrading.listen(tmp_path / "s")
    again.close()


def test_another_socket_in_its_place_is_left_there(tmp_path: Path) -> None:
    bridge = upgrading.Bridge(tmp_path / "s", echo)
    os.rename(tmp_path / "s", tmp_path / "old")
    other, _ = upgrading.listen(tmp_path / "s")
    bridge.start()
    bridge.close()
    assert (tmp_path / "s").exists()
    other.close()
