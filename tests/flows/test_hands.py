"""Hands inside agents that run: exec, attach, cp and port-forward, in real boxes of a real household."""

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import kinds
from agentk.client import client
from tests.flows import household
from tests.flows.household import AGENTK, Space, agent, python, shell

pytestmark = [*household.needs, household.on_both]

RIGHTS = "id -u; grep -E '^(Cap(Eff|Bnd|Prm)|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t\\n' ' '"
NONE = "CapPrm: 0000000000000000 CapEff: 0000000000000000 CapBnd: 0000000000000000 NoNewPrivs: 1 Seccomp: 2"


@pytest.fixture
def there(space: Space) -> Space:
    """An agent `a` that runs, with room for hands beside it."""
    space.create(agent("a"))
    space.running("a")
    return space


@contextlib.contextmanager
def begun(space: Space, *words: str, line: str = "on\n") -> Iterator["subprocess.Popen[str]"]:
    """A command that has said so; it does not outlive the test."""
    with space.begin(*words) as running:
        try:
            assert running.stdout is not None
            said = running.stdout.readline()
            assert line in said, said
            yield running
        finally:
            running.kill()


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, space: Space, *words: str) -> None:
        self.fd, slave = os.openpty()
        self.resize(90, 30)
        env = space.home.environment | {"AGENTK_NAMESPACE": space.name, "TERM": "vt100"}
        self.process = subprocess.Popen([*AGENTK, *words], env=env, preexec_fn=lambda: os.login_tty(slave))
        os.close(slave)
        self.said = b""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(household.SECONDS)
        os.close(self.fd)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, text: str) -> None:
        while text.encode() not in self.said:
            assert select.select([self.fd], [], [], household.SECONDS)[0], self.said
            self.said += os.read(self.fd, 4096)


def test_a_command_has_the_rights_of_the_box_and_no_more(there: Space) -> None:
    assert there.agentk("exec", "agent/a", "--", "sh", "-c", RIGHTS).out.strip() == f"1000\n{NONE}"
    ran = there.agentk(
        "exec", "a", "--", "sh", "-c", "echo $AGENTK_AGENT $PWD; cat /proc/1/comm; echo no >&2"
    )
    assert ran.lines[0] == "a /workspace" and ran.err == "no\n"


def test_exit_codes(there: Space) -> None:
    there.agentk("exec", "a", "--", "sh", "-c", "exit 7", code=7)
    there.agentk("exec", "a", "--", "sh", "-c", "kill -9 $$", code=137)
    there.agentk("exec", "a", "--", "/no/such", code=127)
    there.agentk("exec", "a", "--", "/etc", code=126)
    there.agentk("exec", "--timeout", "1s", "a", "--", "sleep", "1000", code=124)
    there.agentk("exec", "nobody", "--", "true", code=125)


def test_input_reaches_the_command(there: Space) -> None:
    assert there.agentk("exec", "-i", "a", "--", "wc", "-c", stdin="x" * 300_000).out.strip() == "300000"
    assert there.agentk("exec", "-i", "a", "--", "python", "-", stdin="print(6 * 7)").out == "42\n"


def test_a_terminal_with_a_size(there: Space) -> None:
    with Terminal(there, "exec", "-it", "a", "--", "sh") as shown:
        shown.until("$ ")
        shown.type("stty size; echo $TERM\r")
        shown.until("30 90")
        shown.until("vt100")
        shown.resize(100, 40)
        shown.type("stty size\r")
        shown.until("40 100")
        shown.type("printf 'go%s\\n' ing; exec sleep 1000\r")
        shown.until("going")
        shown.type("\x03")
        assert shown.process.wait(household.SECONDS) == 128 + signal.SIGINT


def test_a_command_ends_with_its_caller(there: Space) -> None:
    """The whole group of the hand: also what left its session."""
    script = "setsid sleep 12321 & echo on; exec sleep 12321"
    with begun(there, "exec", "a", "--", "sh", "-c", script):
        household.until("both sleep", lambda: len(sleeping("12321")) == 2)
    household.until("both are gone", lambda: not sleeping("12321"))


def sleeping(seconds: str) -> list[int]:
    return [pid for pid, argv in household.processes() if argv == ["sleep", seconds]]


def test_a_command_ends_with_its_box(there: Space) -> None:
    with begun(there, "exec", "a", "--", "sh", "-c", "echo on; exec sleep 12322") as running:
        there.agentk("kill", "a", "--grace-period", "0")
        assert running.wait(household.SECONDS) in (125, 137)
    household.until("it is gone", lambda: not sleeping("12322"))


def test_visits_are_told_and_kept_without_secrets(there: Space) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "stringData": {"k": "s3cr3t-w0rds"},
    }
    there.apply(secret)
    household.until("it is known", lambda: "s3cr3t" not in said(there, "echo", "s3cr3t-w0rds"))
    audit = there.agentk("audit", "a").out
    assert "people.exec" in audit and "echo" in audit and "s3cr3t" not in audit.splitlines()[-1]


