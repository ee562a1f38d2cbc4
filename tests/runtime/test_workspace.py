"""Real file systems, filled to the brim by real children that hold no rights."""

import errno
import os
import socket
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentk.runtime import kernel, workspace, workspace_image, workspace_quota, workspace_removal
from tests.runtime import podmans

MIB = 1024 * 1024
GUEST = 1_900_000_017
rooted = os.geteuid() == 0
as_root = pytest.mark.skipif(not rooted, reason="needs root")


def in_child(act: Callable[[], object]) -> int:
    """Exit status of `act` in a forked child: 0 when it returned."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_box(spaces: workspace.Workspaces, uid: str, act: Callable[[Path], object], target: Path) -> int:
    """Run `act` as the guest in a mount namespace where the workspace is at `target`."""

    def enter() -> None:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        spaces.attach(uid, target)
        os.chdir(target)
        os.setresgid(GUEST, GUEST, GUEST)
        os.setresuid(GUEST, GUEST, GUEST)
        act(Path())

    return in_child(enter)


def fill(here: Path) -> None:
    """Write until the kernel refuses; the refusal must be about space."""
    written = 0
    with (here / "big").open("wb", buffering=0) as file:
        try:
            while written < 64 * MIB:
                written += file.write(b"x" * MIB)
        except OSError as error:
            assert error.errno in (errno.ENOSPC, errno.EDQUOT)
            assert 7 * MIB <= written <= 9 * MIB, written
            return
    raise AssertionError("nothing was refused")


@pytest.fixture
def spaces(tmp_path: Path) -> Iterator[workspace.Workspaces]:
    opened = workspace.Workspaces(tmp_path / "state", root=rooted)
    yield opened
    opened.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


@pytest.fixture(params=["image", "tmpfs"])
def medium(
    request: pytest.FixtureRequest, spaces: workspace.Workspaces, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Each medium that enforces, alone."""
    if not rooted:
        pytest.skip("needs root")
    others = {"quota", "image", "tmpfs"} - {request.param}
    if request.param == "image" and (why := workspace_image.why_not(spaces._base / "try")):
        pytest.skip(why)
    spaces._why.update(dict.fromkeys(others, "not in this test"))
    return str(request.param)


@pytest.mark.root
def test_a_full_workspace_is_refused_by_the_kernel(
    spaces: workspace.Workspaces, medium: str, target: Path
) -> None:
    made = spaces.ensure("a", GUEST, 8 * MIB)
    assert (made.medium, made.unenforced) == (medium, "")
    assert in_box(spaces, "a", fill, target) == 0


@pytest.mark.root
def test_files_outlive_the_box_and_not_the_agent(
    spaces: workspace.Workspaces, medium: str, target: Path
) -> None:
    spaces.ensure("a", GUEST, 8 * MIB)
    assert in_box(spaces, "a", lambda here: (here / "kept").write_text("x"), target) == 0
    assert spaces.ensure("a", GUEST, 8 * MIB).medium == medium
    assert in_box(spaces, "a", lambda here: (here / "kept").read_text(), target) == 0
    spaces.remove("a")
    spaces.ensure("a", GUEST, 8 * MIB)
    assert in_box(spaces, "a", lambda here: (here / "kept").read_text(), target) == 1


@pytest.mark.root
def test_two_boxes_at_once_see_the_same_files(
    spaces: workspace.Workspaces, medium: str, target: Path
) -> None:
    spaces.ensure("a", GUEST, 8 * MIB)

    def outer(here: Path) -> None:
        (here / "from-outer").write_text("x")
        ready.send(b"1")
        assert done.recv(1) == b"1"
        assert (here / "from-inner").read_text() == "y"

    ready, ready_here = socket.socketpair()
    done_here, done = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        os._exit(in_box(spaces, "a", outer, target))
    assert ready_here.recv(1) == b"1"

    def inner(here: Path) -> None:
        assert (here / "from-outer").read_text() == "x"
        (here / "from-inner").write_text("y")

    assert in_box(spaces, "a", inner, target) == 0
    done_here.send(b"1")
    assert os.waitpid(pid, 0)[1] == 0
    for end in (ready, ready_here, done, done_here):
        end.close()


