"""How much a guest that floods or dawdles at its own door slows another at its door, through one real daemon.

    python -m tests.bench.gate_neighbours [--seconds 3] [--rounds 3]

The quiet guest asks `noop`, then `state.put`, up to a hundred times a second. Its p95 alone is put beside its p95 while
another guest pipelines calls from 32 connections, sends half lines of megabytes, asks for 1 MiB answers that it does
not read, or connects again and again.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator

from tests.bench import daemons

NOOP = b'{"jsonrpc":"2.0","id":1,"method":"noop","params":{}}\n'
PUT = b'{"jsonrpc":"2.0","id":2,"method":"state.put","params":{"key":"k","value":1}}\n'
PAUSE_SECONDS = 0.01
BIG = json.dumps(
    {"jsonrpc": "2.0", "id": 3, "method": "noop", "params": {"payload": "x" * 1_000_000}}
).encode()

Attack = Callable[[str], Awaitable[None]]


async def flood(path: str) -> None:
    reader, writer = await asyncio.open_unix_connection(path)

    async def drain() -> None:
        while await reader.read(1 << 16):
            pass

    draining = asyncio.create_task(drain())
    try:
        while True:
            writer.write(b"".join(NOOP.replace(b'"id":1', b'"id":%d' % number) for number in range(100)))
            await writer.drain()
    finally:
        draining.cancel()


async def half_lines(path: str) -> None:
    while True:
        _, writer = await asyncio.open_unix_connection(path)
        with contextlib.suppress(OSError):
            writer.write(b'{"jsonrpc":"2.0","id":1,"method":"noop","params":{"payload":"' + b"x" * 7_000_000)
            await writer.drain()
        writer.close()


async def unread(path: str) -> None:
    _, writer = await asyncio.open_unix_connection(path)
    while True:
        with contextlib.suppress(OSError):
            writer.write(BIG + b"\n")
            await writer.drain()
        if writer.is_closing():
            _, writer = await asyncio.open_unix_connection(path)


async def reconnecting(path: str) -> None:
    while True:
        _, writer = await asyncio.open_unix_connection(path)
        writer.close()


ATTACKS: dict[str, tuple[Attack, int]] = {
    "32 connections of calls": (flood, 32),
    "half lines of 7 MB, 8 at once": (half_lines, 8),
    "1 MiB answers unread, 8 at once": (unread, 8),
    "connecting again and again, 4 at once": (reconnecting, 4),
}


async def quiet(path: str, line: bytes, seconds: float) -> float:
    """p95 of a call's time, in seconds."""
    reader, writer = await asyncio.open_unix_connection(path)
    took, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        writer.write(line)
        await reader.readline()
        took.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE_SECONDS)
    writer.close()
    return statistics.quantiles(took, n=20)[-1]


async def _all(name: str, path: str) -> None:
    attack, at_once = ATTACKS[name]
    await asyncio.gather(*(attack(path) for _ in range(at_once)))


def _attack(name: str, path: str) -> None:
    with contextlib.suppress(KeyboardInterrupt, OSError):
        asyncio.run(_all(name, path))


@contextlib.contextmanager
def attacking(name: str, path: str) -> Iterator[None]:
    """From a process of its own, so that its work is not the measuring one's."""
    if name not in ATTACKS:
        yield
        return
    process = multiprocessing.get_context("spawn").Process(target=_attack, args=(name, path))
    process.start()
    try:
        time.sleep(1.0)  # for it to be in full swing
        yield
    finally:
        process.kill()
        process.join()


@contextlib.contextmanager
def doors() -> Iterator[tuple[str, str]]:
    """The gate's sockets of two agents that sleep."""
    with daemons.kept() as (where, client):
        found = []
        for name in ("quiet", "loud"):
            client.create(daemons.kinds.AGENT, "default", daemons.agent(name, ["sleep", "1000"]))
            daemons.until(client, name, lambda status: status.get("phase") == "Running")
            uid = client.get(daemons.kinds.AGENT, "default", name)["metadata"]["uid"]
            found.append(str(where.run / "doors" / uid / "gate.sock"))
        yield found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print("| what the other does | noop p95 | state.put p95 |\n|---|---|---|")
    with doors() as (ours, theirs):
        for name in ("nothing", *ATTACKS):
            factors: dict[bytes, list[float]] = {NOOP: [], PUT: []}
            shown: dict[bytes, list[float]] = {NOOP: [], PUT: []}
            for _ in range(asked.rounds):
                for line in (NOOP, PUT):
                    alone = asyncio.run(quiet(ours, line, asked.seconds))
                    with attacking(name, theirs):
                        beside = asyncio.run(quiet(ours, line, asked.seconds))
                    factors[line].append(beside / alone)
                    shown[line].append(beside)
            cells = [
                f"{statistics.median(shown[line]) * 1000:.2f} ms, {statistics.median(factors[line]):.1f}×"
                for line in (NOOP, PUT)
            ]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
