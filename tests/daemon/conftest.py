"""A real daemon API: a store on disk, uvicorn on a unix socket, and a plain HTTP client."""

import asyncio
import contextlib
import http.client
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from agentk.daemon import http as daemon_http
from agentk.daemon import serving, sockets, visiting
from agentk.daemon.services import Services
from agentk.runtime import box
from agentk.store.store import Store
from tests.daemon.near import Near

AGENTS = "/apis/agentk.dev/v1alpha1/namespaces/default/agents"
SECONDS = 30  # no answer by then is a failure


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(str(self._path))


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Api:
    """The daemon under test, as a caller and as its owner."""

    path: Path
    folder: Path
    store: Store
    services: Services
    loop: asyncio.AbstractEventLoop
    hands: Near
    stdin: Path  # a FIFO: what the program of every agent reads
    asked: list[Any] = field(default_factory=list)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = self.connect()
        with contextlib.closing(connection):
            target = f"{path}?{urlencode(query, doseq=True)}" if query else path
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            given = {"Content-Type": "application/json"} if data is not None else {}
            connection.request(method, target, data, given | dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def get(self, path: str, **query: Any) -> Answer:
        return self.call("GET", path, query=query)

    def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        answer = self.call(method, path, body, **more)
        assert answer.status < 300, answer.body
        return answer.json

    def fails(self, status: int, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The Status of a call that is refused."""
        answer = self.call(method, path, body, **more)
        assert answer.status == status, (answer.status, answer.body)
        told = answer.json
        assert (told["kind"], told["status"], told["code"]) == ("Status", "Failure", status)
        return told

    def apply(self, path: str, obj: Any, manager: str = "tester", **query: Any) -> Answer:
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return self.call("PATCH", path, obj, query={"fieldManager": manager} | query, headers=headers)

    def connect(self) -> Connection:
        return Connection(self.path)

    @contextlib.contextmanager
    def stream(self, path: str, **query: Any) -> Iterator[http.client.HTTPResponse]:
        connection = self.connect()
        with contextlib.closing(connection):
            connection.request("GET", f"{path}?{urlencode(query)}")
            response = connection.getresponse()
            assert response.status == 200, response.read()
            yield response

    @contextlib.contextmanager
    def watch(self, path: str, **query: Any) -> Iterator[Callable[[], tuple[str, Any]]]:
        with self.stream(path, watch="true", **query) as response:

            def following() -> tuple[str, Any]:
                event = json.loads(response.readline() or b"null")
                return (event["type"], event["object"]) if event else ("", None)

            yield following

    def run(self, coroutine: Any) -> Any:
        """Run something on the daemon's loop."""
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return future.result(SECONDS)

    def settled(self, done: Callable[[], bool]) -> bool:
        """Wait until something becomes true on the daemon's loop."""

        async def wait() -> bool:
            for _ in range(SECONDS * 100):
                if done():
                    return True
                await asyncio.sleep(0.01)
            return False

        return bool(self.run(wait()))


def agent(name: str = "a", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "agentk.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": name},
        "spec": {"command": ["sleep", "1"]} | spec,
    }


def config(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with running(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One daemon for many refusals: whoever uses it leaves nothing behind."""
    with running(tmp_path_factory.mktemp("lasting")) as made:
        yield made


@contextlib.contextmanager
def running(tmp_path: Path) -> Iterator[Api]:
    state = tmp_path / "state"
    (state / "store").mkdir(parents=True, mode=0o700)
    store = Store.open(state / "store")
    asked: list[Any] = []

    async def counters(box_id: str) -> box.Counters:
        return box.Counters(cpu_usec=7, oom_kills=1)

    async def findings() -> list[box.Finding]:
        return [box.Finding("disk", True, "enough")]

    async def status() -> dict[str, Any]:
        return {"pid": 1}

    async def shutdown(kill_agents: bool) -> None:
        asked.append(kill_agents)

    loop = asyncio.new_event_loop()
    os.mkfifo(tmp_path / "in")
    hands, stdin = Near(), os.open(tmp_path / "in", os.O_RDWR)
    services = Services(
        log_folder=lambda namespace, uid: state / "logs" / f"{namespace}_{uid}",
        counters=counters,
        findings=findings,
        status=status,
        shutdown=shutdown,
        indexes=lambda told: None,
        allowed_uids=frozenset({os.getuid()}),
        version="0.1.0",
        visits=visiting.Room(
            hands, lambda box_id: {"in": stdin}, lambda data: data.replace(b"hunter2", b"***")
        ),
    )
    path = tmp_path / "run" / "a.sock"
    sock = sockets.bind(path)
    serve = serving.serve(daemon_http.app(store, services), sock, services.ending)
    thread = threading.Thread(target=loop.run_until_complete, args=(serve,))
    thread.start()
    made = Api(path, state, store, services, loop, hands, tmp_path / "in", asked)
    made.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    yield made
    loop.call_soon_threadsafe(services.ending.set)
    thread.join(SECONDS)
    assert services.visits is not None
    loop.run_until_complete(services.visits.close())
    os.close(stdin)
    store.close()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