@pytest.mark.root
def test_it_is_the_guests_empty_private_and_without_devices_or_setuid(
    spaces: workspace.Workspaces, medium: str, target: Path
) -> None:
    spaces.ensure("a", GUEST, 8 * MIB)

    def look(here: Path) -> None:
        assert os.listdir(here) == []
        stat = here.stat()
        assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o777) == (GUEST, GUEST, 0o700)
        flags = os.statvfs(here).f_flag
        assert flags & os.ST_NOSUID and flags & os.ST_NODEV

    assert in_box(spaces, "a", look, target) == 0


@pytest.mark.root
def test_what_is_used_is_told(spaces: workspace.Workspaces, medium: str, target: Path) -> None:
    spaces.ensure("a", GUEST, 8 * MIB)
    before = spaces.used_bytes("a") or 0

    def write(here: Path) -> None:
        (here / "file").write_bytes(os.urandom(3 * MIB))
        os.sync()

    assert in_box(spaces, "a", write, target) == 0
    assert (
        2.9 * MIB <= (spaces.used_bytes("a") or 0) - before < 4 * MIB
    )  # of disk blocks, some are not written yet


@pytest.mark.root
def test_no_mount_is_left_in_our_namespace(spaces: workspace.Workspaces, medium: str, target: Path) -> None:
    before = podmans.mounts_besides_podmans()
    spaces.ensure("a", GUEST, 8 * MIB)
    assert in_box(spaces, "a", lambda here: None, target) == 0
    assert podmans.mounts_besides_podmans() == before


@pytest.mark.root
def test_a_larger_size_keeps_the_files_and_lets_more_in(
    spaces: workspace.Workspaces, medium: str, target: Path
) -> None:
    spaces.ensure("a", GUEST, 4 * MIB)
    assert in_box(spaces, "a", lambda here: (here / "kept").write_bytes(bytes(3 * MIB)), target) == 0
    assert spaces.ensure("a", GUEST, 16 * MIB).unenforced == ""

    def more(here: Path) -> None:
        assert (here / "kept").stat().st_size == 3 * MIB
        (here / "more").write_bytes(bytes(8 * MIB))

    assert in_box(spaces, "a", more, target) == 0


@pytest.mark.root
def test_a_size_smaller_than_what_is_used_is_said_not_to_hold(
    spaces: workspace.Workspaces, medium: str, target: Path
) -> None:
    spaces.ensure("a", GUEST, 16 * MIB)
    assert in_box(spaces, "a", lambda here: (here / "kept").write_bytes(os.urandom(9 * MIB)), target) == 0
    assert spaces.ensure("a", GUEST, 4 * MIB).unenforced.startswith("storage: ")
    assert in_box(spaces, "a", lambda here: (here / "kept").read_bytes(), target) == 0


@pytest.mark.root
@as_root
def test_an_image_that_was_not_unmounted_is_mended(spaces: workspace.Workspaces, target: Path) -> None:
    spaces._why.update(quota="not here")
    if (made := spaces.ensure("a", GUEST, 8 * MIB)).medium != "image":
        pytest.skip(f"no images here: {made}")
    assert in_box(spaces, "a", lambda here: (here / "kept").write_text("x"), target) == 0
    assert not workspace_image._in_use(made.path, wait_seconds=5)
    image = made.path / workspace_image.IMAGE
    # not clean, and with a free-block count that is wrong, as after a power loss
    commands = "set_super_value state 0\nset_super_value free_blocks_count 7\n"
    subprocess.run(
        ["debugfs", "-w", "-f", "-", image], input=commands, text=True, check=True, capture_output=True
    )
    assert spaces.ensure("a", GUEST, 8 * MIB).unenforced == ""
    subprocess.run(["e2fsck", "-f", "-n", image], check=True, capture_output=True)
    assert in_box(spaces, "a", lambda here: (here / "kept").read_text(), target) == 0


