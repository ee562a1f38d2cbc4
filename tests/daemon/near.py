"""Hands that reach no farther than this process: commands as plain children. Real pipes, real terminals."""

import asyncio
import contextlib
import os
import signal
import socket
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.runtime import box


class Near:
    """`boxes`: ids of those that are there. `ended` tells of commands that were killed on behalf of a caller."""

    def __init__(self, boxes: Sequence[str] = ("u-1",)) -> None:
        self.boxes = set(boxes)
        self.pids: list[int] = []
        self.ended = asyncio.Event()

    async def enter(
        self,
        box_id: str,
        argv: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        tty: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        hand_id: str = "",
        timeout_seconds: float | None = None,
    ) -> box.Exit:
        self._check(box_id)
        words = ["setsid", "-c", *argv] if tty else list(argv)
        try:
            child = await asyncio.create_subprocess_exec(
                *words,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=not tty,
                env={**os.environ, **(env or {})},
            )
        except FileNotFoundError:
            return box.Exit(127, None, "wait", "")
        self.pids.append(child.pid)
        try:
            code = await child.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            await child.wait()
            self.ended.set()
            raise
        return box.Exit(code if code >= 0 else None, None if code >= 0 else -code, "wait", "")

    async def connect(self, box_id: str, port: int) -> socket.socket:
        self._check(box_id)
        made = socket.socket()
        made.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
        except OSError as error:
            made.close()
            raise errors.Unavailable(f"port {port}: {os.strerror(error.errno or 0)}") from None
        return made

    async def pack(self, box_id: str, path: str, out: int, hand_id: str = "") -> Mapping[str, int]:
        self._check(box_id)

        def work() -> None:
            if not Path(path).exists():
                raise errors.NotFound(f"{path}: no such file")
            with os.fdopen(os.dup(out), "wb") as file, tarfile.open(fileobj=file, mode="w|") as tar:
                tar.add(path, Path(path).name)

        await asyncio.to_thread(work)
        return {"files": 1, "bytes": 1}

    async def unpack(self, box_id: str, path: str, source: int, hand_id: str = "") -> Mapping[str, int]:
        self._check(box_id)
        told: dict[str, Any] = {"files": 0, "bytes": 0}

        def work() -> None:
            if not Path(path).is_dir():
                raise errors.NotFound(f"{path}: no such directory")
            with os.fdopen(os.dup(source), "rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
                for one in tar:
                    tar.extract(one, path, filter="data")
                    told["files"] += one.isfile()
                    told["bytes"] += one.size

        await asyncio.to_thread(work)
        return told

    def _check(self, box_id: str) -> None:
        if box_id not in self.boxes:
            raise errors.NotFound(f"no box {box_id}")
