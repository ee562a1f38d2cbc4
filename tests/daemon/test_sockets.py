import os
import socket
import stat
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.daemon import sockets


def _run(tmp_path: Path) -> Path:
    return tmp_path / "run" / "a.sock"


def test_socket_is_0600_in_a_0700_directory(tmp_path: Path) -> None:
    path = _run(tmp_path)
    with sockets.bind(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert os.listdir(path.parent) == ["a.sock"]


def test_mode_is_narrow_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with sockets.bind(_run(tmp_path)):
            assert stat.S_IMODE(_run(tmp_path).stat().st_mode) == 0o600
    finally:
        os.umask(old)


def test_connecting_tells_the_peer(tmp_path: Path) -> None:
    with sockets.bind(_run(tmp_path)) as listener, socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(_run(tmp_path)))
        accepted, _ = listener.accept()
        with accepted:
            assert sockets.peer(accepted) == sockets.Peer(os.getpid(), os.getuid(), os.getgid())


def test_tcp_has_no_peer() -> None:
    with socket.socket() as tcp:
        assert sockets.peer(tcp) is None


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    sockets.bind(_run(tmp_path)).close()
    assert _run(tmp_path).exists()
    with sockets.bind(_run(tmp_path)), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(_run(tmp_path)))


def test_listening_socket_is_not_taken_over(tmp_path: Path) -> None:
    with sockets.bind(_run(tmp_path)), pytest.raises(errors.AlreadyExists):
        sockets.bind(_run(tmp_path))


def test_full_backlog_still_counts_as_listening(tmp_path: Path) -> None:
    path = _run(tmp_path)
    with sockets.bind(path) as listener:
        listener.listen(0)
        callers = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(str(path))
        with pytest.raises(errors.AlreadyExists):
            sockets.bind(path)
        for caller in callers:
            caller.close()


def test_file_in_the_way_is_kept(tmp_path: Path) -> None:
    _run(tmp_path).parent.mkdir(mode=0o700)
    _run(tmp_path).write_text("mine")
    with pytest.raises(errors.AlreadyExists, match="no socket"):
        sockets.bind(_run(tmp_path))
    assert _run(tmp_path).read_text() == "mine"


def test_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    _run(tmp_path).parent.mkdir()
    _run(tmp_path).parent.chmod(0o755)
    with pytest.raises(errors.Forbidden, match="0755"):
        sockets.bind(_run(tmp_path))


def test_long_path_is_refused_with_the_limit(tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match="too long"):
        sockets.bind(tmp_path / ("d" * 60) / ("s" * 60))


def test_only_a_listening_unix_socket_is_adopted(tmp_path: Path) -> None:
    listener = sockets.bind(_run(tmp_path))
    again = sockets.adopt(listener.detach())
    assert again.getsockname()
    again.close()
    read, write = os.pipe()
    with pytest.raises(errors.Invalid):
        sockets.adopt(read)
    os.close(read)
    os.close(write)
