"""What gets into an archive, what never does, and that equal files give equal digests."""

import os
import socket
import tarfile
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.client import packing
from agentk.store import sources


def digest(root: Path) -> str:
    with packing.pack(root) as packed:
        return packed.digest


def names(root: Path) -> tuple[str, ...]:
    with packing.pack(root) as packed:
        return packed.names


def tree(root: Path, *files: str) -> Path:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    return root


def test_same_files_give_the_same_digest_whatever_their_times_and_order(tmp_path: Path) -> None:
    one = tree(tmp_path / "one", "a/x.py", "b.py")
    two = tree(tmp_path / "two", "b.py", "a/x.py")
    os.utime(one / "b.py", (1, 1))
    os.chmod(two / "b.py", 0o600)
    assert digest(one) == digest(two)


def test_content_name_and_executable_bit_change_the_digest(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.py")
    digests = {digest(root)}
    (root / "a.py").chmod(0o755)
    digests.add(digest(root))
    (root / "a.py").write_text("other")
    digests.add(digest(root))
    (root / "a.py").rename(root / "b.py")
    assert len(digests | {digest(root)}) == 4


def test_the_archive_says_nothing_of_its_maker(tmp_path: Path) -> None:
    with packing.pack(tree(tmp_path, "a.py")) as packed, tarfile.open(fileobj=packed.file) as tar:
        member = tar.getmembers()[0]
    assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)


def test_the_store_stages_what_was_packed(tmp_path: Path) -> None:
    root = tree(tmp_path / "src", "main.py", "pkg/mod.py", "run.sh")
    (root / "run.sh").chmod(0o700)
    (root / "link.py").symlink_to("pkg/mod.py")
    with packing.pack(root) as packed:
        staged = sources.stage(tmp_path / "staged", packed.digest, packed.file.read())
    assert (staged / "link.py").read_text() == "text of pkg/mod.py"
    assert (staged / "run.sh").stat().st_mode & 0o777 == 0o755


def test_a_single_file_is_a_source_too(tmp_path: Path) -> None:
    assert names(tree(tmp_path, "main.py") / "main.py") == ("main.py",)


def test_rubbish_stays_at_home(tmp_path: Path) -> None:
    root = tree(tmp_path, "main.py", ".git/config", "pkg/__pycache__/m.pyc", ".venv/bin/x", "pkg/m.py")
    assert names(root) == ("main.py", "pkg", "pkg/m.py")


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("*.log", {"data", "data/big.bin", "data/deep", "data/deep/y.txt", "keep.txt"}),
        ("data/", {"a.log", "keep.txt"}),
        ("/data", {"a.log", "keep.txt"}),
        ("deep", {"a.log", "data", "data/a.log", "data/big.bin", "keep.txt"}),
        ("data/*.bin", {"a.log", "data", "data/a.log", "data/deep", "data/deep/y.txt", "keep.txt"}),
        ("**/y.txt", {"a.log", "data", "data/a.log", "data/big.bin", "data/deep", "keep.txt"}),
        ("*\n!keep.txt", {"keep.txt"}),
        ("# data\n\n[ak]*", {"data", "data/big.bin", "data/deep", "data/deep/y.txt"}),
    ],
)
def test_agentkignore_leaves_out_what_it_names(tmp_path: Path, line: str, left: set[str]) -> None:
    root = tree(tmp_path, "a.log", "keep.txt", "data/a.log", "data/big.bin", "data/deep/y.txt")
    (root / ".agentkignore").write_text(line + "\n")
    assert set(names(root)) == left


def test_agentkignore_can_take_back_a_built_in_rule(tmp_path: Path) -> None:
    root = tree(tmp_path, ".venv/x")
    (root / ".agentkignore").write_text("!.venv\n")
    assert names(root) == (".venv", ".venv/x")


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "pkg/../../outside"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, target: str) -> None:
    root = tree(tmp_path / "src", "pkg/m.py")
    (root / "bad").symlink_to(target)
    with pytest.raises(errors.Invalid, match="outside"):
        packing.pack(root)


def test_a_socket_is_refused_by_name(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "s"))
        with pytest.raises(errors.Invalid, match="is a socket"):
            packing.pack(tmp_path)


def test_a_fifo_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    with pytest.raises(errors.Invalid, match="is a FIFO"):
        packing.pack(tmp_path)


def test_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(packing.MAX_BYTES + 1)
    with pytest.raises(errors.TooLarge, match="the largest file is huge"):
        packing.pack(tmp_path)


def test_a_missing_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match="does not exist"):
        packing.pack(tmp_path / "nowhere")
