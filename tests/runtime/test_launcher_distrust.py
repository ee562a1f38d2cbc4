"""A launcher that holds root, and a daemon that is somebody else's by now: what it asks for must not lead anywhere."""

import base64
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.runtime import box
from agentk.runtime.launcher import asking, checking, exec_sibling, wire
from tests.runtime import launching
from tests.runtime.launching import Place

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's launcher has no more rights")
BOUNDS = checking.Bounds(Path("/var/lib/agentk"), Path("/run/agentk"), range(1001, 1010))
FINE = box.Box(
    "u-1", "u", "default", 1, ("true",), host_uid=1001, mounts=(box.Mount("workspace", "/workspace"),)
)


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


def refused(**told: Any) -> str:
    """Why a box that is fine but for this, as the daemon sends it, is not made."""
    with pytest.raises((errors.Invalid, errors.BadRequest)) as caught:
        checking.check(wire.box_from({**wire.plain(FINE), **told}), BOUNDS)
    return str(caught.value)


def mount(**told: Any) -> list[dict[str, Any]]:
    return [{"kind": "bind", "target": "/mnt/x", "source": "/srv", **told}]


def test_a_usual_box_is_made() -> None:
    checking.check(wire.box_from(wire.plain(FINE)), BOUNDS)


@pytest.mark.parametrize(
    "source", ["/proc", "//proc", "//var/lib/agentk/boxes", "/", "//", "/srv/../proc", "srv", "/run/agentk"]
)
def test_our_own_and_the_kernels_files_are_no_source(source: str) -> None:
    assert "mounts.source" in refused(mounts=mount(source=source))


@pytest.mark.parametrize("target", ["/etc", "//etc", "//proc", "/", "//", "/opt/agentk/bin", "/mnt/.."])
def test_what_makes_the_box_a_box_is_no_target(target: str) -> None:
    assert "mounts.target" in refused(mounts=mount(target=target))


@pytest.mark.parametrize("target", ["/workspace/x", "/srv/a/b"])
def test_no_mount_is_made_inside_of_another(target: str) -> None:
    """The agent, or whoever writes there, could make the place a link to elsewhere."""
    assert "inside of another" in refused(mounts=mount(target="/srv/a") + mount(target=target))


@pytest.mark.parametrize(
    "told",
    [
        {"mounts": mount(kind="workspace", target="/workspace", size_bytes="../../evil")},
        {"mounts": mount(kind="workspace", target="/workspace", size_bytes=-1)},
        {"mounts": mount(read_only="no")},
        {"mounts": mount(files=["a"])},
        {"mounts": mount(kind=["bind"])},
        {"env": ["A"]},
        {"env": {"A": 1}},
        {"annotations": {"a": {"b": {}}}},
        {"prefix": 5},
        {"prefix": "//"},
        {"prefix": "/usr/../root"},
        {"log": {"max_files": 1 << 40}},
        {"host_uid": 0},
        {"host_uid": True},
    ],
    ids=str,
)
def test_every_field_is_of_its_kind(told: dict[str, Any]) -> None:
    assert refused(**told).startswith("box.")


def ask(there: Place, verb: str, **fields: Any) -> dict[str, Any]:
    return asking.ask(there.socket, {"verb": verb, **fields})


def output(told: dict[str, Any]) -> str:
    return base64.b64decode(told["stdout"]).decode() + base64.b64decode(told["stderr"]).decode()


@pytest.mark.parametrize("after", [b"{}\n", b"rubbish\n"])
def test_descriptors_that_no_message_promised_are_closed(after: bytes) -> None:
    inbox = wire.Inbox()
    pipes = [os.pipe() for _ in range(wire.FDS_A_MESSAGE)]
    fds = [fd for pipe in pipes for fd in pipe]
    with pytest.raises(errors.AgentkError):
        inbox.feed(b'{"fds": 2}\n' + after, fds)
    inbox.close()
    assert not any(os.path.exists(f"/proc/self/fd/{fd}") for fd in fds)


@needs_root
@pytest.mark.jail
@pytest.mark.skipif(bool(launching.why_no_jail()), reason=launching.why_no_jail() or "-")
def test_the_root_directory_is_no_python_prefix(there: Place) -> None:
    with pytest.raises(errors.AgentkError, match="Python prefix"):
        ask(there, "start", box=wire.plain(there.make("true", uid="root", prefix="/")))


@needs_root
def test_a_command_without_a_jail_is_not_given_the_hosts_files(there: Place) -> None:
    """The files of a mount are read back from where they were put, not from that place on the host."""
    folder = str(there.state)
    Path(folder, "secret").write_text("the host's own")
    files = {"secret": base64.b64encode(b"the box's own").decode()}
    wanted = there.make("sleep", "1000", uid="back", runtime="process", cwd=folder)
    wanted = replace(wanted, mounts=(box.Mount("files", folder, files=files),), enforcement="BestEffort")
    ask(there, "start", box=wire.plain(wanted))
    said = output(ask(there, "exec", box_id=wanted.id, argv=["cat", "secret"], timeout_seconds=30))
    ask(there, "remove", box_id=wanted.id)
    assert said == "the box's own"


@needs_root
def test_no_link_leads_a_process_into_a_closed_directory(there: Place) -> None:
    closed = there.state / "closed"
    (closed / "open").mkdir(parents=True)
    closed.chmod(0o700)
    source = there.state / "store" / "sources" / "linked"
    source.mkdir(parents=True)
    (source / "link").symlink_to(closed / "open")
    wanted = there.make("pwd", uid="linked", runtime="process", cwd="/app/link")
    wanted = replace(
        wanted, mounts=(box.Mount("bind", "/app", source=str(source)),), enforcement="BestEffort"
    )
    with pytest.raises(errors.RuntimeRefused):
        ask(there, "start", box=wire.plain(wanted))


@pytest.mark.parametrize(("name", "stranger"), [("ours", 1), ("link", 0), ("fifo", 0)])
def test_only_files_of_the_boxs_uid_are_read_back(tmp_path: Path, name: str, stranger: int) -> None:
    (tmp_path / "ours").write_text("x")
    (tmp_path / "link").symlink_to("ours")
    os.mkfifo(tmp_path / "fifo")
    root = os.open(tmp_path, os.O_PATH)
    try:
        assert exec_sibling._read_beneath(root, "ours", os.geteuid(), 100) == b"x"
        with pytest.raises(OSError):
            exec_sibling._read_beneath(root, name, os.geteuid() + stranger, 100)
    finally:
        os.close(root)
