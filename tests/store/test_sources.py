"""Sources from the wire become directories, or are refused whole."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.store import sources

DIGEST = "sha256:" + "a" * 64


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o600) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def test_files_are_readable_by_everyone_and_writable_by_none_but_us(tmp_path: Path) -> None:
    made = sources.stage(
        tmp_path, DIGEST, archive((member("a/b.py"), b"x"), (member("run", mode=0o700), b"y"))
    )
    assert (made / "a" / "b.py").read_bytes() == b"x"
    assert (made / "a" / "b.py").stat().st_mode & 0o777 == 0o644
    assert (made / "run").stat().st_mode & 0o777 == 0o755


def test_staging_twice_gives_the_same_directory(tmp_path: Path) -> None:
    data = archive((member("a"), b"x"))
    assert sources.stage(tmp_path, DIGEST, data) == sources.stage(tmp_path, DIGEST, b"never read")


@pytest.mark.parametrize(
    "info",
    [
        member("../out"),
        member("/etc/passwd"),
        member("link", tarfile.SYMTYPE, "/etc/shadow"),
        member("link", tarfile.SYMTYPE, "../../x"),
        member("hard", tarfile.LNKTYPE, "other"),
        member("device", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name}-{info.linkname}",
)
def test_what_would_leave_the_directory_is_refused_whole(tmp_path: Path, info: tarfile.TarInfo) -> None:
    folder = tmp_path / "sources"
    with pytest.raises(errors.Invalid):
        sources.stage(folder, DIGEST, archive((info, b"")))
    assert list(folder.iterdir()) == [] and not (tmp_path / "out").exists()


def test_rubbish_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match="not a usable archive"):
        sources.stage(tmp_path, DIGEST, b"rubbish")


def test_a_small_archive_stays_small(tmp_path: Path) -> None:
    """One header of a kilobyte, packed, could ask for gigabytes of memory."""
    with pytest.raises(errors.Invalid, match="not a usable archive"):
        sources.stage(tmp_path, DIGEST, gzip.compress(archive((member("a"), b"x"))))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_of_headers_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = member("x", kind)
    info.size = tarfile.BLOCKSIZE
    header = info.tobuf(tarfile.GNU_FORMAT) + b"11 foo=bar\n".ljust(tarfile.BLOCKSIZE, b"\0")
    with pytest.raises(errors.Invalid):
        sources.stage(tmp_path, DIGEST, header * 2000 + archive((member("a"), b"x")))
    assert list(tmp_path.iterdir()) == []


def test_a_tower_of_directories_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match="deeper than"):
        sources.stage(tmp_path, DIGEST, archive((member("a/" * 1500 + "b"), b"x")))
    assert list(tmp_path.iterdir()) == []


def test_collect_removes_what_nobody_uses(tmp_path: Path) -> None:
    sources.stage(tmp_path, DIGEST, archive((member("a"), b"x")))
    other = "sha256:" + "b" * 64
    sources.stage(tmp_path, other, archive((member("a"), b"x")))
    assert sources.collect(tmp_path, [other]) == [DIGEST]
    assert os.listdir(tmp_path) == ["b" * 64]
