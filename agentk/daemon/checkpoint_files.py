"""Files of checkpoints on the disk of the daemon: each is whole or not there, whoever dies."""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path

from agentk.daemon import descriptors

AT_ONCE_BYTES = 2**20  # in a pipe, and to the disk and from it


def widen(pipe: int) -> None:
    """As much as this user's pipes may hold."""
    for size in AT_ONCE_BYTES, 64 * 1024, descriptors.CHUNK_BYTES:
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
            return


async def fed(path: Path, writer: descriptors.Writer) -> None:
    with path.open("rb") as file, contextlib.suppress(BrokenPipeError):
        while data := await asyncio.to_thread(file.read, AT_ONCE_BYTES):
            await writer.write(data)
    writer.close()


def anew(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)


def write(path: Path, told: object) -> None:
    """Whole or not at all."""
    scratch = path.with_name(f"{path.name}.new")
    with scratch.open("w") as file:
        json.dump(told, file)
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(path)
    sync(path.parent)


def keep(half: Path, final: Path) -> None:
    sync(half)
    half.rename(final)
    sync(final.parent)


def sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