@pytest.mark.root
@as_root
def test_a_tmpfs_outlives_its_launcher_when_the_holder_is_handed_on(
    spaces: workspace.Workspaces, target: Path, tmp_path: Path
) -> None:
    spaces._why.update(quota="not here")
    assert spaces.ensure("a", GUEST, 8 * MIB, ephemeral=True).medium == "tmpfs"
    assert in_box(spaces, "a", lambda here: (here / "kept").write_text("x"), target) == 0
    later = workspace.Workspaces(tmp_path / "state", root=True, holder_fd=os.dup(spaces.holder_fd))
    spaces.close()
    assert later.ensure("a", GUEST, 8 * MIB, ephemeral=True).medium == "tmpfs"
    assert in_box(later, "a", lambda here: (here / "kept").read_text(), target) == 0
    later.close()


@pytest.mark.root
@as_root
def test_project_quota_holds_where_the_file_system_has_it(tmp_path: Path) -> None:
    image, point, target = tmp_path / "disk", tmp_path / "disk-mounted", tmp_path / "target"
    tmp_path.chmod(0o755)
    image.touch()
    os.truncate(image, 64 * MIB)
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "quota,project", "-E", "quotatype=prjquota", image],
        check=True,
    )
    point.mkdir()
    target.mkdir()

    def story() -> None:
        spaces = workspace.Workspaces(point / "state", root=True)
        assert spaces.ensure("a", GUEST, 8 * MIB).medium == "quota"
        assert in_box(spaces, "a", fill, target) == 0
        assert 7 * MIB <= (spaces.used_bytes("a") or 0) <= 9 * MIB
        assert spaces.ensure("a", GUEST, 32 * MIB).unenforced == ""
        assert in_box(spaces, "a", lambda here: (here / "more").write_bytes(bytes(9 * MIB)), target) == 0
        spaces.remove("a")
        assert spaces.sweep(60)
        assert workspace_quota.used(point, GUEST) == 0
        spaces.close()

    tried = subprocess.run(["mount", "-o", "loop,prjquota", image, point], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"this kernel cannot enforce project quotas: {tried.stderr.strip()}")
    try:
        assert in_child(story) == 0
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_directory_says_that_nothing_holds_its_limit(spaces: workspace.Workspaces) -> None:
    spaces._why.update(quota="none", image="none", tmpfs="none")
    made = spaces.ensure("a", -1, 8 * MIB)
    assert made.medium == "directory" and made.path.is_dir()
    assert made.unenforced.startswith("storage: nothing here limits a directory (quota: none")


def test_no_limit_asked_for_is_none_missed(spaces: workspace.Workspaces) -> None:
    assert spaces.ensure("a", -1, None) == workspace.Workspace(spaces._base / "a" / "files", "directory", "")


def test_an_empty_directory_is_replaced_once_the_host_is_mended(spaces: workspace.Workspaces) -> None:
    why = spaces.why_not()["tmpfs"]
    if why:
        pytest.skip(why)
    spaces._why.update(quota="none", image="none", tmpfs="none")
    assert spaces.ensure("a", -1, 8 * MIB).medium == "directory"
    spaces._why["tmpfs"] = ""
    assert spaces.ensure("a", -1, 8 * MIB) == workspace.Workspace(spaces._base / "a", "tmpfs", "")


def test_ensure_after_a_crash_half_way_makes_it_whole(spaces: workspace.Workspaces) -> None:
    (spaces._base / "a").mkdir()
    (spaces._base / "a" / "workspace.json").write_text('{"medium": "dir')
    assert spaces.ensure("a", -1, None).path.is_dir()
    assert spaces.listing() == ["a"]


