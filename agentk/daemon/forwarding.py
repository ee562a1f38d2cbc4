"""GET …/agents/NAME/portforward: connections to ports inside the agent's box, a pair of channels each.

The first message on each channel is the number of its port, as Kubernetes has it. With v5 either side may end what it
says and go on listening; before, the end of what the box says is the end.
"""

import asyncio
import socket as sockets
import struct
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from agentk.api import channels, errors
from agentk.daemon import calls, visiting, websockets

_PORTS_MAX = 16
CHUNK_BYTES = 32 * 1024


async def portforward(call: calls.Call) -> Response:
    ports = _ports(call)
    visit = await visiting.visit(call, "portforward", [str(port) for port in ports])

    def begin(socket: websockets.WebSocket) -> None:
        visit.start(_serve(visit, socket, ports))

    return websockets.Upgrade(call.request, begin)


async def _serve(visit: visiting.Visit, socket: websockets.WebSocket, ports: Sequence[int]) -> None:
    code, why = 1011, ""
    try:
        async with visit.recorded() as told:
            forwarding = _Forwarding(visit, socket, ports)
            try:
                await forwarding.run()
            finally:
                told |= {"bytesIn": forwarding.heard_bytes, "bytesOut": forwarding.said_bytes}
        code = 1000
    except errors.AgentkError as error:
        why = error.message.encode()[:100].decode("utf-8", "ignore")
    except websockets.Gone:
        pass
    except asyncio.CancelledError:
        code, why = 1001, "the daemon ends"
        raise
    finally:
        await socket.close(code, why)


class _Forwarding:
    def __init__(self, visit: visiting.Visit, socket: websockets.WebSocket, ports: Sequence[int]) -> None:
        self._visit, self._socket, self._ports = visit, socket, ports
        self._open: dict[int, sockets.socket] = {}  # by data channel
        self._more = [asyncio.Event() for _ in ports]  # set: nobody says more to this port
        self.heard_bytes = self.said_bytes = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[Any]] = []
        try:
            for number, port in enumerate(self._ports):
                for channel in (2 * number, 2 * number + 1):
                    await self._socket.send(channel, struct.pack("<H", port))
            await asyncio.gather(*(self._connect(number) for number in range(len(self._ports))))
            hearing = loop.create_task(self._hear(), name="portforward: in")
            telling = [loop.create_task(self._tell(one), name="portforward: out") for one in self._open]
            gone = loop.create_task(self._socket.gone(), name="portforward: caller")
            told = loop.create_task(_all(telling), name="portforward: all")
            tasks = [hearing, gone, told, *telling]
            await asyncio.wait({told, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for one in self._open.values():
                one.close()

    async def _connect(self, number: int) -> None:
        try:
            made = await self._visit.room.hands.connect(self._visit.box_id, self._ports[number])
        except errors.AgentkError as error:
            await self._socket.send(2 * number + 1, error.message.encode())
            self._socket.close_channel(2 * number)
            return
        made.setblocking(False)
        self._open[2 * number] = made

    async def _tell(self, channel: int) -> None:
        loop, connection = asyncio.get_running_loop(), self._open[channel]
        try:
            while data := await loop.sock_recv(connection, CHUNK_BYTES):
                self.said_bytes += len(data)
                await self._socket.send(channel, data)
        except OSError as error:
            await self._socket.send(channel + 1, (error.strerror or str(error)).encode())
        except websockets.Gone:
            return
        self._socket.close_channel(channel)
        if self._socket.closes_channels:
            await self._more[channel // 2].wait()

    async def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                channel, data = await self._socket.receive()
            except websockets.Gone:
                return
            if channel == channels.CLOSE and data and (ended := self._open.get(data[0])) is not None:
                _end(ended)
                self._more[data[0] // 2].set()
            elif (connection := self._open.get(channel)) is not None and not self._more[
                channel // 2
            ].is_set():
                self.heard_bytes += len(data)
                try:
                    await loop.sock_sendall(connection, data)
                except OSError:  # nobody listens there any more: what it still says is told
                    self._more[channel // 2].set()


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)


def _end(connection: sockets.socket) -> None:
    try:
        connection.shutdown(sockets.SHUT_WR)
    except OSError:
        return


def _ports(call: calls.Call) -> list[int]:
    words = [word for one in call.request.query_params.getlist("ports") for word in one.split(",")]
    if not words or len(words) > _PORTS_MAX:
        raise errors.BadRequest(f"name the ports, 1 to {_PORTS_MAX}", field="ports")
    found = [int(word) if word.isascii() and word.isdigit() and len(word) < 6 else 0 for word in words]
    if not all(0 < port < 1 << 16 for port in found):
        raise errors.BadRequest("a port is a number from 1 to 65535", field="ports")
    return found
