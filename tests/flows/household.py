"""One real daemon with its keeper and launcher, in a state directory of its own, used as a person uses it.

Waiting is by watch and by wait; the deadlines are only there to end a test that has failed.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agentk.api import errors, kinds
from agentk.cli import waiting
from agentk.client import client, lifecycle, watching, wire
from agentk.data.places import Places
from agentk.runtime import logs, uids
from agentk.runtime.launcher import asking, doors
from tests.flows.host import is_alive, mounts, parent, pause, processes, read
from tests.runtime import launching

SECONDS = 100.0  # for an emulated machine under load; nothing asserts it
needs = [*launching.needs_jail, pytest.mark.timeout(900)]
IN_VM = "AGENTK_VM" in os.environ
# For stories that the runtime has a part in; the others are told once, on nsjail.
on_both = pytest.mark.parametrize("runtime", ("nsjail", "podman"))
AGENTK = [sys.executable, "-m", "agentk.cli.main"]
TINY = {"cpu": "500m", "memory": "64Mi", "pids": 16, "ephemeral-storage": "1Mi"}
Object = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Ran:
    """A command line that has ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Household:
    """State, sockets and processes of one daemon."""

    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)
    has_podman: bool = False  # whether a story here was told on it

    def __post_init__(self) -> None:
        self.places = Places(self.folder / "state", self.folder / "run")
        self.crashes = self.folder / "crashes"  # a file in here named after a crash point is one death there
        self.crashes.mkdir()
        self.crashes.chmod(0o777)

    @property
    def environment(self) -> dict[str, str]:
        told = {"AGENTK_STATE_DIR": str(self.places.state), "AGENTK_RUN_DIR": str(self.places.run)}
        return {**os.environ, **told, "AGENTK_CRASH_DIR": str(self.crashes), **self.env}

    @property
    def api(self) -> client.Client:
        return client.Client(self.places.socket)

    def agentk(self, *words: str, stdin: str = "", code: int | None = 0, **env: str) -> Ran:
        """Run the command. Fails when its exit code is not `code`; None lets any be."""
        done = subprocess.run(
            [*AGENTK, *words],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment | env,
            timeout=SECONDS * 3,
            check=False,
        )
        ran = Ran(done.returncode, done.stdout, done.stderr)
        assert code is None or ran.code == code, f"agentk {' '.join(words)}: {ran}\n{self.words()}"
        return ran

    def start(self) -> None:
        """Again when nobody answers yet: on a slow machine that takes longer than a person waits."""
        until("the daemon answers", lambda: self.agentk("daemon", "start", code=None).code == 0)
        if os.geteuid() != 0:
            wanted = {name: {"type": name, "enforcement": "BestEffort"} for name in available()}
            best = (manifest("Runtime", name, spec=spec) for name, spec in wanted.items())
            self.agentk("apply", "-f", "-", stdin=text(*best))

    def end(self) -> None:
        """Everything, whatever state it is in. What must not be there after that is the answer of `traces`."""
        for crash in self.crashes.iterdir():
            crash.unlink()
        self.agentk("daemon", "start", code=None)
        self.agentk("daemon", "stop", "--agents", code=None)
        for name in ("keeper", "daemon", "launcher"):
            self.kill(name)
        until("what they started is gone", lambda: not self._pids(), lambda: str(self._argvs()))
        if os.geteuid() == 0:
            uids.release(self.places.state)

    def words(self) -> str:
        """The end of the daemon's log, for whoever reads of a failure."""
        with contextlib.suppress(OSError):
            return (self.places.state / "daemon.log").read_text()[-4000:]
        return ""

    # processes

    def pid(self, name: str) -> int:
        """Of `keeper`, `daemon` or `launcher`; 0 when it does not live."""
        if name == "keeper":
            return lifecycle.keeper_pid(self.places) or 0
        if name == "launcher" and (listens := asking.peer(self.places.launcher_socket)):
            return listens  # a child of one that died is nobody's child, and still there for a moment
        module = {"daemon": "agentk.daemon", "launcher": "agentk.runtime.launcher"}[name]
        named = [pid for pid, argv in processes() if {module, "--state", str(self.places.state)} <= {*argv}]
        # its children that are nothing else yet are called so, too, and numbers begin anew on a busy machine
        return next((pid for pid in named if parent(pid) not in (0, *named)), 0)

    def kill(self, *names: str) -> None:
        """kill -9, all of them before the first is waited for."""
        pids = [pid for pid in map(self.pid, names) if pid]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            until(f"{pid} is gone", lambda pid=pid: not is_alive(pid))

    def answers(self) -> None:
        """Returns once the daemon answers, and the launcher answers it."""

        def asked() -> bool:
            with contextlib.suppress(errors.Unavailable):
                return bool(self.api.request("GET", "/agentk/v1/doctor"))
            return False

        until("the daemon answers", asked)

    # what is left

    def traces(self, *words: str) -> list[str]:
        """Everything on this host that is still there and names one of `words`."""
        found = [f"process {pid}: {argv[0]}" for pid, argv in processes() if self._is_in(pid, words)]
        found += [f"cgroup {path}" for path in self._cgroups() if any(word in path for word in words)]
        found += [f"file {path}" for path in self._files() if any(word in path for word in words)]
        seen = {
            mount for pid in ("self", *self._pids()) for mount in mounts(pid) if str(self.folder) in mount
        }
        found += [f"mount {mount}" for mount in seen if any(word in mount for word in words)]
        found += [f"container {told}" for told in self._containers() if any(word in told for word in words)]
        loops = [read(file).strip() for file in Path("/sys/block").glob("loop*/loop/backing_file")]
        found += [f"loop device of {path}" for path in loops if any(word in path for word in words)]
        return found

    def clean(self, *words: str) -> None:
        """Wait until nothing is left of `words`: the last process may still be on its way out of the kernel."""
        deadline = time.monotonic() + SECONDS
        while left := self.traces(*words):
            assert time.monotonic() < deadline, "left behind:\n" + "\n".join(left) + "\n" + self.words()
            pause()

    def _is_in(self, pid: int, words: Sequence[str]) -> bool:
        """Whether it runs in a cgroup of a box of theirs."""
        groups = read(Path(f"/proc/{pid}/cgroup"))
        return f"agentk-{self.places.instance}/" in groups and any(word in groups for word in words)

    def _pids(self) -> list[int]:
        """Processes of ours that are no box's: each may have mounts of its own."""
        return [pid for pid, argv in processes() if any(str(self.folder) in word for word in argv)]

    def _argvs(self) -> list[tuple[int, list[str]]]:
        return [(pid, [*argv]) for pid, argv in processes() if pid in self._pids()]

    def _containers(self) -> list[str]:
        if not self.has_podman:
            return []
        told = subprocess.run(
            ["podman", "ps", "--all", "--format", "{{.ID}} {{.Names}} {{.Labels}}"],
            capture_output=True,
            text=True,
        )
        return told.stdout.splitlines()

    def _cgroups(self) -> Iterator[str]:
        root = f"agentk-{self.places.instance}"
        for folder, names, _ in os.walk("/sys/fs/cgroup"):
            if root in folder:
                yield folder
            elif Path(folder).name.startswith("agentk-"):
                names.clear()

    def _files(self) -> Iterator[str]:
        opened = doors.open_folder(self.places.run, self.places.instance, rootless=False)
        for top in (self.places.state, self.places.run, opened):
            for folder, names, files in os.walk(top):
                for name in [*names, *files]:
                    yield f"{folder}/{name}"


