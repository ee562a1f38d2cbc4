"""The process that speaks with Podman for the launcher, and the only one that imports podman-py.

JSON lines over a socketpair: {"id": 1, "op": "run", …} gets {"id": 1, "ok": {…}} or {"id": 1, "error": "…"}. Every op
is repeatable, for the launcher asks again when we die. We hold nothing that is not in Podman or in the launcher's
records; our end, and our service's, ends no box. Nothing of a guest ever comes here.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
from podman.api.client import APIClient, APIResponse

from agentk.runtime.podman import images, service, spec

Message = dict[str, Any]
_AT_ONCE = 8
_SECONDS = 60.0  # of one request; a start takes a tenth of a second
_EXIT_SECONDS = 10.0  # between the end of a container's first process and Podman's knowledge of it
_PROCESSES_MAX = 1 << 22  # the kernel's own
_REMOVE_TRIES = 20
_PAUSE_SECONDS = 0.01
_NOT_FOUND, _ERRORS = 404, 400
_POOLS = {"image": "images", "hold": "holders", "let_go": "holders"}
_OTHERS = {"images": 12, "holders": 1}  # threads


class Worker:
    def __init__(self, channel: socket.socket, folder: Path, instance: str) -> None:
        self._channel, self._folder, self._instance = channel, folder, instance
        self._services: dict[str, service.Service] = {}  # by their OCI runtime
        self._starting = threading.Lock()
        self._making = _Locks()
        self._telling = threading.Lock()
        self._local = threading.local()
        self._oci = service.oci_runtimes()
        self._ops: dict[str, Callable[[Message], Message]] = {
            "ready": self._ready,
            "run": self._run,
            "ended": self._ended,
            "remove": self._remove,
            "rename": self._rename,
            "list": self._list,
            "image": self._image,
            "hold": self._hold,
            "let_go": self._let_go,
        }

    def serve(self) -> None:
        """Until the launcher hangs up."""
        pool = concurrent.futures.ThreadPoolExecutor(_AT_ONCE)
        # A registry that never ends keeps no box waiting; and what holds images hears in the order it was told.
        others = {name: concurrent.futures.ThreadPoolExecutor(count) for name, count in _OTHERS.items()}
        with self._channel.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                others.get(_POOLS.get(message["op"], ""), pool).submit(self._answer, message)
        os._exit(0)  # what is under way is asked again, of the next worker

    def _answer(self, message: Message) -> None:
        told: Message = {"id": message["id"]}
        try:
            told["ok"] = self._ops[message["op"]](message)
        except service.Refused as refused:
            told |= {"error": str(refused), "status": refused.status}
        except service.Unstartable as error:
            told |= {"error": str(error), "status": 0}
        except Exception as error:  # noqa: BLE001 (one op's surprise must not leave the launcher waiting)
            told |= {"error": f"{type(error).__name__}: {error}", "status": 500}
        self._tell(told)

    def _tell(self, told: Message) -> None:
        with self._telling:
            self._channel.sendall(json.dumps(told).encode() + b"\n")

    # asking Podman

    def _ask(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """Podman's answer. Raises Refused. A service that died is started again, and asked again."""
        return self._ask_of("", method, path, body, params)

    def _ask_of(
        self, oci: str, method: str, path: str, body: Any = None, params: Message | None = None
    ) -> Any:
        """Of the service with that OCI runtime."""
        try:
            return self._asked(self._serve(oci), method, path, body, params or {})
        except requests.exceptions.ConnectionError:
            time.sleep(_PAUSE_SECONDS)  # its end is known in a moment
            return self._asked(self._serve(oci), method, path, body, params or {})

    def _asked(self, serving: service.Service, method: str, path: str, body: Any, params: Message) -> Any:
        data = None if body is None else json.dumps(body)
        call: Callable[..., APIResponse] = getattr(self._client(serving), method)
        headers = {"Content-Type": "application/json"}
        told = call(
            path, params=params, headers=headers, timeout=_SECONDS, **({"data": data} if data else {})
        )
        content = _content(told)
        if told.status_code >= _ERRORS:
            words = content.get("message") or content.get("cause") if isinstance(content, dict) else ""
            raise service.Refused(told.status_code, str(words or told.reason))
        return content

    def _client(self, serving: service.Service) -> APIClient:
        """One for each thread: a session is not for two at once."""
        if not hasattr(self._local, "clients"):
            self._local.clients = {}
        clients: dict[Path, tuple[service.Service, APIClient]] = self._local.clients
        known = clients.get(serving.socket)
        if known is None or known[0] is not serving:
            known = serving, APIClient(base_url=f"http+unix://{serving.socket}", version="4.0.0")
            clients[serving.socket] = known
        return known[1]

    def _serve(self, oci: str = "") -> service.Service:
        """The service with that OCI runtime; "" is the one that works on this host."""
        if not oci and not self._oci:
            raise service.Unstartable(f"none of {', '.join(service.OCI_RUNTIMES)} is in PATH")
        with self._starting:
            name = oci or self._oci[0]
            serving = self._services.get(name)
            if serving is None or serving.ends():
                serving = self._services[name] = service.start(self._folder, name)
            return serving

    # the ops

    def _ready(self, message: Message) -> Message:
        """Start the service if there is none; who serves, whose namespaces the stage is made in."""
        serving = self._serve()
        version = self._ask("get", "/version").get("Version", "") if message.get("version") else ""
        # Podman lowers its own or, as root, raises it; what is put into a box has no more than we have.
        which = resource.RLIMIT_NPROC
        bounds = [resource.prlimit(serving.pid, which)[1], resource.getrlimit(which)[1]]
        hard = min((bound for bound in bounds if bound >= 0), default=_PROCESSES_MAX)
        return {"pid": serving.pid, "oci": self._oci, "version": version, "processes": hard}

    def _run(self, message: Message) -> Message:
        """Create and start a container. One of that name is from before: it never ran its agent."""
        wanted: Message = message["spec"]
        chosen = wanted.get("oci_runtime")
        with self._making.of(wanted["name"]):  # who gives it up asks for its removal: that comes after
            for name in [chosen] if chosen else list(self._oci):
                try:
                    told = self._made(wanted, name)
                except service.Refused as refused:
                    self._forget(wanted["name"])
                    if chosen or name == self._oci[-1] or "OCI" not in str(refused):
                        raise
                    continue
                if not chosen and name != self._oci[0]:  # what works here is tried first from now on
                    self._oci = [name, *(other for other in self._oci if other != name)]
                return told
        raise service.Unstartable(f"none of {', '.join(service.OCI_RUNTIMES)} is in PATH")

    def _made(self, wanted: Message, oci: str) -> Message:
        try:
            made = self._ask_of(oci, "post", "/containers/create", wanted)
        except service.Refused as refused:
            if "already in use" not in str(refused):
                raise
            self._forget(wanted["name"])
            made = self._ask_of(oci, "post", "/containers/create", wanted)
        self._ask_of(oci, "post", f"/containers/{made['Id']}/start")
        state = self._inspect(made["Id"])["State"]
        return {"container": made["Id"], "pid": state["Pid"], "conmon": state["ConmonPid"]}

    def _inspect(self, name: str) -> Message:
        told: Message = self._ask("get", f"/containers/{name}/json")
        return told

    def _ended(self, message: Message) -> Message:
        """How a container ended whose first process is gone. {} when Podman never learns it, or forgot it."""
        deadline = time.monotonic() + _EXIT_SECONDS
        while True:
            try:
                state = self._inspect(message["container"])["State"]
            except service.Refused as refused:
                if refused.status == _NOT_FOUND:
                    return {}
                raise
            if state["Status"] in ("exited", "stopped"):
                return {"code": state["ExitCode"], "oom": bool(state["OOMKilled"])}
            if time.monotonic() > deadline:
                return {}
            time.sleep(_PAUSE_SECONDS)

    def _remove(self, message: Message) -> Message:
        """By id or name, dead or alive. Repeatable."""
        with self._making.of(message["container"]):
            self._forget(message["container"])
        return {}

    def _rename(self, message: Message) -> Message:
        """Repeatable: one that has the name keeps it. One of that name from before never ran its agent."""
        container, name = message["container"], message["name"]
        with self._making.of(name):
            if self._inspect(container)["Name"] == name:
                return {}
            self._forget(name)
            self._ask("post", f"/containers/{container}/rename", name=name)
        return {}

    def _forget(self, name: str) -> None:
        for tries in range(_REMOVE_TRIES):
            try:
                self._ask("delete", f"/containers/{name}", force="true", timeout="0", v="true")
                return
            except service.Refused as refused:
                if refused.status == _NOT_FOUND:
                    return
                # it is on its way out of the kernel, or its own cleanup is at work
                if tries + 1 == _REMOVE_TRIES:
                    raise
                time.sleep(_PAUSE_SECONDS * (tries + 1))

    def _list(self, message: Message) -> Message:
        """Every container of this instance: id and box."""
        labels = json.dumps({"label": [f"{spec.LABEL_INSTANCE}={self._instance}"]})
        told = self._ask("get", "/containers/json", all="true", filters=labels)
        return {"containers": [{"id": one["Id"], "box": one["Labels"][spec.LABEL_BOX]} for one in told]}

    # images

    def _image(self, message: Message) -> Message:
        """Find or pull. How far that is, is told meanwhile."""

        def told(words: str) -> None:
            self._tell({"id": message["id"], "told": words})

        return images.get(self._ask, lambda: self._client(self._serve()), message, told)

    def _hold(self, message: Message) -> Message:
        return {"path": images.hold(self._ask, message["image"], self._instance)}

    def _let_go(self, message: Message) -> Message:
        images.let_go(self._ask, message["used"], self._instance)
        return {}


def _content(told: APIResponse) -> Any:
    """JSON; of a mount it is a path as it is."""
    try:
        return told.json() if told.content else {}
    except ValueError:
        return told.text.strip()


class _Locks:
    """One for each name, as long as somebody has it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: dict[str, tuple[threading.Lock, int]] = {}

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        with self._guard:
            lock, count = self._held.get(name, (threading.Lock(), 0))
            self._held[name] = (lock, count + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, count = self._held[name]
                self._held[name] = (lock, count - 1)
                if count == 1:
                    del self._held[name]


def main() -> None:
    """Does not return before the launcher is gone."""
    parser = argparse.ArgumentParser(prog="python -m agentk.runtime.podman.worker", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the launcher's channel")
    parser.add_argument("--folder", type=Path, required=True, help="for the service's socket and settings")
    parser.add_argument("--instance", required=True, help="what our containers are labelled with")
    chosen = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Worker(socket.socket(fileno=chosen.fd), chosen.folder, chosen.instance).serve()


if __name__ == "__main__":
    main()
