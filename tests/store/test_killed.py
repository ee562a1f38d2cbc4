"""What was acknowledged survives kill -9, and nothing is ever there by half. Real processes, real SQLite."""

import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from agentk.api import kinds
from agentk.store import watching
from agentk.store.store import Store

pytestmark = pytest.mark.anyio

# Eight tasks write; each line on stdout is one acknowledged write.
CHILD = """
import asyncio, json, pathlib, sys
from agentk.store.store import Store, Settings

async def write(store, task):
    from agentk.api import kinds
    for n in range(10**6):
        name = f"t{task}-{n % 5}"
        spec = {"command": ["x"], "n": n, "pad": "p" * (n % 50 * 100)}
        def change(old):
            metadata = dict((old or {}).get("metadata") or {})
            return {"apiVersion": "agentk.dev/v1alpha1", "kind": "Agent", "metadata": metadata, "spec": spec}
        made = await store.modify(kinds.AGENT, "d", name, change)
        print(json.dumps([name, n, int(made["metadata"]["resourceVersion"]), len(spec["pad"])]), flush=True)
        if n % 11 == 10:
            await store.delete(kinds.AGENT, "d", name)
            print(json.dumps([name, None, 0, 0]), flush=True)

async def main():
    store = Store.open(pathlib.Path(sys.argv[1]), Settings(sweep_changes=100))
    print("[]", flush=True)
    await asyncio.gather(*(write(store, task) for task in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(5))
async def test_every_acknowledged_write_is_there_after_kill_9(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    seen: dict[str, tuple[int | None, int]] = {}
    newest = 0
    for _ in range(3):
        acknowledged = run_and_kill(tmp_path, dice.uniform(0.02, 0.4))
        for name, n, rv, _pad in acknowledged:
            seen[name] = (n, rv)
            newest = max(newest, rv)
        with closing(Store.open(tmp_path)) as store:
            assert store.notices == [] and int(store.resource_version()) >= newest
            stored = {obj["metadata"]["name"]: obj for obj in (await store.list(kinds.AGENT)).items}
            for name, (n, rv) in seen.items():
                # A task's next write may have reached the disk unacknowledged, never an older state.
                obj = stored.get(name)
                assert n is None or obj is None or int(obj["metadata"]["resourceVersion"]) >= rv
                assert obj is not None or n is None or n % 11 == 10
            for obj in stored.values():
                assert len(obj["spec"]["pad"]) == obj["spec"]["n"] % 50 * 100
            objects = [change.obj async for change in ends(store)]
            assert sorted(obj["metadata"]["name"] for obj in objects) == sorted(stored)
        seen = {
            name: (obj["spec"]["n"], int(obj["metadata"]["resourceVersion"])) for name, obj in stored.items()
        }


async def ends(store: Store) -> AsyncIterator[watching.Change]:
    """The initial list of a watch."""
    async for change in store.watch(kinds.AGENT, bookmark_seconds=1):
        if change.type == "BOOKMARK":
            return
        yield change


def run_and_kill(folder: Path, seconds: float) -> list[tuple[str, int | None, int, int]]:
    """Let a child write for a while; what it acknowledged before it died."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"[]\n"
        lines: list[bytes] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            lines.append(child.stdout.readline())
        child.kill()
        lines += child.stdout.read().splitlines(keepends=True)
    return [tuple(json.loads(line)) for line in lines if line.endswith(b"\n")]
