"""`agentk compat …`: programs written for other kernels, run on the host, as guests of the gate."""

import contextlib
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from agentk.api import errors, kinds
from agentk.cli import connect, options, show, usage
from agentk.client import client, scripts, upgrading, watching

app = typer.Typer(
    **options.APP,
    help="""Let programs written for other kernels use the gate.

    Example:

    \b
      agentk compat agentos --socket /tmp/agentos.sock --socket /tmp/clove.sock
    """,
)

HELD = "agentk.dev/held"
_START_SECONDS = 60.0
_AGAIN_SECONDS = 10.0  # for a daemon that is started anew: it keeps the Agent a little longer
_PAUSE_SECONDS = 0.2


@app.callback()
def _verbs() -> None:
    """Keeps `agentos` a word of its own, also while it is the only one."""


@app.command()
def agentos(
    sockets: Annotated[
        list[str], typer.Option("--socket", metavar="PATH", help="Where programs connect; repeatable.")
    ],
    name: Annotated[str, typer.Option("--name", help="Of the Agent; default: compat- and chance.")] = "",
    policy: Annotated[str, typer.Option("--policy", metavar="NAME", help="What it may.")] = "baseline",
    memory: Annotated[str, typer.Option("--memory", metavar="SIZE", help="Most of any script.")] = "512Mi",
    cpu: Annotated[str, typer.Option("--cpu", metavar="CPUS", help="Most of any script.")] = "1",
    pids: Annotated[int, typer.Option("--pids", metavar="COUNT", help="Most of any script.")] = 128,
    hosts: Annotated[
        list[str] | None, typer.Option("--allow-host", metavar="HOST", help="It may reach; repeatable.")
    ] = None,
    namespace: options.Namespace = "",
) -> int:
    """Serve AgentOS programs of this user on sockets, until Ctrl-C.

    They are one Agent, which exists as long as this command runs: think, exec, files, messages and spawned scripts
    go through its gate under its Policy, in jails. Spawned scripts get the files beside them and are deleted with it.
    One that is to be sandboxed: false runs where it is, without a jail, if there is a Runtime of type process and the
    Policy allows it; else that is refused.

    Examples:

    \b
      agentk compat agentos --socket /tmp/agentos.sock
      agentk compat agentos --socket ./kernel.sock --policy restricted --name demo &
      python3 my_program.py ./kernel.sock
    """
    where = options.namespace(namespace)
    wanted = _agent(name or f"compat-{secrets.token_hex(4)}", policy, hosts or [])
    wanted["spec"]["resources"] = {"limits": {"memory": memory, "cpu": cpu, "pids": pids}}
    with _interruptible() as interrupted:
        return _serve(wanted, where, [Path(one).absolute() for one in sockets], interrupted)


def _agent(name: str, policy: str, hosts: list[str]) -> dict[str, Any]:
    """It only has to be there: what is run for it runs beside it."""
    spec: dict[str, Any] = {
        "command": ["sleep", "infinity"],
        "policyRef": {"name": policy},
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 1,
    }
    if hosts:
        spec["network"] = {"egress": {"allow": [{"host": host, "ports": [80, 443]} for host in hosts]}}
    metadata = {"name": name, "annotations": {HELD: "agentos"}, "labels": {"agentos-host": name}}
    return {"apiVersion": kinds.API_VERSION, "kind": "Agent", "metadata": metadata, "spec": spec}


def _serve(wanted: dict[str, Any], namespace: str, paths: list[Path], interrupted: threading.Event) -> int:
    name = wanted["metadata"]["name"]
    api = connect.connect()
    if len(set(paths)) != len(paths):
        raise usage.Usage("a --socket is given twice")
    target = f"/agentk/v1/held/{namespace}/{name}"
    with contextlib.ExitStack() as stack:
        bridges = []
        for path in paths:  # before anything is made: a path that cannot be is told at once
            bridge = upgrading.Bridge(
                path, lambda: upgrading.upgrade(api.socket, f"{target}/frames", "agentos-frames")
            )
            stack.callback(bridge.close)
            bridges.append(bridge)
        made = api.create(kinds.AGENT, namespace, wanted)
        stack.callback(_delete, namespace, name, made["metadata"]["uid"])
        lease = _Lease(lambda: upgrading.upgrade(api.socket, f"{target}/lease", "agentk-lease"))
        stack.callback(lease.close)
        lease.start()
        _wait_until_it_runs(api, namespace, name, interrupted)
        for bridge in bridges:
            bridge.start()
            show.say(f"agent/{name} serves AgentOS programs on {bridge.path}")
        lease.wait(interrupted)
    return 130 if interrupted.is_set() else 0