@dataclass
class Space:
    """A namespace of one test's own. Agents and Pools that name no Runtime get its `runtime`."""

    home: Household
    name: str
    runtime: str = "nsjail"

    @property
    def api(self) -> client.Client:
        return self.home.api

    def agentk(self, *words: str, stdin: str = "", code: int | None = 0, **env: str) -> Ran:
        return self.home.agentk(*words, stdin=stdin, code=code, **{"AGENTK_NAMESPACE": self.name, **env})

    def begin(self, *words: str, stderr: int | None = None, **env: str) -> "subprocess.Popen[str]":
        """The command, not waited for; its output can be read while it runs."""
        told = self.home.environment | {"AGENTK_NAMESPACE": self.name} | env
        return subprocess.Popen([*AGENTK, *words], env=told, text=True, stdout=subprocess.PIPE, stderr=stderr)

    def apply(self, *objects: Object, code: int | None = 0) -> Ran:
        """`agentk apply` of all of them."""
        return self.agentk("apply", "-f", "-", stdin=text(*map(self.placed, objects)), code=code)

    def create(self, *objects: Object) -> None:
        """The same without a process for it."""
        for obj in map(self.placed, objects):
            self.api.apply(kinds.find(obj["apiVersion"], obj["kind"]), self.name, obj)

    def placed(self, obj: Object) -> Object:
        """The same object, which runs here when it is an Agent or a Pool that names no Runtime."""
        if obj["kind"] not in ("Agent", "Pool") or self.runtime == "nsjail" or "runtimeRef" in obj["spec"]:
            return obj
        return obj | {"spec": obj["spec"] | {"runtimeRef": {"name": self.runtime}}}

    def get(self, name: str, kind: kinds.Kind = kinds.AGENT) -> Object:
        return again(lambda: self.api.get(kind, self.name, name))

    def status(self, name: str) -> Object:
        return self.get(name).get("status") or {}

    def delete(self, name: str) -> None:
        """Ask for it, and wait until it is gone."""
        uid = self.get(name)["metadata"]["uid"]
        self.api.delete(kinds.AGENT, self.name, name)
        again(lambda: waiting.gone(self.api, kinds.AGENT, self.name, name, uid, waiting.deadline(SECONDS)))

    def until(self, name: str, holds: Callable[[Object], Any]) -> Object:
        """The agent once `holds` of its status."""
        selection = client.Selection(kinds.AGENT, self.name, "", f"metadata.name={name}")
        last: Object = {}

        def seen() -> Object:
            for obj in watching.states(self.api, selection, waiting.deadline(SECONDS)):
                last.update(obj or {})
                if obj is not None and holds(obj.get("status") or {}):
                    return obj
            told = json.dumps(last.get("status"), indent=1)
            pytest.fail(f"{name} never came so far: {told}\n{self.events(name)}\n{self.home.words()}")

        return again(seen)

    def phase(self, name: str, *phases: str) -> Object:
        """The agent's status once it is in one of `phases`."""
        return dict(self.until(name, lambda status: status.get("phase") in phases)["status"])

    def running(self, name: str, attempt: int = 0) -> Object:
        """The status once it runs, in this attempt or a later one."""
        return dict(
            self.until(
                name,
                lambda status: status.get("phase") == "Running" and status.get("attempt", 0) >= attempt,
            )["status"]
        )

    def logged(self, name: str, line: str) -> None:
        """Returns once the log has this line."""
        until(f"{name} logs {line}", lambda: line in self.log(name))

    def log(self, name: str) -> list[str]:
        """Every line of every attempt, as the launcher wrote them."""
        uid = self.get(name)["metadata"]["uid"]
        folder = self.home.places.state / "logs" / f"{self.name}_{uid}"
        with contextlib.suppress(FileNotFoundError):
            paths = sorted(folder.glob("*.log"), key=lambda path: int(path.stem))
            return [line.text.decode() for path in paths for line in logs.read(path)]
        return []

    def events(self, name: str) -> list[str]:
        """Reasons of what happened to it, oldest first."""
        selection = client.Selection(kinds.EVENT, self.name, "", f"involvedObject.name={name}")
        found = sorted(
            self.api.list(selection).items, key=lambda one: int(one["metadata"]["resourceVersion"])
        )
        return [one["reason"] for one in found]

    def event(self, name: str, reason: str) -> None:
        """Returns once it is told of."""
        until(f"event {reason} of {name}", lambda: reason in self.events(name))

    def close(self) -> None:
        """Delete it with all that is in it; nothing may be left on this host."""
        agents = self.api.list(client.Selection(kinds.AGENT, self.name)).items
        with contextlib.suppress(errors.NotFound):
            uid = self.api.get(kinds.NAMESPACE, "", self.name)["metadata"]["uid"]
            self.api.delete(kinds.NAMESPACE, "", self.name)
            waiting.gone(self.api, kinds.NAMESPACE, "", self.name, uid, waiting.deadline(SECONDS))
        self.home.clean(self.name, *(obj["metadata"]["uid"] for obj in agents))


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """With a short path, for sockets, which everybody may pass through."""
    made = Path(tempfile.mkdtemp(prefix="akf-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        _remove(made)


def _remove(place: Path) -> None:
    """Begun, and not waited for: packages are some twenty thousand files, and a file system that discards what is freed
    takes over a minute for them."""
    remove = 'nice -n 19 rm -rf --one-file-system -- "$1" &'
    with contextlib.suppress(OSError):
        place = place.rename(place.with_name(f"{place.name}-gone"))
    nowhere = subprocess.DEVNULL
    subprocess.run(
        ["sh", "-c", remove, "sh", place],
        stdin=nowhere,
        stdout=nowhere,
        stderr=nowhere,
        start_new_session=True,
    )


@contextlib.contextmanager
def household(**env: str) -> Iterator[Household]:
    """Started, and ended whatever happens."""
    with folder() as place:
        made = Household(place, env)
        try:
            made.start()
            yield made
        finally:
            made.end()


@contextlib.contextmanager
def space(home: Household, runtime: str = "nsjail") -> Iterator[Space]:
    """A namespace in it, which is empty at the end."""
    if runtime not in available():
        pytest.skip(f"{runtime} is not installed")
    home.has_podman |= runtime == "podman"
    made = Space(home, f"t{secrets.token_hex(4)}", runtime)
    home.api.create(kinds.NAMESPACE, "", {"metadata": {"name": made.name}})
    yield made
    made.close()


def available() -> tuple[str, ...]:
    """Runtimes whose programs are here. One that is here and cannot hold an agent fails its tests."""
    return ("nsjail", "podman") if shutil.which("podman") else ("nsjail",)


def manifest(kind: str, name: str, **parts: Any) -> Object:
    version = "v1" if kind in ("Secret", "ConfigMap", "Namespace") else "agentk.dev/v1alpha1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **parts}


def agent(name: str, *command: str, **spec: Any) -> Object:
    """A small one. `command`: a program and its words."""
    wanted = {"command": list(command) or ["sleep", "1000"], "resources": {"limits": dict(TINY)}}
    return manifest("Agent", name, spec=wanted | {"restartPolicy": "Never"} | spec)


def shell(name: str, script: str, **spec: Any) -> Object:
    return agent(name, "sh", "-c", script, **spec)


def python(name: str, program: str, **spec: Any) -> Object:
    return agent(name, "python", "-c", program, **spec)


def text(*objects: Object) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def until(what: str, true: Callable[[], Any], instead: Callable[[], str] = str) -> Any:
    """What `true` answers as soon as that is something; for what nothing tells of. `instead`: what there is else."""
    deadline = time.monotonic() + SECONDS
    while not (answer := true()):
        assert time.monotonic() < deadline, f"never: {what} {instead()}"
        pause()
    return answer


def again(ask: Callable[[], T]) -> T:
    """Once more when the daemon died in the middle of its answer."""
    try:
        return ask()
    except wire.Cut:
        return ask()
