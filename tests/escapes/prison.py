"""A real launcher with real boxes, and the look at the host afterwards. What hostile programs run in."""

import base64
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime import logs, uids
from agentk.runtime.launcher import asking, wire
from tests.escapes import outside

HOSTILE = Path(__file__).parent / "hostile"
MIB = 1024 * 1024
PATIENCE_SECONDS = (
    100.0  # an emulated machine is ten times slower; nothing here asserts how long something took
)
CANARY = "AGENTK_ESCAPES_CANARY"  # in the launcher's environment: no box may see it
LIMITS = words.Limits(cpu_millis=2000, memory_bytes=192 * MIB, pids=64, open_files=256, storage_bytes=8 * MIB)


@dataclass(frozen=True)
class Agent:
    uid: str
    host_uid: int


@dataclass(frozen=True)
class Ended:
    """A box that is over: how, what it reported (its one JSON line), and every line it wrote."""

    exit: words.Exit
    seen: words.Seen
    lines: Sequence[bytes] = field(repr=False)

    @property
    def text(self) -> str:
        return b"\n".join(self.lines).decode(errors="replace")

    @property
    def report(self) -> Any:
        for line in reversed(self.lines):
            if line.startswith(b"REPORT "):
                return json.loads(line.removeprefix(b"REPORT "))
        raise AssertionError(
            f"no report: {self.exit}\n" + b"\n".join(self.lines[-40:]).decode(errors="replace")
        )