def _wait_until_it_runs(api: client.Client, namespace: str, name: str, interrupted: threading.Event) -> None:
    """Raises what keeps it from running."""
    end = time.monotonic() + _START_SECONDS
    while not interrupted.is_set():
        obj = api.get(kinds.AGENT, namespace, name)
        if (obj.get("status") or {}).get("phase") == "Running":
            return
        for kind in ("Accepted", "SandboxReady", "LimitsEnforced"):
            condition = watching.condition(obj, kind)
            told = time.monotonic() > end or condition.get("reason") in ("PolicyNotFound", "RuntimeNotFound")
            if condition.get("status") == "False" and told:
                raise errors.RuntimeRefused(
                    f"agent/{name} does not start: {condition.get('message')}", hint="agentk doctor"
                )
        if time.monotonic() > end:
            raise errors.Timeout(f"agent/{name} does not start", hint=f"agentk describe agent {name}")
        interrupted.wait(0.05)


def _delete(namespace: str, name: str, uid: str) -> None:
    """With all it spawned. A daemon that is down does it when it is back: nobody holds the Agent any more."""
    with contextlib.suppress(errors.AgentkError):
        connect.connect(starts=False).delete(kinds.AGENT, namespace, name, uid=uid)


class _Lease:
    """Holds the Agent, and reads scripts for the daemon, which cannot."""

    def __init__(self, open_: Callable[[], socket.socket]) -> None:
        self._open = open_
        self._connection: socket.socket | None = None
        self._over = threading.Event()
        self._closed = False
        self.error: errors.AgentkError | None = None

    def start(self) -> None:
        """Raises when it cannot be held."""
        self._connection = self._hold(time.monotonic() + _AGAIN_SECONDS)
        threading.Thread(target=self._run, name="lease", daemon=True).start()

    def wait(self, interrupted: threading.Event) -> None:
        """Until the command is told to end, or the Agent is gone."""
        while not interrupted.wait(_PAUSE_SECONDS):
            if self._over.is_set():
                raise self.error or errors.Unavailable("the session has ended")

    def close(self) -> None:
        self._closed = True
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def _hold(self, end: float) -> socket.socket:
        """Tries again while the daemon is not there, or has not heard of the Agent yet."""
        while True:
            try:
                return self._open()
            except (errors.NotFound, errors.Conflict, errors.Unavailable):
                if time.monotonic() > end or self._closed:
                    raise
            time.sleep(_PAUSE_SECONDS)

    def _run(self) -> None:
        try:
            while not self._closed and self._connection is not None:
                self._answer(self._connection)
                if not self._closed:
                    self._connection = self._hold(time.monotonic() + _AGAIN_SECONDS)
        except errors.NotFound:
            self.error = errors.NotFound("the session's Agent was deleted")
        except errors.AgentkError as error:
            self.error = error
        finally:
            self._over.set()

    def _answer(self, connection: socket.socket) -> None:
        """Until it ends."""
        with connection, connection.makefile("rb") as lines:
            try:
                for line in lines:
                    connection.sendall(json.dumps(_answer(json.loads(line))).encode() + b"\n")
            except (OSError, ValueError):
                return


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        bring = scripts.brought if asked.get("jailed", True) else scripts.placed
        spec, path = bring(asked["script"], Path.cwd(), os.environ)
    except errors.AgentkError as error:
        return {"source": asked["source"], "error": error.message}
    return {"source": asked["source"], "spec": spec, "path": path}


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    told = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: told.set()) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
