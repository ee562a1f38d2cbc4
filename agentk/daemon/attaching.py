"""GET …/agents/NAME/attach: what the agent's own program writes from now on, and what it reads.

Its output comes from its log, which the launcher writes whoever is there, so any number may look on and none holds it
up. What is typed goes into the pipe that its program reads: no end of a caller or of ours is the end of that.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from agentk.api import channels, errors
from agentk.daemon import calls, descriptors, executing, following, inotify, logs, visiting, websockets

_IN = "in"  # of a box's descriptors: what its program reads
_CHANNELS = {b"stdout": channels.STDOUT, b"stderr": channels.STDERR}
_SIGNAL_BASE = 128


async def attach(call: calls.Call, wakeups: inotify.Wakeups) -> Response:
    stdin = calls.flag(call, "stdin")
    visit = await visiting.visit(call, "attach", ["stdin"] if stdin else [], running=False)
    if stdin and not visit.agent["spec"].get("stdin"):
        raise errors.BadRequest(
            f'the program of agent "{call.target.name}" reads nothing',
            hint="give the agent spec.stdin: true, or attach without -i",
        )
    folder = call.services.log_folder(call.target.namespace, str(visit.agent["metadata"]["uid"]))
    asked = following.Asked(logs.Wanted(), follow=True, previous=False, tail=0, limit_bytes=None)
    source = following.Following(call, wakeups, asked, folder, dict(visit.agent), visit.attempt)

    def begin(socket: websockets.WebSocket) -> None:
        attached = _Attached(visit, source, socket, stdin)
        visit.start(executing.serve(visit, socket, attached.run()))

    return websockets.Upgrade(call.request, begin, (channels.RESIZE,))


class Apart:
    """CRI lines in, the bytes of each stream out, also of a line that has not ended."""

    def feed(self, lines: bytes) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        for line in lines.split(b"\n"):
            parts = line.split(b" ", 3)
            if len(parts) < 3 or parts[1] not in _CHANNELS or parts[2][:1] not in (b"F", b"P"):
                continue
            text = (parts[3] if len(parts) > 3 else b"") + (b"\n" if parts[2][:1] == b"F" else b"")
            if found and found[-1][0] == _CHANNELS[parts[1]]:
                found[-1] = (found[-1][0], found[-1][1] + text)
            else:
                found.append((_CHANNELS[parts[1]], text))
        return found

    def rest(self) -> list[tuple[int, bytes]]:
        return []


class _Attached:
    def __init__(
        self, visit: visiting.Visit, source: following.Following, socket: websockets.WebSocket, stdin: bool
    ) -> None:
        self._visit, self._source, self._socket, self._stdin = visit, source, socket, stdin

    async def run(self) -> int:
        """The exit code of the attempt. Raises Cancelled when the caller hung up."""
        loop = asyncio.get_running_loop()
        tell = loop.create_task(self._tell(), name="attach: output")
        gone = loop.create_task(self._socket.gone(), name="attach: caller")
        hear = loop.create_task(self._hear(), name="attach: input")
        tasks = (tell, gone, hear)
        try:
            await asyncio.wait({tell, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not tell.done():
                raise errors.Cancelled("the caller hung up")
            tell.result()
            return self._ended()
        except websockets.Gone:
            raise errors.Cancelled("the caller hung up") from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self) -> None:
        pieces = self._source.pieces(Apart())
        try:
            async for piece in pieces:
                for channel, data in piece:
                    await self._socket.send(channel, data)
        finally:
            await pieces.aclose()

    async def _hear(self) -> None:
        await self._source.begun.wait()  # or what it answers could come before we look
        pipe = self._visit.room.descriptors(self._visit.box_id).get(_IN) if self._stdin else None
        writer = descriptors.Writer(os.dup(pipe)) if pipe is not None else None
        try:
            while True:
                channel, data = await self._socket.receive()
                if channel == channels.STDIN and writer is not None:
                    await writer.write(data)
        except (websockets.Gone, BrokenPipeError):
            return
        finally:
            if writer is not None:
                writer.close()

    def _ended(self) -> int:
        last: Mapping[str, Any] = (self._source.agent.get("status") or {}).get("lastTermination") or {}
        if last.get("attempt") != self._visit.attempt:
            raise errors.Conflict(f'agent "{self._source.agent["metadata"]["name"]}" is gone')
        if "exitCode" in last:
            return int(last["exitCode"])
        if "signal" in last:
            return _SIGNAL_BASE + int(last["signal"])
        raise errors.Unavailable(str(last.get("message") or "how it ended is not known"))
