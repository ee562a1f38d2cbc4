"""Hands inside boxes that run: a program with ends of our own, a connection to a port, files out and in.

All of it is done with the rights of the box and ends with it. The bytes never pass the launcher: it is given our pipes
or our terminal, and whoever holds the other ends reads and writes them. Nothing here is asked twice: when the launcher
dies, what was inside is dead, and how far it came is not known.
"""

import asyncio
import socket
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime import jails as daemons
from agentk.runtime.launcher import wire

VERSION = 3  # of the first launcher that knows hands
_CARRYING = 4  # that carries workspaces


class Hands:
    def __init__(self, jails: daemons.Jails) -> None:
        self._jails = jails

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
    ) -> words.Exit:
        """How a program of the box's ended. Its three ends are pipes or the null device; with `tty` all three are one
        terminal's slave, which becomes its controlling terminal. They stay the caller's and must stay open until this
        is answered; then everything of the program is dead.

        127 and 126 when there is no such program. Of one that took too long the exit's intent is DeadlineExceeded.
        Whoever cancels the call ends the program with all it started.
        """
        told = {"argv": list(argv), "env": dict(env or {}), "cwd": cwd, "tty": tty}
        fds = (stdin, stdout, stderr)
        answer = await self._ask("enter", box_id, hand_id, fds, timeout_seconds=timeout_seconds, **told)
        return wire.exit_from(answer["exit"])

    async def connect(self, box_id: str, port: int) -> socket.socket:
        """A connection to 127.0.0.1:port of the box. Raises Unavailable when nobody listens there."""
        link = await self._jails.linked(VERSION)
        try:
            fd = await link.ask_for_fd({"verb": "connect", "box_id": box_id, "port": port})
        except ConnectionError:
            raise errors.Unavailable("the launcher went away") from None
        return socket.socket(fileno=fd)

    async def pack(self, box_id: str, path: str, out: int, hand_id: str = "") -> Mapping[str, Any]:
        """Write a file or a directory of the box to `out`, a pipe, as a tar stream; every name in it begins with its
        own last one. Answers {"files", "bytes", "refused": ["name: why", …], "refused_count"}: what cannot be read,
        or is neither file, directory nor link, is left out and named. Raises NotFound."""
        return await self._ask("pack", box_id, hand_id, (out,), path=path)

    async def unpack(self, box_id: str, path: str, source: int, hand_id: str = "") -> Mapping[str, Any]:
        """Read a tar stream from `source`, a pipe, and put what it holds below the directory `path` of the box, which
        is made when it is missing. Answers as `pack`: a name that leads elsewhere, a device and the like is refused
        and the rest goes on."""
        return await self._ask("unpack", box_id, hand_id, (source,), path=path)

    async def take_workspace(
        self, namespace: str, uid: str, out: int, *, still: bool = True
    ) -> Mapping[str, Any]:
        """Write the whole workspace of an agent to `out`, a pipe, as a tar stream, whether a box of it runs or not;
        `still`: one that runs stands still meanwhile. Answers as `pack`, and "stood_still". Raises NotFound."""
        return await self._carry("take_workspace", out, namespace=namespace, uid=uid, still=still)

    async def put_workspace(
        self, namespace: str, uid: str, source: int, *, host_uid: int, size_bytes: int | None
    ) -> Mapping[str, Any]:
        """Read one from `source`, a pipe, in place of all that is there. Answers as `unpack`. Repeatable, and to be
        repeated when it failed. Raises Conflict while a box of the agent is there."""
        told = {"namespace": namespace, "uid": uid, "host_uid": host_uid, "size_bytes": size_bytes}
        return await self._carry("put_workspace", source, **told)

    async def _carry(self, verb: str, end: int, **told: Any) -> wire.Message:
        link = await self._jails.linked(_CARRYING)
        try:
            return await link.ask({"verb": verb, **told}, (end,))
        except ConnectionError:
            raise errors.OutcomeUnknown("the launcher went away meanwhile") from None

    async def cancel(self, box_id: str, hand_id: str) -> None:
        """End one with all it started. One that has ended is no error."""
        await self._jails.exec_cancel(box_id, hand_id)

    async def _ask(
        self, verb: str, box_id: str, hand_id: str, fds: Sequence[int], **told: Any
    ) -> wire.Message:
        name = hand_id or uuid.uuid4().hex
        link = await self._jails.linked(VERSION)
        try:
            return await link.ask({"verb": verb, "box_id": box_id, "hand_id": name, **told}, fds)
        except ConnectionError:
            raise errors.OutcomeUnknown("the launcher went away meanwhile") from None
        except asyncio.CancelledError:
            link.tell({"verb": "exec_cancel", "box_id": box_id, "exec_id": name})
            raise
