"""The raw calls, each tried on the real kernel in a forked child."""

import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from agentk.runtime import kernel

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def in_child(work: Callable[[], object]) -> int:
    """Exit status of `work` in a forked child: 0 when it returned."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_mount_raises_the_kernels_errno() -> None:
    with pytest.raises(FileNotFoundError):
        kernel.mount("none", "/does/not/exist", "tmpfs")


@pytest.mark.root
@as_root
def test_tmpfs_mounted_in_a_private_namespace_is_gone_outside(tmp_path: Path) -> None:
    def work() -> None:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("tmpfs", tmp_path, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m")
        (tmp_path / "inside").write_text("x")
        assert os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize == 1 << 20

    assert in_child(work) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
@as_root
def test_detached_mount_can_be_attached_in_another_namespace(tmp_path: Path) -> None:
    kernel.mount("tmpfs", tmp_path, "tmpfs", kernel.MS_NOSUID, "size=1m")
    try:
        tree = kernel.open_tree(tmp_path)
    finally:
        kernel.umount(tmp_path)

    def work() -> None:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.move_mount(tree, tmp_path)
        (tmp_path / "inside").write_text("x")

    try:
        assert in_child(work) == 0
        assert list(tmp_path.iterdir()) == []
    finally:
        os.close(tree)


@pytest.mark.root
@as_root
def test_loopback_comes_up_in_a_new_network_namespace() -> None:
    def work() -> None:
        kernel.unshare(kernel.CLONE_NEWNET)
        kernel.loopback_up()
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=2).close()

    assert in_child(work) == 0


@pytest.mark.root
@as_root
def test_setns_enters_a_namespace_by_descriptor() -> None:
    here = os.open("/proc/self/ns/uts", os.O_RDONLY)

    def work() -> None:
        kernel.unshare(kernel.CLONE_NEWUTS)
        assert Path("/proc/self/ns/uts").readlink() != Path(f"/proc/{os.getppid()}/ns/uts").readlink()
        kernel.setns(here, kernel.CLONE_NEWUTS)
        assert Path("/proc/self/ns/uts").readlink() == Path(f"/proc/{os.getppid()}/ns/uts").readlink()

    try:
        assert in_child(work) == 0
    finally:
        os.close(here)


def test_prctl_sets_no_new_privs() -> None:
    def work() -> None:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        assert kernel.prctl(kernel.PR_GET_NO_NEW_PRIVS) == 1

    assert in_child(work) == 0


def test_boot_id_is_a_uuid() -> None:
    assert len(kernel.boot_id()) == 36
