"""Sends bytes nobody thought of to a real door with the whole gate behind it, in one dialect, guided by coverage.

    python -m tests.fuzz.doors jsonrpc|http|frames [-max_total_time=60] [libFuzzer's other options]

What must hold for every input: nothing raises where nobody catches it, nothing is logged as an error of ours, and the
next guest that asks is answered. The first byte says in how large pieces the rest is sent.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import atheris

TOP = Path(__file__).resolve().parents[2]
# What reads a guest's bytes. atheris takes all of a top package: without the rest, it begins in a third of the time.
WATCHED = ("agentk.broker.dialects", "agentk.broker.door", "agentk.broker.methods", "agentk.sdk.wire")
NAMES = [".".join(file.relative_to(TOP).with_suffix("").parts) for file in TOP.glob("agentk/**/*.py")]
NAMES = [name.removesuffix(".__init__") for name in NAMES]

with atheris.instrument_imports(
    include=["agentk"], exclude=[name for name in NAMES if not name.startswith(WATCHED)]
):
    from agentk.api import admit, kinds
    from agentk.broker.dialects import agentos_words, frames
    from agentk.daemon import gatehouse
    from agentk.runtime.jails import Jails
    from agentk.store.store import Store

ANSWER_SECONDS = 30.0
_LINGER_SECONDS = 0.01
_CHECK_EVERY = 50
CALLS = [
    ("noop", {"payload": 1}),
    ("hello", {}),
    ("state.put", {"key": "k", "value": {"a": [1, None]}}),
    ("state.list", {"prefix": ""}),
    ("message.send", {"to": "a", "body": "x"}),
    ("message.recv", {"max": 3}),
    ("think", {"prompt": "hi", "stream": True}),
    ("lock.acquire", {"name": "l"}),
    ("queue.put", {"queue": "q", "item": 1}),
    ("http.request", {"url": "http://example.com/"}),
    ("agent.list", {}),
]
REQUESTS = [
    ("GET /v1/models", None),
    (
        "POST /v1/chat/completions",
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True},
    ),
    ("POST /v1/responses", {"model": "m", "input": "hi"}),
    ("POST /v1/embeddings", {"model": "m", "input": ["a"]}),
    ("POST /v1/messages", {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}),
    ("POST /mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"cursor": "1"}}),
    ("POST /mcp", {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "skill://s/f"}}),
    (
        "POST /mcp",
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "t", "arguments": {}}},
    ),
    ("CONNECT example.com:443", None),
    ("GET http://example.com/", None),
]


def seeds(dialect: str) -> list[bytes]:
    if dialect == "jsonrpc":
        told = [
            {"jsonrpc": "2.0", "id": n, "method": name, "params": params}
            for n, (name, params) in enumerate(CALLS)
        ]
        told.append({"jsonrpc": "2.0", "method": "cancel", "params": {"id": 1}})
        return [json.dumps(one).encode() + b"\n" for one in told]
    if dialect == "http":
        found = []
        for line, body in REQUESTS:
            data = b"" if body is None else json.dumps(body).encode()
            head = f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            found.append(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return found
    return [
        frames.encode(0, op, json.dumps(body).encode())
        for op in agentos_words.Op
        for body in ({}, {"key": "k"})
    ]


class World:
    """A gate without launcher: its one guest speaks through a socket that was listened on here."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, str(folder / "gate.sock")
        self.wrong: list[str] = []
        self.count = 0

    async def begin(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._unhandled)
        (self.folder / "store").mkdir(mode=0o700)
        self.store = Store.open(self.folder / "store")
        self.house = gatehouse.Gatehouse(self.store, Jails(self.folder / "no-launcher"))
        api = {"apiVersion": kinds.API_VERSION}
        spec = {"command": ["true"]}
        for obj in (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}},
            {**api, "kind": "Policy", "metadata": {"name": "baseline"}, "spec": {"level": "baseline"}},
            {**api, "kind": "ModelRoute", "metadata": {"name": "default", "namespace": "default"},
             "spec": {"scripted": {}}},
            {**api, "kind": "Agent", "metadata": {"name": "a", "namespace": "default"}, "spec": spec},
        ):  # fmt: skip
            made = await self.store.create(admit.admit(obj))
        self.running = asyncio.create_task(self.house.run())
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.path)
        listener.listen(128)
        self.listener = listener
        await self.house.lives.opened()  # the objects were heard
        self.house._listens(
            f"{made['metadata']['uid']}-1", made["metadata"]["uid"], {"gate": listener.fileno()}
        )
        await self.is_well()

    def _unhandled(self, loop: asyncio.AbstractEventLoop, told: Mapping[str, Any]) -> None:
        self.wrong.append(f"{told.get('message')}: {told.get('exception')!r}")

    async def attack(self, data: bytes) -> None:
        """One connection, from its first byte to its end."""
        size, rest = data[0] if data else 0, data[1:]
        reader, writer = await asyncio.open_unix_connection(self.path)
        with contextlib.suppress(OSError):
            for start in range(0, len(rest), size or max(1, len(rest))):
                writer.write(rest[start : start + (size or len(rest))])
                await asyncio.sleep(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_SECONDS):
                    await reader.read(1 << 20)
        writer.transport.abort()
        self.count += 1
        if self.count % _CHECK_EVERY == 0:
            await self.is_well()
        if self.wrong:
            raise AssertionError("\n".join(self.wrong))

    async def is_well(self) -> None:
        """Another connection is answered."""
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(self.path)
            writer.write(b'{"jsonrpc":"2.0","id":1,"method":"noop","params":{}}\n')
            answer = json.loads(await reader.readline())
            writer.close()
        assert answer["result"] == {}, answer


class Complaints(logging.Handler):
    """What the gate logs as an error is a mistake of ours."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.wrong.append(f"logged: {self.format(record)}")


def main() -> None:
    where = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="agentk-fuzz-", dir=where) as folder:
        child = os.fork()
        if child:  # libFuzzer ends the process it is in
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        fuzz(Path(folder), sys.argv[1], sys.argv[2:])


def fuzz(folder: Path, dialect: str, options: list[str]) -> None:
    """Never returns."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds(dialect)):
        (corpus / str(number)).write_bytes(struct.pack("B", number % 3 * 7) + seed)
    loop = asyncio.new_event_loop()
    world = World(folder)
    loop.run_until_complete(world.begin())
    logging.getLogger().addHandler(Complaints(world))
    prefix = frames.encode(0, 0, b"")[:4] if dialect == "frames" else b""

    def one(data: bytes) -> None:
        if prefix and data[1:5] != prefix:  # nothing else gets so far
            data = data[:1] + prefix + data[5:]
        loop.run_until_complete(world.attack(data))

    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
