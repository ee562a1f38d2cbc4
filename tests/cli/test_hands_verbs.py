"""exec, attach, cp and port-forward as a person runs them: a process of their own, on pipes and on a terminal."""

import contextlib
import fcntl
import http.server
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import kinds
from tests.cli.conftest import Daemon, Ran, agent

AGENTK = [sys.executable, "-m", "agentk.cli.main"]
SECONDS = 60


@pytest.fixture
def there(daemon: Daemon) -> Daemon:
    daemon.api.create(kinds.AGENT, "default", agent("a"))
    daemon.status("a", phase="Running", attempt=1, boxID="u-1")
    return daemon


def ran(*words: str, stdin: bytes = b"") -> Ran:
    done = subprocess.run([*AGENTK, *words], input=stdin, capture_output=True, timeout=SECONDS, check=False)
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.fd, self.slave = os.openpty()
        self.resize(90, 30)
        self.before = termios.tcgetattr(self.slave)
        slave = self.slave
        self.process = subprocess.Popen([*AGENTK, *words], preexec_fn=lambda: os.login_tty(os.dup(slave)))
        self.said = b""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, text: str) -> bytes:
        while text.encode() not in self.said:
            self.said += os.read(self.fd, 1000)
        return self.said

    def ended(self) -> int:
        """Its exit code; the terminal is as it was."""
        code = self.process.wait(SECONDS)
        assert termios.tcgetattr(self.slave) == self.before
        os.close(self.slave)
        os.close(self.fd)
        return code


@pytest.fixture
def terminal() -> Iterator[type[Terminal]]:
    yield Terminal


def test_exec_gives_output_and_exit_code(there: Daemon) -> None:
    told = ran("exec", "agent/a", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (told.code, told.out, told.err) == (7, "out\n", "err\n")
    assert ran("exec", "a", "true").code == 0
    assert ran("exec", "a", "--", "sh", "-c", "kill -TERM $$").code == 128 + signal.SIGTERM
    assert ran("exec", "a", "--", "/no/such").code == 127
    assert ran("exec", "--timeout", "1s", "a", "--", "sleep", "100").code == 124


def test_exec_passes_input_on(there: Daemon) -> None:
    data = os.urandom(2_000_000)
    done = subprocess.run(
        [*AGENTK, "exec", "-i", "a", "--", "cat"], input=data, capture_output=True, timeout=SECONDS
    )
    assert (done.returncode, done.stdout == data) == (0, True)
    assert ran("exec", "a", "--", "cat", stdin=b"not passed on").out == ""


def test_exec_options_after_the_agent_are_the_commands_own(there: Daemon) -> None:
    assert ran("exec", "a", "--", "echo", "-n", "--tty").out == "--tty"
    assert ran("exec", "a", "echo", "-n", "--", "--tty").out == "-- --tty"
    assert ran("exec", "a", "sh", "-c", "echo $1", "--", "b").out == "b\n"
    done = ran("exec", "a", "-n", "default", "--timeout", "60s", "--", "echo", "-n", "-i")
    assert done.out == "-i", done.err
    assert ran("exec", "a", "echo", "-i").out == "-i\n"


def test_exec_tells_what_is_wrong(there: Daemon) -> None:
    told = ran("exec", "b", "--", "true")
    assert (told.code, "not found" in told.err) == (125, True)
    assert "hint: agentk get agents -A" in told.err
    assert "hint: agentk get agents" in ran("exec", "pool/a", "--", "true").err
    there.status("a", phase="Succeeded")
    told = ran("exec", "a", "--", "true")
    assert (told.code, "not running: Succeeded" in told.err) == (125, True)
    told = ran("port-forward", "a", ":80")
    assert (told.code, "not running: Succeeded" in told.err) == (1, True)
    there.status("a", phase="Suspended", reason="Suspended")
    assert "hint: agentk resume a" in ran("exec", "a", "--", "true").err
    there.status("a", phase="Suspended", reason="Preempted")
    told = ran("exec", "a", "--", "true")
    assert "frozen: Preempted" in told.err and "hint: agentk describe agent a" in told.err
    assert "hint: agentk exec a -- COMMAND" in ran("exec", "a").err
    assert "no terminal" in ran("exec", "-it", "a", "--", "true").err


def test_exec_that_is_killed_ends_the_command(there: Daemon) -> None:
    running = subprocess.Popen(
        [*AGENTK, "exec", "a", "--", "sh", "-c", "echo on; sleep 1000"], stdout=subprocess.PIPE
    )
    with running:
        assert running.stdout is not None and running.stdout.readline() == b"on\n"
        running.kill()
    ended(there.hands.pids[0])


def ended(pid: int) -> None:
    deadline = time.monotonic() + SECONDS
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_exec_on_a_terminal(there: Daemon, terminal: Any) -> None:
    shown = terminal(
        "exec", "-it", "a", "--", "sh", "-c", "stty size; read x; echo got $x; stty size; exit 5"
    )
    shown.until("30 90")
    shown.resize(100, 40)
    shown.type("words\r")
    shown.until("40 100")
    assert b"got words" in shown.said
    assert shown.ended() == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_is_put_back_when_we_are_told_to_end(there: Daemon, terminal: Any, number: int) -> None:
    shown = terminal("exec", "-it", "a", "--", "sh", "-c", "echo on; sleep 1000")
    shown.until("on")
    assert termios.tcgetattr(shown.slave) != shown.before
    shown.process.send_signal(number)
    assert shown.ended() == 128 + number
    ended(there.hands.pids[0])


def test_ctrl_c_goes_to_the_command_on_a_terminal(there: Daemon, terminal: Any) -> None:
    shown = terminal(
        "exec",
        "-it",
        "a",
        "--",
        "sh",
        "-c",
        "trap 'echo heard; exit 9' INT; echo on; while :; do sleep 0.1; done",
    )
    shown.until("on")
    shown.type("\x03")
    shown.until("heard")
    assert shown.ended() == 9


def test_a_terminal_is_put_back_when_the_daemon_goes_away(there: Daemon, terminal: Any) -> None:
    shown = terminal("exec", "-it", "a", "--", "sh", "-c", "echo on; sleep 1000")
    shown.until("on")
    there.hands.boxes.clear()
    assert there.services.visits is not None
    for task in list(there.services.visits.running):
        task.get_loop().call_soon_threadsafe(task.cancel)
    assert shown.ended() == 125


def test_attach_ends_with_the_agents_code(there: Daemon) -> None:
    assert "spec.stdin" in ran("attach", "-i", "a").err
    there.log("a", 1, "2026-01-01T00:00:00.000000000Z stdout P waiting ")
    looking = subprocess.Popen([*AGENTK, "attach", "a"], stdout=subprocess.PIPE)
    with looking:
        assert looking.stdout is not None and looking.stdout.read(8) == b"waiting "
        there.log("a", 1, "2026-01-01T00:00:00.000000000Z stdout F is over")
        assert looking.stdout.readline() == b"is over\n"
        there.status("a", phase="Failed", lastTermination={"attempt": 1, "exitCode": 3})
    assert looking.returncode == 3


# cp


def test_cp_goes_both_ways(there: Daemon, tmp_path: Path) -> None:
    box, here = tmp_path / "box", tmp_path / "here"
    box.mkdir()
    (here / "tree" / "below").mkdir(parents=True)
    (here / "tree" / "below" / "f").write_bytes(os.urandom(700_000))
    (here / "tree" / "run").write_text("#!/bin/sh\n")
    (here / "tree" / "run").chmod(0o750)
    (here / "tree" / "l").symlink_to("below/f")
    assert ran("cp", f"{here}/tree", f"a:{box}").code == 0
    assert ran("cp", f"{here}/tree", f"agent/a:{box}/other").code == 0
    assert ran("cp", f"{here}/tree/run", f"a:{box}/renamed").code == 0
    assert sorted(os.listdir(box)) == ["other", "renamed", "tree"]
    assert (box / "renamed").stat().st_mode & 0o777 == 0o750
    assert ran("cp", f"a:{box}/other", f"{tmp_path}/back").code == 0
    assert (tmp_path / "back" / "l").read_bytes() == (here / "tree" / "below" / "f").read_bytes()
    assert os.readlink(tmp_path / "back" / "l") == "below/f"
    assert ran("cp", f"a:{box}/renamed", f"{tmp_path}/back").code == 0
    assert (tmp_path / "back" / "renamed").stat().st_mode & 0o777 == 0o750


def test_cp_leaves_out_what_leads_out(there: Daemon, tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "evil\x1b[2J").symlink_to("/etc/passwd")
    (tmp_path / "box" / "good").write_text("x")
    told = ran("cp", f"a:{tmp_path}/box", f"{tmp_path}/out")
    assert (told.code, os.listdir(tmp_path / "out")) == (1, ["good"])
    assert "left out" in told.err and "\x1b" not in told.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("a:/x", "b:/y"), "one of the two"),
        (("./a", "./b"), "one of the two"),
        (("a:relative", "./b"), "begins with /"),
        (("./no/such", "a:/tmp"), "no such file"),
        (("a:/no/such", "./b"), "no such file"),
    ],
)
def test_cp_tells_what_is_wrong(there: Daemon, words: tuple[str, str], why: str) -> None:
    told = ran("cp", *words)
    assert told.code in (1, 2) and why in told.err


