"""What the launcher, which holds root, refuses whatever the daemon says; and how it tells an end."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.runtime import box
from agentk.runtime.launcher import checking, reaping

BOUNDS = checking.Bounds(Path("/var/lib/agentk"), Path("/run/agentk"), range(1000, 2000))
GOOD = box.Box(id="u-1", uid="u", namespace="default", attempt=1, argv=("true",), host_uid=1001)
COUNTED = box.Counters()
NOW = "2026-01-02T03:04:05.000000Z"


def bind(source: str, target: str = "/x", read_only: bool = True) -> box.Mount:
    return box.Mount("bind", target, source=source, read_only=read_only)


def test_a_plain_box_is_good() -> None:
    checking.check(GOOD, BOUNDS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "../x"),
        ("id", ""),
        ("id", "a/b"),
        ("uid", "../../etc"),
        ("namespace", "../x"),
        ("namespace", "A"),
        ("leaf", "../keeper"),
        ("leaf", "Box"),
        ("hostname", "a b"),
        ("host_uid", 0),
        ("host_uid", 2000),
        ("host_uid", -1),
        ("argv", ()),
        ("argv", ("",)),
        ("argv", ("a\0b",)),
        ("argv", ("x" * 2_000_000,)),
        ("cwd", "relative"),
        ("cwd", "/a/../b"),
        ("env", {"A=B": "c"}),
        ("env", {"A": "b\0c"}),
        ("env", {"BASH_FUNC_echo%%": "() { :; }"}),
        ("runtime", "host"),
        ("seccomp", "none"),
        ("seccomp", "../../x"),
        ("enforcement", "Maybe"),
        ("tmp_bytes", -1),
        ("limits", box.Limits(pids=0)),
        ("limits", box.Limits(memory_bytes=1 << 63)),
        ("mounts", (box.Mount("workspace", "/"),)),
        ("mounts", (box.Mount("tmpfs", "/t"),)),
        ("mounts", (box.Mount("files", "/f", files={"../x": ""}),)),
        ("mounts", (box.Mount("files", "/f", files={"/x": ""}),)),
        ("mounts", (box.Mount("files", "/f", files={"x": ""}, mode=0o4755),)),
        ("mounts", (box.Mount("device", "/f"),)),  # type: ignore[arg-type]
    ],
)
def test_what_leads_elsewhere_is_refused(field: str, value: Any) -> None:
    with pytest.raises(errors.Invalid):
        checking.check(dataclasses.replace(GOOD, **{field: value}), BOUNDS)


@pytest.mark.parametrize(
    "target",
    ["/proc", "/proc/self", "/dev/sda", "/etc", "/usr/bin", "/opt/agentk/bin", "/sys", "/tmp/clove.sock"],
)
def test_what_makes_the_box_a_box_cannot_be_covered(target: str) -> None:
    with pytest.raises(errors.Invalid):
        checking.check(dataclasses.replace(GOOD, mounts=(bind("/srv/data", target),)), BOUNDS)


@pytest.mark.parametrize(
    "source",
    [
        "/var/lib/agentk",
        "/var/lib/agentk/boxes",
        "/var/lib/agentk/store/state.db",
        "/var/lib/agentk/store/sources",
        "/run/agentk/doors/other",
        "/run/agentk-boxes/other/u-1",
        "/var/lib",
        "/",
        "/proc/1/root",
        "/sys/fs/cgroup",
        "/dev/mem",
        "/srv/../etc",
        "srv",
    ],
)
def test_sources_do_not_show_what_is_ours_or_the_kernels(source: str) -> None:
    with pytest.raises(errors.Invalid):
        checking.check(dataclasses.replace(GOOD, mounts=(bind(source),)), BOUNDS)


def test_a_staged_source_is_shown_read_only() -> None:
    source = "/var/lib/agentk/store/sources/abc"
    checking.check(dataclasses.replace(GOOD, mounts=(bind(source),)), BOUNDS)
    with pytest.raises(errors.Invalid):
        checking.check(dataclasses.replace(GOOD, mounts=(bind(source, read_only=False),)), BOUNDS)


def test_a_persons_boxes_have_its_own_uid() -> None:
    bounds = dataclasses.replace(BOUNDS, uids=range(0))
    checking.check(dataclasses.replace(GOOD, host_uid=-1), bounds)
    with pytest.raises(errors.Invalid):
        checking.check(GOOD, bounds)


def test_no_link_is_followed_on_the_way_to_a_source(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.close(checking.open_beneath(str(tmp_path / "real" / "inner")))
    for path in ("link", "link/inner"):
        with pytest.raises(OSError, match=r"link|directory"):
            checking.open_beneath(str(tmp_path / path))


LOG = "[I][2026-01-01T00:00:00+0000] pid=12 ([STANDALONE MODE]) exited with status: 7, (PIDs left: 0)\n"
KILLED_LOG = "[I][x] pid=12 ([STANDALONE MODE]) terminated with signal: SIGKILL (9), (PIDs left: 0)\n"
REFUSED = (
    "[I][x] Mode: STANDALONE_ONCE\n"
    "[E][x][1] mountPt():45 no such place\n[F][x][1] runChild():506 Launching failed\n"
)


@pytest.mark.parametrize(
    ("status", "log", "intent", "expected"),
    [
        (7 << 8, "", None, (7, None, "wait")),
        ((128 + 15) << 8, "", None, (143, 15, "wait")),
        (9, "", None, (None, 9, "wait")),
        (255 << 8, LOG.replace("7", "255"), None, (255, None, "wait")),
        (None, LOG, None, (7, None, "log")),
        (None, KILLED_LOG, None, (137, 9, "log")),
        (None, "", box.Intent("Killed"), (None, None, "intent")),
        (None, "", None, (None, None, "none")),
    ],
)
def test_an_end_is_told_by_the_best_witness(
    status: int | None, log: str, intent: box.Intent | None, expected: tuple[int | None, int | None, str]
) -> None:
    ended = reaping.judge(status, log, intent, COUNTED, NOW)
    assert (ended.code, ended.signal, ended.source) == expected
    assert ended.intent == intent


def test_what_nsjail_refuses_is_told_in_its_words() -> None:
    assert reaping.judge(255 << 8, REFUSED, None, COUNTED, NOW).message == "no such place; Launching failed"


def test_an_oom_that_nobody_saw_is_told_by_the_counter() -> None:
    ended = reaping.judge(None, "", None, box.Counters(oom_kills=1), NOW)
    assert (ended.signal, ended.source) == (9, "counter")
