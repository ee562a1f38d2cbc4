"""A `noop` through the gate of a real daemon, beside a bare asyncio echo on a unix socket, taking turns.

    python -m tests.bench.gate_noop [--seconds 1] [--rounds 5]

Both are asked by the same client, over the same kind of socket, in lines of the same length. The echo answers each line
with itself and knows nothing else.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import daemons

CLIENTS = (1, 8, 32)
LINE = b'{"jsonrpc":"2.0","id":1,"method":"noop","params":{}}\n'

ECHO = """
import asyncio, sys

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

async def main():
    server = await asyncio.get_running_loop().create_unix_server(Echo, sys.argv[1])
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


class Asker(asyncio.Protocol):
    """Sends a line, and the next when its answer is whole."""

    def __init__(self) -> None:
        self.answers, self.pending = 0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(LINE)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\n"):
            self.answers += 1
            self.transport.write(LINE)


async def measure(path: str, clients: int, seconds: float) -> float:
    """Answers a second."""
    loop = asyncio.get_running_loop()
    made = [(await loop.create_unix_connection(Asker, path)) for _ in range(clients)]
    await asyncio.sleep(0.1)  # warm
    before, began = sum(asker.answers for _, asker in made), time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (sum(asker.answers for _, asker in made) - before) / (time.perf_counter() - began)
    for transport, _ in made:
        transport.close()
    return rate


@contextlib.contextmanager
def echo() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="agentk-echo-") as folder:
        path = os.path.join(folder, "s")
        server = subprocess.Popen([sys.executable, "-c", ECHO, path], stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None and server.stdout.readline()
            yield path
        finally:
            server.terminate()
            server.communicate()


@contextlib.contextmanager
def door() -> Iterator[Path]:
    """The gate's socket of an agent that sleeps."""
    with daemons.kept() as (where, client):
        client.create(daemons.kinds.AGENT, "default", daemons.agent("a", ["sleep", "1000"]))
        daemons.until(client, "a", lambda status: status.get("phase") == "Running")
        uid = client.get(daemons.kinds.AGENT, "default", "a")["metadata"]["uid"]
        yield where.run / "doors" / uid / "gate.sock"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    print("| clients | echo | noop | round trip | throughput |\n|---|---|---|---|---|")
    with echo() as plain, door() as gate:
        for clients in CLIENTS:
            rates: dict[str, list[float]] = {str(plain): [], str(gate): []}
            for _ in range(asked.rounds):
                for path, found in rates.items():
                    found.append(asyncio.run(measure(path, clients, asked.seconds)))
            ratio = statistics.median(b / a for a, b in zip(rates[plain], rates[str(gate)], strict=True))
            bare, ours = (statistics.median(found) for found in rates.values())
            trip = f"{1 / ratio:.2f}×" if clients == 1 else ""
            print(f"| {clients} | {bare:,.0f}/s | {ours:,.0f}/s | {trip} | {ratio:.2f}× |", flush=True)


if __name__ == "__main__":
    main()