# port-forward


@pytest.fixture
def served() -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * 1_000_000)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def forwarded(*words: str) -> Iterator[tuple[int, Any]]:
    running = subprocess.Popen(
        [*AGENTK, "port-forward", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with running:
        try:
            assert running.stdout is not None
            line = running.stdout.readline().decode()
            assert line.startswith("Forwarding from 127.0.0.1:"), line
            yield int(line.split(":")[1].split()[0]), running
        finally:
            running.send_signal(signal.SIGINT)


def test_port_forward_takes_many_connections(there: Daemon, served: int) -> None:
    with forwarded("a", f":{served}") as (port, running):
        found: list[int] = []

        def fetch() -> None:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=SECONDS) as answer:
                found.append(len(answer.read()))

        threads = [threading.Thread(target=fetch) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [1_000_000] * 8
    assert running.returncode == 130


def test_port_forward_tells_of_a_port_where_nobody_listens(there: Daemon) -> None:
    with forwarded("a", ":1") as (port, running):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=SECONDS)
        assert b"port 1: " in running.stderr.readline()


@pytest.mark.parametrize(
    "words", [("a", "x"), ("a", "0"), ("a", "70000"), ("a", "80", "--address", "0.0.0.0")]
)
def test_port_forward_refuses(there: Daemon, words: tuple[str, ...]) -> None:
    assert ran("port-forward", *words).code == 2


def test_port_forward_on_a_port_that_is_taken(there: Daemon, served: int) -> None:
    told = ran("port-forward", "a", f"{served}:80")
    assert (told.code, "in use" in told.err) == (1, True)


def test_completion_knows_agents_and_what_is_copied(there: Daemon) -> None:
    for verb in ("exec", "attach", "port-forward"):
        assert ran("complete", "--", verb, "").lines == ["a"]
        assert ran("complete", "--", verb, "agent/").lines == ["agent/a"]
    assert ran("complete", "--", "exec", "-it", "a", "").lines == []
    assert ran("complete", "--", "cp", "").lines == ["a:/"]
