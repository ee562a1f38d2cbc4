"""A real daemon of its own for a measurement, and the little that measurements share."""

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agentk.api import kinds
from agentk.client import lifecycle
from agentk.client.client import Client
from agentk.data import places

_WAIT_SECONDS = 120.0
Json = dict[str, Any]


@contextlib.contextmanager
def running(env: Mapping[str, str] | None = None) -> Iterator[Client]:
    """A client of a daemon that ends, with all its agents, when the block does. `env`: settings of it."""
    with lifecycle.private_daemon({**os.environ, **(env or {})}) as where:
        yield Client(where.socket)


@contextlib.contextmanager
def kept() -> Iterator[tuple[places.Places, Client]]:
    """As `running`, with its places."""
    with tempfile.TemporaryDirectory(prefix="agentk-bench-") as folder:
        where = places.Places(Path(folder) / "s", Path(folder) / "s" / "run")
        lifecycle.ensure_daemon(where, os.environ)
        client = Client(where.socket)
        try:
            yield where, client
        finally:
            lifecycle.stop(where, kill_agents=True)


def agent(name: str, command: list[str], **spec: Any) -> Json:
    limits = {"cpu": "1", "memory": "64Mi", "pids": 16, "ephemeral-storage": "1Mi"}
    return {
        "apiVersion": kinds.API_VERSION,
        "kind": "Agent",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "command": command,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "resources": {"limits": limits},
            **spec,
        },
    }


def until(client: Client, name: str, holds: Callable[[Json], bool]) -> Json:
    """The status of an agent once `holds` is true of it."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline:
        status: Json = client.get(kinds.AGENT, "default", name).get("status", {})
        if holds(status):
            return status
        time.sleep(0.005)
    raise SystemExit(f"agent {name} did not get there: {status}")


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
