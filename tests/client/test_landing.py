"""What a box sends is hostile until proved otherwise."""

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agentk.api import errors
from agentk.client import landing, tars

Add = Callable[[tarfile.TarFile], None]


def tar(*members: tuple[str, str, bytes | str], form: int = tarfile.PAX_FORMAT, mode: int = 0o640) -> bytes:
    """(name, type, data or target) of each."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as made:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.mode = mode
            info.type = {"f": b"0", "d": b"5", "l": b"2", "h": b"1", "p": b"6", "c": b"3"}[kind]
            if isinstance(content, str):
                info.linkname = content
                made.addfile(info)
            else:
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return file.getvalue()


def land(data: bytes, folder: Path, name: str = "x", step: int = 1 << 20) -> landing.Landing:
    file = io.BytesIO(data)
    made = landing.Landing(folder, name)
    try:
        made.take(tars.Reader(lambda size: file.read(min(size, step))), lambda done: None)
    finally:
        made.close()
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("top", [".", "top"])
def test_a_tree_lands_with_its_modes(folder: Path, form: int, top: str) -> None:
    long = "/".join(["d" * 60] * 3)
    tree = [
        (top, "d", b""),
        (f"{top}/a", "f", b"one"),
        (f"{top}/{long}", "d", b""),
        (f"{top}/{long}/é", "f", b"x" * 1025),
    ]
    made = land(tar(*tree, (f"{top}/l", "l", "a"), (f"{top}/h", "h", f"{top}/a"), form=form), folder, step=7)
    assert (folder / "x" / "a").read_bytes() == b"one" == (folder / "x" / "l").read_bytes()
    assert (folder / "x" / "h").samefile(folder / "x" / "a")
    assert (folder / "x" / long / "é").stat().st_size == 1025
    assert stat.S_IMODE((folder / "x" / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((folder / "x" / long).stat().st_mode) == 0o640
    assert (made.files, made.bytes, made.left_out) == (4, 1028, [])


def test_one_file_gets_the_name_that_was_asked_for(folder: Path) -> None:
    land(tar(("deep", "f", b"1"), mode=0o6755), folder, "renamed")
    assert os.listdir(folder) == ["renamed"]
    assert stat.S_IMODE((folder / "renamed").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", "f", b"")],
        [("/evil", "f", b"")],
        [("t", "d", b""), ("t/../../evil", "f", b"")],
        [("t", "d", b""), ("other", "f", b"")],
        [("t", "d", b""), ("t/l", "l", "."), ("t/l/evil", "f", b"")],
        [("t", "d", b""), ("t/f", "f", b""), ("t/f/evil", "f", b"")],
        [("t", "d", b""), ("t/d", "d", b""), ("t/d", "f", b"")],
        [("t", "d", b""), ("t/f", "f", b""), ("t/f", "d", b"")],
        [("t", "d", b""), ("t/h", "h", "../../etc/passwd")],
        [("/".join(["d"] * 300), "f", b"")],
    ],
)
def test_what_leads_out_ends_the_copy(folder: Path, members: list[tuple[str, str, bytes | str]]) -> None:
    with pytest.raises(errors.BadRequest):
        land(tar(*members), folder)
    assert {path.name for path in folder.parent.iterdir()} == {"in"}


@pytest.mark.parametrize("target", ["/etc/passwd", "..", "../..", "d/../../..", "d/..", ""])
def test_links_that_could_lead_out_are_left_out(folder: Path, target: str) -> None:
    made = land(tar(("t", "d", b""), ("t/l", "l", target), ("t/f", "f", b"1")), folder)
    assert os.listdir(folder / "x") == ["f"]
    assert made.left_out[0][0] == "t/l"


def test_a_link_that_was_there_is_replaced_and_never_written_through(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.write_text("mine")
    (folder / "x").mkdir()
    (folder / "x" / "f").symlink_to(outside)
    (folder / "x" / "g").hardlink_to(outside)
    (folder / "x" / "d").symlink_to(folder.parent)
    land(tar(("t", "d", b""), ("t/f", "f", b"theirs"), ("t/g", "f", b"theirs")), folder)
    assert outside.read_text() == "mine" and not (folder / "x" / "f").is_symlink()
    with pytest.raises(errors.BadRequest):
        land(tar(("t", "d", b""), ("t/d/outside", "f", b"theirs")), folder)
    assert outside.read_text() == "mine"


def test_devices_and_pipes_are_left_out(folder: Path) -> None:
    made = land(tar(("t", "d", b""), ("t/p", "p", b""), ("t/c", "c", b""), ("t/h", "h", "t/p")), folder)
    assert os.listdir(folder / "x") == [] and len(made.left_out) == 3


def test_headers_that_say_they_are_long_are_not_read(folder: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", 1 << 40
    asked: list[int] = []

    def read(size: int) -> bytes:
        asked.append(size)
        return info.tobuf(tarfile.USTAR_FORMAT)[:size] if len(asked) == 1 else bytes(size)

    info.size = 1 << 30
    with pytest.raises(errors.BadRequest):
        list(tars.Reader(read).entries())
    assert sum(asked) == tars.BLOCK


def test_files_with_holes_are_refused(folder: Path) -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 60)}
    data = info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)
    with pytest.raises(errors.BadRequest, match="holes"):
        land(data, folder)


@pytest.mark.parametrize("cut", [1, 511, 600, 1100])
def test_what_is_cut_short_is_told(folder: Path, cut: int) -> None:
    with pytest.raises(errors.BadRequest, match=r"short|damaged"):
        land(tar(("x", "f", b"x" * 700))[:cut], folder)


@given(some.binary(max_size=2000), some.integers(0, 3000))
def test_damage_surprises_nobody(noise: bytes, at: int) -> None:
    data = bytearray(tar(("t", "d", b""), ("t/" + "n" * 200, "f", b"x" * 600), ("t/l", "l", "n")))
    data[at : at + len(noise)] = noise
    file = io.BytesIO(bytes(data))
    try:
        for _ in tars.Reader(file.read).entries():
            pass
    except errors.BadRequest:
        pass


@given(some.lists(some.sampled_from(["..", "a", "b", ".", ""]), max_size=6), some.integers(0, 3))
def test_a_link_that_is_made_stays_inside_whatever_other_links_do(parts: list[str], depth: int) -> None:
    target = "/".join(parts)
    if landing.stays_inside(target, depth):
        here = depth
        for part in parts:
            here = here - 1 if part == ".." else here if part in ("", ".") else 1 << 20
            assert here >= 0
