"""`agentk get agents` as a whole process against `python -c pass`, in turn: `python tests/bench/cli_start.py [ROUNDS]`.

Asks a real control API with 20 agents in its store. The difference is what a person waits for beyond Python itself.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SERVER = """
import asyncio, os, sys
from pathlib import Path
from agentk.daemon import http, serving, sockets
from agentk.daemon.services import Services
from agentk.store.store import Store
from agentk.api import kinds
from agentk.client import client
import threading

folder = Path(sys.argv[1])
(folder / "store").mkdir(mode=0o700)
store = Store.open(folder / "store")

async def nothing(*_):
    return {}

services = Services(
    log_folder=lambda *_: folder, counters=nothing, findings=nothing, status=nothing, shutdown=nothing,
    indexes=lambda told: None,
    allowed_uids=frozenset({os.getuid()}), version="bench",
)
sock = sockets.bind(folder / "run" / "agentk.sock")

def fill():
    api = client.Client(folder / "run" / "agentk.sock")
    api.create(kinds.NAMESPACE, "", {"metadata": {"name": "default"}})
    for number in range(20):
        obj = {"metadata": {"name": f"agent-{number}"}, "spec": {"command": ["sleep", "1"]}}
        api.create(kinds.AGENT, "default", obj)
    print("ready", flush=True)

threading.Thread(target=fill, daemon=True).start()
asyncio.run(serving.serve(http.app(store, services), sock, services.ending))
"""
TARGET_MS = 120


def main(rounds: int) -> None:
    """Print both medians and their difference."""
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen([sys.executable, "-c", SERVER, folder], stdout=subprocess.PIPE)
        assert server.stdout
        try:
            server.stdout.readline()
            env = os.environ | {"AGENTK_STATE_DIR": folder, "AGENTK_RUN_DIR": f"{folder}/run"}
            agentk = str(Path(sys.executable).parent / "agentk")
            commands = {
                "python -c pass": [sys.executable, "-c", "pass"],
                "agentk get agents": [agentk, "get", "agents"],
            }
            taken: dict[str, list[float]] = {name: [] for name in commands}
            for number in range(rounds + 2):
                for name, command in commands.items():
                    started = time.perf_counter()
                    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
                    if number >= 2:  # the first two warm the page cache
                        taken[name].append((time.perf_counter() - started) * 1000)
        finally:
            server.terminate()
            server.wait()
    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, value in medians.items():
        print(f"{name:<20}{value:7.1f} ms   (of {rounds}: {min(taken[name]):.1f} to {max(taken[name]):.1f})")
    difference = medians["agentk get agents"] - medians["python -c pass"]
    print(f"{'difference':<20}{difference:+7.1f} ms   (target: at most +{TARGET_MS})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
