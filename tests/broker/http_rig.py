"""An HTTP door on a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from agentk.broker.dialects.http import HttpService, Respond
from agentk.broker.dialects.http_reading import Request

HOST = b"Host: 127.0.0.1\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"


async def echo(request: Request, respond: Respond) -> None:
    told = {"method": request.method, "path": request.path, "query": request.query, "size": len(request.body)}
    respond.whole(200, {"content-type": "application/json"}, json.dumps(told).encode())


@asynccontextmanager
async def serving(service: HttpService) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: service.connection(by_unix=False), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await service.close()


async def asked(service: HttpService, data: bytes) -> bytes:
    """All that comes back for `data`, until the door closes."""
    async with serving(service) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        answer = await reader.read()
        writer.close()
        return answer


def run(work: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await work

    return asyncio.run(main())


def closing(head: bytes) -> bytes:
    return head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
