"""Which extended attributes of a file are carried, where the file system keeps any."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.runtime.launcher import attributes, tars


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        os.setxattr(fd, "user.try", b"")
    except OSError:
        pytest.skip("this file system keeps no attributes")
    yield fd
    os.close(fd)


def test_its_owners_are_carried_as_they_are(file: int) -> None:
    os.setxattr(file, "user.mine", b"\0\xff = \n")
    os.setxattr(file, "user.a=b", b"x")
    found = attributes.Found(file)
    assert dict(found.own) == {"user.try": b"", "user.mine": b"\0\xff = \n"}
    assert found.left == ["an attribute with = in its name is left out"]
    stream = tars.header(tars.Member("file", tars.FILE, attributes=found.own)) + tars.END
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        at += size
        return stream[at - size : at]

    member = tars.Reader(read).next()
    assert member is not None and dict(member.attributes) == dict(found.own)


def test_too_many_are_told_and_left_out(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "_MOST_BYTES", 100)
    os.setxattr(file, "user.much", bytes(100))
    found = attributes.Found(file)
    assert found.own == () and found.left == ["its attributes are 117 bytes, and are left out"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set what is not its owner's")
def test_what_the_kernel_reads_is_named_and_never_given(file: int) -> None:
    os.setxattr(file, "trusted.it", b"x")
    assert attributes.Found(file).left == ["its trusted.it is left out"]
    attributes.give(file, (("trusted.other", b"x"), ("user.other", b"y")))
    assert "trusted.other" not in os.listxattr(file) and os.getxattr(file, "user.other") == b"y"
