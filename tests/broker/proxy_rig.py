"""Clients of the egress proxy."""

import asyncio
import ssl
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.broker.hosts import Household, Outside, trusting

Story = Callable[[Outside, Household, int], Awaitable[None]]


def told(folder: Path, story: Story, rules: Any = None, **inject: str) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), Outside().open() as outside:
            house = Household(folder, outside, outside.spec(**inject), rules)
            try:
                async with house.proxy() as port:
                    await story(outside, house, port)
            finally:
                house.close()

    asyncio.run(run())


async def fetched(
    url: str, proxy: int, tls: ssl.SSLContext | None = None, **headers: str
) -> tuple[int, bytes, Any]:
    """What urllib gets through the proxy, as an agent's program has it."""

    def fetch() -> tuple[int, bytes, Any]:
        address = f"http://127.0.0.1:{proxy}"
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({"http": address, "https": address}),
            urllib.request.HTTPSHandler(context=tls or trusting()),
        )
        try:
            with opener.open(urllib.request.Request(url, headers=headers), timeout=20) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), dict(error.headers)

    return await asyncio.to_thread(fetch)


class Tunnel:
    """A client's own tunnel, to misbehave in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, proxy: int, authority: str) -> "Tunnel":
        tunnel = cls(*await asyncio.open_connection("127.0.0.1", proxy))
        tunnel.writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        assert (await tunnel.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        return tunnel

    async def ask(self, *lines: str, host: str = "") -> bytes:
        """Everything that comes back, until the connection closes."""
        sent = [lines[0], f"Host: {host}", "Connection: close", *lines[1:], "", ""]
        self.writer.write("\r\n".join(sent).encode())
        return await self.end()

    async def end(self) -> bytes:
        got = b""
        try:
            while part := await self.reader.read(65536):
                got += part
        except (ConnectionError, ssl.SSLError):
            pass
        self.writer.close()
        return got


async def ended(house: Household) -> None:
    """Until every connection of the guest's was ended with."""
    await asyncio.gather(*house.service.tasks, return_exceptions=True)
