"""Other processes, other agents, the host's sockets and the network: out of reach."""

import ctypes
import os
import posixpath
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentk.runtime import nsjail
from tests.escapes import outside, ways
from tests.escapes import prison as prisons

pytestmark = pytest.mark.jail

SECRET = "only-for-its-owner-5417"
PORT = 9999  # the victim's, on its own loopback
GONE = {"ESRCH", "ENOENT"}
SCRATCH = ("/workspace", "/tmp", "/dev/shm")


@dataclass
class Scene:
    """What one attacker got, beside a victim that ran and a host that listened; and what came of those."""

    report: Any
    victim_uid: str
    victim_phase: str
    bystander_states: list[str]
    heard: list[str]


WAYS = [("", "baseline"), ("", "restricted"), *((how, "baseline") for how in ways.INTO)]


@pytest.fixture(scope="session", params=[pytest.param(way, id=" ".join(filter(None, way))) for way in WAYS])
def scene(request: pytest.FixtureRequest, built: prisons.Prison) -> Iterator[Scene]:
    if built.unhappy:
        pytest.skip(built.unhappy)
    with ExitStack() as left:
        yield _play(built, left, *request.param)


def _play(prison: prisons.Prison, left: ExitStack, how: str, seccomp: str) -> Scene:
    attacker = prison.agent()
    victim = prison.start("victim", {"secret": SECRET, "name": "victim", "port": PORT}, agent=prison.agent())
    prison.said(victim, b"VICTIM")
    standing = [outside.bystander(attacker.host_uid), outside.bystander(-1)]
    for process in standing:
        left.callback(outside.end, process)
    listeners = _listeners(prison, left)
    key = 0x41470000 + os.getpid() % 0xFFFF
    left.callback(_shared_memory(key))
    assert victim.process
    door = f"{prison.run_dir}/doors/{victim.uid}/gate.sock"
    own = [f"{folder}/secret" for folder in SCRATCH]
    facts = {
        "pids": [victim.process.pid, os.getpid(), prison.process.pid, *(one.pid for one in standing)],
        "paths": [door, f"{prison.state}/workspaces/{victim.uid}", victim.log_path, *own],
        "unix": ["\0victim", f"\0agentk-escape-{os.getpid()}", f"{prison.folder}/open.sock", door],
        "tcp": [["127.0.0.1", PORT], list(listeners[2].getsockname()), ["192.0.2.1", 80], ["10.0.0.1", 22]],
        "tcp6": [["::1", listeners[-1].getsockname()[1]], ["2001:db8::1", 80], ["fe80::1", 80]],
        "shm_key": key,
        # to all it can name: what was put into a box would end that box's own program, and with it itself
        "all": how != "hand",
    }
    report = prison.how(how)("reaching", facts, agent=attacker, seccomp=seccomp).report
    states = [outside.status(one.pid).get("State", "gone") for one in standing]
    phase = prison.see(victim.id).phase
    for one in standing:
        outside.end(one)
    prison.release_all()
    return Scene(report, victim.uid, phase, states, [str(one) for one in listeners if _heard(one)])


def test_signals_reach_only_its_own(scene: Scene) -> None:
    """kill -9 of -1 takes its own child, not its init, and nobody of the host: not even one with its own uid."""
    told = scene.report["signals"]
    assert set(told["host"].values()) | set(told["host group"].values()) == {"ESRCH"}
    assert (told["own child"], told["init lives"]) == (-9, True)
    assert {state[0] for state in scene.bystander_states} <= {"S", "R"}
    assert scene.victim_phase == "Running"


def test_no_process_of_others_is_in_its_proc(scene: Scene) -> None:
    """Nor its memory, nor its files through /proc/PID/root."""
    for what in ("proc", "through_proc", "memory"):
        assert set(scene.report[what].values()) <= GONE, what


def test_no_file_of_others_is_in_its_tree(scene: Scene) -> None:
    """Workspace, /tmp, /dev/shm, log and door of another agent."""
    assert set(scene.report["files"].values()) == {"ENOENT"}


def test_no_socket_of_others_answers(scene: Scene) -> None:
    """Abstract names and paths of unix sockets, the host's loopback, another agent's, and any address at all."""
    nobody = {
        "ECONNREFUSED",
        "ENETUNREACH",
        "EHOSTUNREACH",
        "EADDRNOTAVAIL",
        "EAFNOSUPPORT",
        "ENOENT",
        "EINVAL",
    }
    for family in ("unix", "tcp", "tcp6"):
        assert set(scene.report[family].values()) <= nobody, family
    assert scene.report["udp"] == "ENETUNREACH"
    assert scene.heard == []


def test_its_network_is_a_loopback_and_nothing_else(scene: Scene) -> None:
    """No route, no names, no socket of another namespace in its lists, and no right to change that."""
    assert len(scene.report["routes"].splitlines()) == 1
    assert scene.report["interface_down"] == "EPERM"
    assert "Errno" in scene.report["resolve"]
    assert "launcher" not in scene.report["unix_seen"] and scene.victim_uid not in scene.report["unix_seen"]


