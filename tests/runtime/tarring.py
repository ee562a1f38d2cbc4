"""Tar streams in and out of boxes that run, made and looked into by Python's own tarfile."""

import asyncio
import contextlib
import fcntl
import io
import os
import struct
import tarfile
import termios
from collections.abc import Mapping
from typing import Any

from agentk.runtime import hands, jails
from tests.runtime import hand_rig


async def packed(runtime: jails.Jails, box_id: str, path: str) -> tuple[Mapping[str, Any], bytes]:
    read, write = os.pipe()
    reading = asyncio.ensure_future(asyncio.to_thread(hand_rig.whole, read))
    try:
        told = await hands.Hands(runtime).pack(box_id, path, write)
    finally:
        os.close(write)
        data = await reading
    return told, data


async def unpacked(runtime: jails.Jails, box_id: str, path: str, data: bytes) -> Mapping[str, Any]:
    read, write = os.pipe()
    writing = asyncio.ensure_future(asyncio.to_thread(feed, write, data))
    try:
        return await hands.Hands(runtime).unpack(box_id, path, read)
    finally:
        os.close(read)
        await writing


def waiting(fd: int) -> int:
    """Bytes in a pipe."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"1234"))[0])


def feed(fd: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(fd, "wb") as file:
        file.write(data)


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar}


def content(data: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def made(*entries: tuple[str, bytes | str | None], form: int = tarfile.PAX_FORMAT, **told: Any) -> bytes:
    """A stream: bytes make a file, a text a symbolic link, None a directory."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for name, what in entries:
            member = tarfile.TarInfo(name)
            for key, value in told.items():
                setattr(member, key, value)
            if what is None:
                member.type = tarfile.DIRTYPE
                member.mode = told.get("mode", 0o755)
            elif isinstance(what, str):
                member.type, member.linkname = tarfile.SYMTYPE, what
            else:
                member.size = len(what)
            tar.addfile(member, io.BytesIO(what) if isinstance(what, bytes) else None)
    return stream.getvalue()