def until(what: str, true: Callable[[], Any]) -> Any:
    """What `true` answers as soon as that is something; fails naming `what`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := true()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)
    return answer


class Prison:
    def __init__(self, runtime: str) -> None:
        self.runtime, _, how = runtime.partition("-")
        self.claims = how == "claimed"
        # wide open, so that what guards agentk's own directories is only what the launcher does to them
        self.folder = Path(tempfile.mkdtemp(prefix="agentk-escapes-"))
        self.folder.chmod(0o755)
        self.rootless = os.geteuid() != 0
        self.state = self.folder / "state"
        self.state.mkdir(mode=0o750)
        run = os.environ.get("XDG_RUNTIME_DIR", "/tmp") if self.rootless else "/run"
        self.run_dir = Path(tempfile.mkdtemp(prefix="agentk-run-", dir=run))
        self.run_dir.chmod(0o710)
        self.instance = f"escapes{os.getpid()}{how}"
        self.agents: list[Agent] = []
        self._group_roots: list[Path] = []
        self._numbers = itertools.count(1)
        self.launch()
        self.block = range(0) if self.rootless else uids.block(self.state, self.instance)
        self.hello = self.ask("hello", version=wire.VERSION)
        told = until("its runtime was tried", self._probed)
        self.unhappy = "" if told["available"] else str(told["reason"])
        self.own_mounts = len(self.launcher_mounts()) - self._around

    @property
    def missing(self) -> dict[str, str]:
        """Controller → why this host cannot limit it."""
        return dict(self.hello["missing"])

    # the launcher

    def launch(self, crash_at: str = "") -> None:
        command = [sys.executable, "-I", "-m", "agentk.runtime.launcher", "--state", str(self.state)]
        command += ["--run", str(self.run_dir), "--instance", self.instance]
        env = {**os.environ, CANARY: "a host's secret", "AGENTK_CRASH_AT": crash_at}
        self._around = len(outside.mounts_of("self"))  # it begins with those, whoever else's they are
        self.process = subprocess.Popen(command, env=env)
        until("the launcher answers", self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the launcher ended at its start"
        return asking.peer(self.run_dir / "launcher.sock") is not None

    def _probed(self) -> Any:
        """Podman's first service on a machine takes its time."""
        with contextlib.suppress(errors.Unavailable):
            return self.ask("probe", runtime=self.runtime)["probe"]
        return None

    def murder(self) -> None:
        """kill -9 of the launcher."""
        self.process.kill()
        self.process.wait()

    def end_launcher(self) -> None:
        """In peace, with every box and group."""
        asking.end(self.run_dir / "launcher.sock", kill_boxes=True)
        self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        self.end_launcher()
        if not self.rootless:
            uids.release(self.state)
        shutil.rmtree(self.run_dir, ignore_errors=True)
        shutil.rmtree(self.folder)

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        return asking.ask(self.run_dir / "launcher.sock", {"verb": verb, **fields})

    # boxes

    def agent(self) -> Agent:
        number = next(self._numbers)
        made = Agent(str(uuid.uuid4()), -1 if self.rootless else self.block[number])
        self.agents.append(made)
        return made

    def box(self, argv: Sequence[str], agent: Agent | None = None, **fields: Any) -> words.Box:
        agent = agent or self.agent()
        code = {path.name: base64.b64encode(path.read_bytes()).decode() for path in HOSTILE.glob("*.py")}
        mounts = [
            words.Mount("workspace", "/workspace", read_only=False),
            words.Mount("files", "/hostile", files=code),
            *fields.pop("mounts", ()),
        ]
        attempt = fields.pop("attempt", 1)
        return words.Box(
            id=f"{agent.uid}-{attempt}",
            uid=agent.uid,
            namespace="escapes",
            attempt=attempt,
            argv=argv,
            runtime=self.runtime,
            host_uid=agent.host_uid,
            mounts=mounts,
            # escapes are tried also where this host lacks a limit; the tests of limits say what they need
            **{"limits": LIMITS, "enforcement": "BestEffort" if self.missing else "Strict", **fields},
        )

    def start(self, program: str, facts: Any = None, **fields: Any) -> words.Seen:
        """A box that runs hostile/PROGRAM.py with `facts` about the host."""
        argv = ["python", f"/hostile/{program}.py", json.dumps(facts)]
        return self.start_box(self.box(argv, **fields))

    def start_box(self, made: words.Box) -> words.Seen:
        return self.claim(made) if self.claims else self.start_cold(made)

    def claim(self, made: words.Box) -> words.Seen:
        """The same box, out of one that waited."""
        uid = f"w-{made.uid}"
        if uid not in (agent.uid for agent in self.agents):
            self.agents.append(Agent(uid, made.host_uid))
        mounts = [mount for mount in made.mounts if mount.kind not in ("files", "workspace")]
        waiting = dataclasses.replace(
            made, id=f"w-{made.id}", uid=uid, waits=True, argv=(), env={}, hostname="waiting", mounts=mounts
        )
        self.start_cold(waiting)
        return wire.seen_from(self.ask("claim", waiting_id=waiting.id, box=wire.plain(made))["seen"])

    def start_cold(self, made: words.Box) -> words.Seen:
        return wire.seen_from(self.ask("start", box=wire.plain(made))["seen"])

    def see(self, box_id: str) -> words.Seen:
        for told in self.ask("list")["boxes"]:
            if told["id"] == box_id:
                return wire.seen_from(told)
        raise AssertionError(f"no box {box_id}")

    def wait(self, seen: words.Seen) -> Ended:
        def over() -> words.Seen | None:
            now = self.see(seen.id)
            return now if now.phase in ("Exited", "Lost") else None

        ended = until(f"{seen.id} ends", over)
        return Ended(ended.exit, ended, self.lines(ended))

    def run(self, program: str, facts: Any = None, **fields: Any) -> Ended:
        return self.wait(self.start(program, facts, **fields))

    def run_beside(self, program: str, facts: Any = None, **fields: Any) -> Ended:
        """As `run`, as a command beside a box that only waits."""
        seen = self.start_box(self.box(["sleep", "1000"], **fields))
        if self.claims and not self.rootless and self.runtime == "nsjail":
            self.ask("exec", box_id=seen.id, argv=["python", "-c", ""], timeout_seconds=PATIENCE_SECONDS)
            until("a Python waits for the next command", lambda: self._waits_beside(seen))
        argv = ["python", f"/hostile/{program}.py", json.dumps(facts)]
        told = self.ask("exec", box_id=seen.id, argv=argv, timeout_seconds=PATIENCE_SECONDS)
        result = wire.exec_result_from(told)
        return Ended(result.exit, seen, (result.stdout + result.stderr).splitlines())

    def run_hand(self, program: str, facts: Any = None, **fields: Any) -> Ended:
        """As `run`, put into a box that only waits, with ends of ours: its output is a pipe."""
        return self.put(self.start_box(self.box(["sleep", "1000"], **fields)), program, facts)

    def put(self, seen: words.Seen, program: str, facts: Any = None) -> Ended:
        """Into a box that runs, until it has ended."""
        read, write = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        argv = ["python", f"/hostile/{program}.py", json.dumps(facts)]
        said: list[bytes] = []
        reading = threading.Thread(target=lambda: said.append(whole(read)))
        reading.start()
        try:
            told = self._enter(seen, argv, (null, write, write))
        finally:
            os.close(write)
            os.close(null)
            reading.join()
        return Ended(wire.exit_from(told["exit"]), seen, said[0].splitlines())

    def run_typed(self, program: str, facts: Any = None, **fields: Any) -> Ended:
        """As `run`, typed into the shell that is the box's own program: what `attach -i` passes on."""
        return self.wait(self.start_typed(program, facts, **fields))

    def start_typed(self, program: str, facts: Any = None, **fields: Any) -> words.Seen:
        """As `start`, typed."""
        made = self.box(["sh"], stdin=True, **fields)  # never claimed: a box that waited has nothing to read
        seen = self.start_cold(made)
        record = self.state / "boxes" if self.runtime == "nsjail" else self.run_dir / "doors" / made.uid
        line = shlex.join(["exec", "python", f"/hostile/{program}.py", json.dumps(facts)])
        with open(record / made.id / "in", "w") as typing:
            typing.write(f"{line}\n")
        return seen

    def _enter(self, seen: words.Seen, argv: Sequence[str], fds: Sequence[int]) -> dict[str, Any]:
        message = {"id": 1, "verb": "enter", "box_id": seen.id, "hand_id": "hand"}
        message |= {"argv": argv, "fds": len(fds)}
        inbox = wire.Inbox()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_SECONDS)
            connection.connect(str(self.run_dir / "launcher.sock"))
            socket.send_fds(connection, [json.dumps(message).encode() + b"\n"], list(fds))
            while data := connection.recv(1 << 16):
                for told, _ in inbox.feed(data):
                    assert "error" not in told, told
                    return dict(told["ok"])
        raise ConnectionError("the launcher ended meanwhile")

    def _waits_beside(self, seen: words.Seen) -> bool:
        uid = next(agent.host_uid for agent in self.agents if agent.uid == seen.uid)
        return any(
            uid in outside.owners(pid) and outside.oom_score(pid) == "1000" for pid in outside.processes()
        )

    def how(self, where: str) -> Callable[..., Ended]:
        """`run`, or what does the same beside a box or in one."""
        ways = {"": self.run, "beside": self.run_beside, "hand": self.run_hand, "typed": self.run_typed}
        return ways[where]

    def run_box(self, made: words.Box) -> Ended:
        return self.wait(self.start_box(made))

    def log_files(self, seen: words.Seen) -> list[Path]:
        return logs.rotated(Path(seen.log_path))

    def lines(self, seen: words.Seen) -> list[bytes]:
        return [line.text for line in logs.read(Path(seen.log_path))]

    def said(self, seen: words.Seen, words_: bytes) -> None:
        """Wait until a running box has written a line that begins so."""

        def spoken() -> bool:
            assert self.see(seen.id).phase == "Running", b"\n".join(self.lines(seen)).decode(errors="replace")
            return any(line.startswith(words_) for line in self.lines(seen))

        until(f"{seen.id} says {words_!r}", spoken)

    def counters(self, seen: words.Seen) -> words.Counters:
        return wire.counters_from(self.ask("counters", box_id=seen.id)["counters"])

    def kill(self, seen: words.Seen) -> Ended:
        self.ask("kill", box_id=seen.id, intent=wire.plain(words.Intent("Killed")))
        return self.wait(seen)

    # what is left

    def release_all(self) -> None:
        for agent in self.agents:
            self.ask("release", namespace="escapes", uid=agent.uid)
        try:
            until("nothing is left", lambda: not self.leftovers())
        except AssertionError:
            pytest.fail("left behind: " + "; ".join(self.leftovers()))
        finally:
            self.agents = []

    def leftovers(self) -> list[str]:
        """Everything on the host that any of our agents still has, one line each."""
        host_uids = {agent.host_uid for agent in self.agents} - {-1}
        # a corpse whose keeper died with it waits for the host's init, which takes its time
        found = [
            f"process {pid}"
            for pid in outside.processes()
            if set(outside.owners(pid)) & host_uids and not outside.is_corpse(pid)
        ]
        # one child of the launcher may be ready for the next box, and one for the next claim
        found += [f"process {pid} of the launcher" for pid in self._kin()[1 + self.claims :]]
        names = {agent.uid for agent in self.agents}
        found += [f"container {name}" for name in self.containers()]
        found += [f"keeper {pid}" for pid in outside.processes() if _keeps(pid, names)]
        found += [f"cgroup {path}" for path in self.groups() if path.name in names]
        ours = (self.folder.name, self.run_dir.name)
        found += [f"mount {line}" for line in outside.mounts_of("self") if any(name in line for name in ours)]
        now = self.launcher_mounts()
        found += [f"{len(now)} mounts of the launcher"] if len(now) - self._around > self.own_mounts else []
        found += [f"loop device {file}" for file in outside.loops() if str(self.folder) in file]
        folders = [self.state / place for place in ("boxes", "workspaces", "logs")]
        for folder in [*folders, self.run_dir / "doors"]:
            entries = os.listdir(folder) if folder.is_dir() else []
            found += [f"{folder}/{entry}" for entry in entries if any(name in entry for name in names)]
        return found

    def groups(self) -> list[Path]:
        """Every cgroup of this instance."""
        if not self._group_roots:  # they stay where the first launcher found room for them
            name = f"agentk-{self.instance}"
            found = os.walk("/sys/fs/cgroup")
            self._group_roots = [Path(at) / name for at, folders, _ in found if name in folders]
        return [Path(at) for root in self._group_roots for at, *_ in os.walk(root)]

    def launcher_mounts(self) -> list[str]:
        return outside.mounts_of(str(self.process.pid))

    def _kin(self) -> list[int]:
        """Children of the launcher, then what an earlier one left."""
        known = {self.process.pid, *self._speakers()}
        told = {pid: outside.status(pid) for pid in outside.processes() if pid not in known}
        children = [pid for pid in told if told[pid].get("PPid") == str(self.process.pid)]
        strangers = [
            pid for pid in told if pid not in children and str(self.state) in outside.command_of(pid)
        ]
        return (children or [0]) + strangers

    def _speakers(self) -> list[int]:
        """What speaks with Podman for this launcher: it is no box's and stays."""
        mark = str(self.run_dir / "podman")
        return [
            pid
            for pid in outside.processes()
            if "agentk.runtime.podman.worker" in outside.command_of(pid) and mark in outside.command_of(pid)
        ]

    def containers(self) -> list[str]:
        """Names of all that Podman has of this launcher's."""
        if self.runtime != "podman":
            return []
        digest = hashlib.sha256(os.fsencode(self.state)).hexdigest()[:16]
        command = ["podman", "ps", "--all", "--format={{.Names}}"]
        command += [f"--filter=label=dev.agentk.instance={digest}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def whole(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def _keeps(pid: int, uids: set[str]) -> bool:
    """Whether it is a conmon of one of these agents."""
    command = outside.command_of(pid)
    return "conmon" in command and any(uid in command for uid in uids)