def test_raw_and_exotic_sockets_are_refused(scene: Scene) -> None:
    """EPERM: no right; EAFNOSUPPORT: the filter."""
    told = scene.report["families"]
    assert set(told.values()) <= {"EPERM", "EACCES", "EAFNOSUPPORT", "EPROTONOSUPPORT"}
    assert told["vsock"] == told["packet"] == told["pair of packets"] == "EAFNOSUPPORT"


def test_its_own_doors_answer_and_cannot_be_moved(scene: Scene) -> None:
    """The gate's socket in a read-only directory, and the same on its loopback. Neither name tells a host path."""
    assert scene.report["gate"] == scene.report["gate_inside"] == "allowed: None"
    assert scene.report["gate_again"] == "EROFS"
    assert "doors" not in scene.report["unix_seen"]


def test_the_hosts_shared_memory_is_not_there(scene: Scene) -> None:
    """A segment that everybody on the host may use."""
    assert scene.report["shared_memory"] == "ENOENT"


def test_a_box_is_nobody_on_the_host(prison: prisons.Prison) -> None:
    """Its uid is of the reserved block and its agent's alone; without root it is our own and no other."""
    seen = [prison.start("victim", {"secret": SECRET, "name": "v", "port": PORT}) for _ in range(2)]
    found = [set(outside.owners(one.process.pid)) for one in seen if one.process]
    if prison.rootless:
        assert found == [{os.geteuid()}] * 2
    else:
        agents = {agent.uid: agent for agent in prison.agents}
        assert found == [{agents[one.uid].host_uid} for one in seen] and found[0] != found[1]
        assert all(agent.host_uid in prison.block[1:] for agent in prison.agents)


def test_the_uid_of_another_agent_opens_nothing_on_the_host(prison: prisons.Prison) -> None:
    """As if it had broken out: with the numbers of its uid alone it reads nothing of the first agent's.

    Boxes of an ordinary user share its uid. Only their namespaces part them, as the other tests prove.
    """
    victim, other = prison.start("victim", {"secret": SECRET, "name": "v", "port": PORT}), prison.agent()
    prison.said(victim, b"VICTIM")
    assert victim.process
    if prison.rootless:
        assert other.host_uid == -1
        return
    proc = Path(f"/proc/{victim.process.pid}")
    for path in ("root/workspace/secret", "cwd/secret", "environ", "mem", "fd/1"):
        assert _refused(other.host_uid, lambda path=path: (proc / path).read_bytes()), path
    for folder in (prison.state, prison.state / "workspaces" / victim.uid, prison.run_dir / "doors"):
        assert _refused(other.host_uid, lambda folder=folder: os.listdir(folder)), folder
    door = os.open(prison.run_dir / "doors" / victim.uid, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as reaching:
        assert _refused(other.host_uid, lambda: reaching.connect(f"/proc/self/fd/{door}/gate.sock"))
    os.close(door)


def test_what_one_leaves_the_next_does_not_find(prison: prisons.Prison) -> None:
    """Scratch directories begin empty with every box, a workspace with every agent."""
    first = prison.start("victim", {"secret": SECRET, "name": "v", "port": PORT})
    prison.said(first, b"VICTIM")
    prison.kill(first)
    look = ["sh", "-c", "ls -A " + " ".join(SCRATCH)]
    again = prison.run_box(prison.box(look, agent=prison.agents[0], attempt=2))
    empty = ["/dev/shm:", "/tmp:", *(posixpath.basename(link) for link in nsjail.GATE_LINKS), "/workspace:"]
    assert again.text.split() == [*empty, "secret"]
    assert prison.run_box(prison.box(look)).text.split() == empty


def _listeners(prison: prisons.Prison, left: ExitStack) -> list[socket.socket]:
    """The host's: an abstract name and a path that everybody may use, and its loopbacks, IPv6 where there is one."""
    unix = [left.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
    path = prison.folder / "open.sock"
    for one, name in zip(unix, (f"\0agentk-escape-{os.getpid()}", str(path)), strict=True):
        one.bind(name)
        one.listen()
    left.callback(path.unlink)
    path.chmod(0o777)
    tcp = [left.enter_context(socket.create_server(("127.0.0.1", 0)))]
    try:
        tcp.append(left.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6)))
    except OSError:
        pass
    return unix + tcp


def _heard(listener: socket.socket) -> bool:
    """Whether anybody connected."""
    listener.setblocking(False)
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def _refused(uid: int, act: Callable[[], object]) -> bool:
    return outside.as_uid(uid, lambda: str(act())).startswith("PermissionError")


def _shared_memory(key: int) -> Callable[[], object]:
    """Make a System V segment of the host's; answers what removes it."""
    libc = ctypes.CDLL(None, use_errno=True)
    segment = libc.shmget(key, 4096, 0o1000 | 0o666)
    assert segment >= 0, os.strerror(ctypes.get_errno())
    return lambda: libc.shmctl(segment, 0, None)