def test_remove_is_repeatable_and_forgets(spaces: workspace.Workspaces) -> None:
    spaces.ensure("a", -1, 8 * MIB)
    spaces.remove("a")
    spaces.remove("a")
    assert spaces.listing() == [] and spaces.used_bytes("a") is None
    assert spaces.sweep(5)


@pytest.mark.parametrize("bad", ["", "..", ".trash", "a/b", "/etc", "a\n"])
def test_names_that_lead_elsewhere_are_refused(spaces: workspace.Workspaces, bad: str) -> None:
    with pytest.raises(ValueError, match="cannot name a workspace"):
        spaces.remove(bad)


def test_a_state_directory_others_can_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "workspaces").mkdir()
    (tmp_path / "workspaces").chmod(0o777)
    with pytest.raises(PermissionError, match="mode 0700"):
        workspace.Workspaces(tmp_path, root=rooted)


def test_removal_follows_no_link_and_minds_no_depth(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    guest = tmp_path / "guest"
    guest.mkdir()
    (guest / "to-folder").symlink_to(outside)
    (guest / "to-file").symlink_to(outside / "precious")
    here = os.open(guest, os.O_RDONLY)
    for _ in range(5000):  # far over PATH_MAX and the recursion limit
        os.mkdir("d", dir_fd=here)
        (below, here) = (here, os.open("d", os.O_RDONLY, dir_fd=here))
        os.close(below)
    os.close(here)
    workspace_removal.throw_away(guest, tmp_path / "trash")
    assert workspace_removal.sweep(tmp_path / "trash", 60)
    assert (outside / "precious").read_text() == "x"
    assert os.listdir(tmp_path / "trash") == []


def test_removal_takes_back_the_rights_a_guest_gave_up(tmp_path: Path) -> None:
    (tmp_path / "guest" / "a" / "b").mkdir(parents=True)
    (tmp_path / "guest" / "a" / "b" / "file").touch()
    for name in ("a/b", "a", ""):
        (tmp_path / "guest" / name).chmod(0)
    (tmp_path / "guest").chmod(0o700)
    workspace_removal.throw_away(tmp_path / "guest", tmp_path / "trash")
    assert workspace_removal.sweep(tmp_path / "trash", 60)


def test_removal_stops_when_its_time_is_up_and_goes_on_later(tmp_path: Path) -> None:
    (tmp_path / "guest").mkdir()
    for number in range(200):
        (tmp_path / "guest" / str(number)).touch()
    workspace_removal.throw_away(tmp_path / "guest", tmp_path / "trash")
    assert not workspace_removal.sweep(tmp_path / "trash", 0)
    assert workspace_removal.sweep(tmp_path / "trash", 60)


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A directory that an ordinary user reaches; pytest's own are root's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.jail
def test_without_root_a_limit_is_held_in_a_user_namespace(everybodys: Path) -> None:
    """Also as root, who gives everything up first."""
    (everybodys / "target").mkdir()

    def box(spaces: workspace.Workspaces) -> None:
        kernel.setns(spaces.users_fd, kernel.CLONE_NEWUSER)
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
        spaces.attach("a", everybodys / "target")
        fill(everybodys / "target")

    def launcher() -> None:
        if rooted:
            os.setresgid(GUEST, GUEST, GUEST)
            os.setresuid(GUEST, GUEST, GUEST)
            kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        spaces = workspace.Workspaces(everybodys / "state", root=False)
        assert spaces.ensure("a", -1, 8 * MIB) == workspace.Workspace(spaces._base / "a", "tmpfs", "")
        assert in_child(lambda: box(spaces)) == 0
        later = workspace.Workspaces(everybodys / "state", root=False, holder_fd=os.dup(spaces.holder_fd))
        spaces.close()
        assert 7 * MIB <= (later.used_bytes("a") or 0) <= 8 * MIB
        later.remove("a")
        assert later.used_bytes("a") is None
        later.close()

    assert in_child(launcher) == 0
