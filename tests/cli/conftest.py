"""A real control API on a unix socket, and the command line run against it as a person would."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentk.api import kinds
from agentk.cli import main
from agentk.client import client
from agentk.daemon import http as daemon_http
from agentk.daemon import serving, sockets, visiting
from agentk.daemon.desk import Desk
from agentk.daemon.services import Services
from agentk.runtime import box
from agentk.store.store import Store
from tests.daemon.near import Near

SECONDS = 30


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Daemon:
    """The daemon's API without a steward: what agents' status says is up to the test."""

    def __init__(self, folder: Path, run: Path) -> None:
        self.folder, self.socket = folder, run / "agentk.sock"
        self.hands = Near()
        self.ticks = 0  # microseconds of CPU every agent has used
        self._start()

    def _start(self) -> None:
        (self.folder / "store").mkdir(parents=True, mode=0o700, exist_ok=True)
        self.store = Store.open(self.folder / "store")
        self.services = Services(
            log_folder=lambda namespace, uid: self.folder / "logs" / f"{namespace}_{uid}",
            counters=self._counters,
            findings=self._findings,
            status=self._status,
            shutdown=self._shutdown,
            indexes=lambda told: None,
            allowed_uids=frozenset({os.getuid()}),
            version="0.1.0",
            desk=self._desk(),
            visits=visiting.Room(self.hands, lambda box_id: {}, lambda data: data),
        )
        self.findings = [box.Finding("disk", True, "enough")]
        self._loop = asyncio.new_event_loop()
        sock = sockets.bind(self.socket)
        serve = serving.serve(daemon_http.app(self.store, self.services), sock, self.services.ending)
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(serve,))
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self.services.ending.set)
        self._thread.join(SECONDS)
        assert self.services.visits is not None
        self._loop.run_until_complete(self.services.visits.close())
        self.store.close()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self.socket.unlink(missing_ok=True)

    def restart(self) -> None:
        self.stop()
        self._start()

    @property
    def api(self) -> client.Client:
        return client.Client(self.socket)

    def status(self, name: str, **status: Any) -> dict[str, Any]:
        """What the steward would write."""
        path = kinds.AGENT.path("default", name, "status")
        kind = "application/merge-patch+json"
        return dict(self.api.request("PATCH", path, body={"status": status}, content_type=kind))

    @contextlib.contextmanager
    def busy(self, name: str) -> Iterator[Callable[[], int]]:
        """A steward that writes the status of an agent all the time, and the last number that it wrote."""
        uid, number = self.api.get(kinds.AGENT, "default", name)["metadata"]["uid"], 0
        done = threading.Event()

        async def write() -> None:
            nonlocal number
            while not done.is_set():
                await self.store.set_status(kinds.AGENT, "default", name, uid, {"attempt": number + 1})
                number += 1

        writing = asyncio.run_coroutine_threadsafe(write(), self._loop)
        try:
            yield lambda: number
        finally:
            done.set()
            writing.result(SECONDS)

    def log(self, name: str, attempt: int, *lines: str) -> None:
        """What the launcher would have written: `TIME STREAM F TEXT`."""
        uid = self.api.get(kinds.AGENT, "default", name)["metadata"]["uid"]
        folder = self.folder / "logs" / f"default_{uid}"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{attempt}.log", "a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def _desk(self) -> Desk | None:
        """A daemon without a gate; `gated` has one."""
        return None

    async def _counters(self, box_id: str) -> box.Counters:
        self.ticks += 1000
        return box.Counters(cpu_usec=self.ticks, memory_bytes=3 << 20, pids=2, throttled_usec=0)

    async def _findings(self) -> list[box.Finding]:
        return self.findings

    async def _status(self) -> dict[str, Any]:
        return {"pid": 1}

    async def _shutdown(self, kill_agents: bool) -> None:
        return None


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directories of this test's own; no daemon in them yet."""
    monkeypatch.setenv("AGENTK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("AGENTK_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("AGENTK_NAMESPACE", raising=False)
    return tmp_path


@pytest.fixture
def daemon(places: Path) -> Iterator[Daemon]:
    served = Daemon(places / "state", places / "run")
    served.api.create(kinds.NAMESPACE, "", {"metadata": {"name": "default"}})
    yield served
    served.stop()


@pytest.fixture
def agentk(places: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`agentk("get", "agents")` is what it says."""

    def run(*words: str) -> Ran:
        capsys.readouterr()
        code = main.main(list(words))
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


def agent(name: str = "a", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "agentk.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": name},
        "spec": {"command": ["sleep", "1"]} | spec,
    }