def said(space: Space, *words: str) -> str:
    """The Event of a command that is run now."""
    space.agentk("exec", "a", "--", *words)
    selection = client.Selection(kinds.EVENT, space.name, "", "involvedObject.name=a,reason=Exec")
    found = space.api.list(selection).items
    return str(max(found, key=lambda one: int(one["metadata"]["resourceVersion"]))["message"])


# attach

TALK = """
import sys
print("name? ", end="", flush=True)
for line in sys.stdin:
    print("hello", line, end="", flush=True)
"""


def test_attach_types_to_the_agents_own_program(space: Space) -> None:
    space.create(python("a", TALK, stdin=True))
    space.running("a")
    with Terminal(space, "attach", "-i", "a") as shown:
        shown.until("name? ")
        shown.type("you\r")
        shown.until("hello you")
    with Terminal(space, "attach", "-i", "a") as shown:
        shown.type("again\r")
        shown.until("hello again")
        space.agentk("kill", "a", "--grace-period", "0")
        assert shown.process.wait(household.SECONDS) == 137
    assert space.agentk("logs", "a").lines[:2] == ["name? hello you", "hello again"]


def test_the_end_of_the_daemon_is_not_the_end_of_the_input(alone: Space) -> None:
    alone.create(python("a", TALK, stdin=True))
    alone.running("a")
    alone.home.kill("daemon", "launcher")
    alone.home.answers()
    with Terminal(alone, "attach", "-i", "a") as shown:
        shown.type("you\r")
        shown.until("hello you")
    assert alone.status("a")["attempt"] == 1
    assert alone.agentk("exec", "a", "--", "echo", "on").out == "on\n"


def test_without_stdin_there_is_nothing_to_read(there: Space) -> None:
    there.agentk("attach", "-i", "a", code=125)


# cp


def test_files_go_both_ways(there: Space, tmp_path: Path) -> None:
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "f").write_bytes(os.urandom(600_000))
    (tmp_path / "tree" / "run").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "tree" / "run").chmod(0o750)
    (tmp_path / "tree" / "l").symlink_to("below/f")
    there.agentk("cp", f"{tmp_path}/tree", "a:/workspace")
    there.agentk("cp", f"{tmp_path}/tree/run", "a:/workspace/renamed")
    assert there.agentk(
        "exec", "a", "--", "sh", "-c", "tree/run; ./renamed; stat -c %a,%u renamed"
    ).lines == ["ran", "ran", "750,1000"]
    there.agentk("cp", "a:/workspace/tree", f"{tmp_path}/back")
    assert (tmp_path / "back" / "l").read_bytes() == (tmp_path / "tree" / "below" / "f").read_bytes()
    assert (tmp_path / "back" / "run").stat().st_mode & 0o777 == 0o750


def test_what_a_box_sends_stays_where_it_belongs(there: Space, tmp_path: Path) -> None:
    """Links out of the copy are left out, and nothing of the box leads the reader out of the box."""
    script = "mkdir t; ln -s /etc/passwd t/a; ln -s ../../x t/b; ln -s . t/c; mkfifo t/p; echo good >t/f; ln -s / root"
    there.agentk("exec", "a", "--", "sh", "-c", script)
    ran = there.agentk("cp", "a:/workspace/t", f"{tmp_path}/out", code=1)
    assert sorted(os.listdir(tmp_path / "out")) == ["c", "f"]
    assert "left out" in ran.err
    ran = there.agentk("cp", "a:/etc/shadow", f"{tmp_path}/shadow", code=1)
    assert "a:/etc/shadow: No such file" in ran.err and "hint: agentk exec a -- ls" in ran.err
    ran = there.agentk("cp", f"{tmp_path}/out/f", "a:/usr/f", code=1)
    assert "a:/usr/f: Read-only file system" in ran.err and "below /workspace" in ran.err
    assert "hint: mkdir" in there.agentk("cp", "a:/workspace/t", f"{tmp_path}/no/t", code=1).err
    assert not (tmp_path / "shadow").exists()


# port-forward

SERVE = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (self.path * 1000).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""


@pytest.fixture
def serving(space: Space) -> Iterator[Space]:
    space.create(python("web", SERVE, restartPolicy="Always"))
    space.running("web")
    yield space


def test_a_server_in_the_box_is_reached(serving: Space) -> None:
    with serving.begin("port-forward", "agent/web", ":8080") as running:
        try:
            assert running.stdout is not None
            reach(serving, int(running.stdout.readline().split(":")[1].split()[0]))
        finally:
            running.kill()


def reach(serving: Space, port: int) -> None:
    """By many at once, and again when the agent was started anew."""
    household.until("it listens", lambda: fetched(port, "/x"))
    found: list[Any] = []
    threads = [threading.Thread(target=lambda n=n: found.append(fetched(port, f"/{n}"))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(f"/{n}" * 1000 for n in range(8))
    serving.agentk("restart", "web")
    serving.running("web", 2)
    household.until("it listens again", lambda: fetched(port, "/y"))


def fetched(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=household.SECONDS) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_an_agent_that_has_ended_cannot_be_entered(space: Space) -> None:
    space.create(shell("a", "exit 3"))
    space.phase("a", "Failed")
    ran = space.agentk("exec", "a", "--", "true", code=125)
    assert "not running: Failed" in ran.err
