import os
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import AGENTS, Api, agent

MERGE = {"Content-Type": "application/merge-patch+json"}
LOG = f"{AGENTS}/a/log"


def _stamp(second: int) -> str:
    return f"2026-01-31T12:00:{second:02}.000000000Z"


def _line(second: int, text: str, stream: str = "stdout", tag: str = "F") -> str:
    return f"{_stamp(second)} {stream} {tag} {text}\n"


class Box:
    """What control and launcher do to an agent's status and log."""

    def __init__(self, api: Api) -> None:
        self.api = api
        uid = api.ok("POST", AGENTS, agent("a"))["metadata"]["uid"]
        self.folder = api.services.log_folder("default", uid)

    def status(self, **status: Any) -> None:
        self.api.ok("PATCH", f"{AGENTS}/a/status", {"status": status}, headers=MERGE)

    def runs(self, attempt: int = 1) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path(attempt).touch()
        self.status(phase="Running", attempt=attempt)

    def ends(self, attempt: int = 1) -> None:
        self.status(phase="Succeeded", lastTermination={"attempt": attempt, "reason": "Completed"})

    def path(self, attempt: int = 1) -> Path:
        return self.folder / f"{attempt}.log"

    def writes(self, text: str, attempt: int = 1) -> None:
        with self.path(attempt).open("a") as file:
            file.write(text)

    def rotates(self, attempt: int = 1) -> None:
        for number in (2, 1):
            old = self.folder / f"{attempt}.log.{number}"
            if old.exists():
                old.rename(self.folder / f"{attempt}.log.{number + 1}")
        self.path(attempt).rename(self.folder / f"{attempt}.log.1")
        self.path(attempt).touch()


@pytest.fixture
def box(api: Api) -> Box:
    return Box(api)


def test_log_is_what_the_agent_wrote(api: Api, box: Box) -> None:
    box.runs()
    box.writes(_line(1, "one") + _line(2, "two", "stderr") + _line(3, ""))
    answer = api.get(LOG)
    assert answer.body == b"one\ntwo\n\n"
    assert answer.headers["content-type"].startswith("text/plain")


def test_rotated_files_are_read_in_order(api: Api, box: Box) -> None:
    box.runs()
    for second in range(4):
        box.writes(_line(second, str(second)))
        if second < 3:
            box.rotates()
    assert api.get(LOG).body == b"0\n1\n2\n3\n"


def test_partial_lines_are_joined_by_stream(api: Api, box: Box) -> None:
    box.runs()
    box.writes(
        _line(1, "a", "stdout", "P") + _line(2, "X", "stderr") + _line(3, "b") + _line(4, "open", tag="P")
    )
    assert api.get(LOG).body == b"X\nab\nopen"


def test_timestamps_are_of_the_line_s_beginning(api: Api, box: Box) -> None:
    box.runs()
    box.writes(_line(1, "a", tag="P") + _line(2, "b"))
    assert api.get(LOG, timestamps="true").body == f"{_stamp(1)} ab\n".encode()


@pytest.mark.parametrize(("tail", "text"), [(0, b""), (1, b"3\n"), (3, b"1\n2\n3\n"), (9, b"0\n1\n2\n3\n")])
def test_tail_counts_lines_over_files(api: Api, box: Box, tail: int, text: bytes) -> None:
    box.runs()
    for second in range(4):
        box.writes(_line(second, str(second)))
        if second == 1:
            box.rotates()
    assert api.get(LOG, tailLines=tail).body == text


def test_tail_of_a_large_log_begins_at_a_line(api: Api, box: Box) -> None:
    box.runs()
    box.writes("".join(_line(n % 60, f"{n:06} {'x' * 200}") for n in range(5000)))
    lines = api.get(LOG, tailLines=2500).body.splitlines()
    assert (len(lines), lines[0][:6], lines[-1][:6]) == (2500, b"002500", b"004999")


def test_tail_keeps_the_whole_of_a_partial_line(api: Api, box: Box) -> None:
    box.runs()
    box.writes(_line(1, "old") + _line(2, "new", tag="P") + _line(3, "er"))
    assert api.get(LOG, tailLines=1).body == b"newer\n"


def test_since_time_and_stream_choose(api: Api, box: Box) -> None:
    box.runs()
    box.writes(_line(1, "one") + _line(2, "two", "stderr") + _line(3, "three"))
    assert api.get(LOG, sinceTime="2026-01-31T13:00:02+01:00").body == b"two\nthree\n"
    assert api.get(LOG, stream="stderr").body == b"two\n"
    assert api.get(LOG, sinceSeconds=1).body == b""


def test_limit_is_in_bytes(api: Api, box: Box) -> None:
    box.runs()
    box.writes(_line(1, "one") + _line(2, "two"))
    assert api.get(LOG, limitBytes=5).body == b"one\nt"


def test_previous_is_the_attempt_before(api: Api, box: Box) -> None:
    box.runs(1)
    box.writes(_line(1, "first"))
    api.fails(400, "GET", LOG, query={"previous": "true"})
    box.runs(2)
    box.writes(_line(2, "second"), 2)
    assert api.get(LOG).body == b"second\n"
    assert api.get(LOG, previous="true").body == b"first\n"


def test_torn_and_foreign_lines_are_left_out(api: Api, box: Box) -> None:
    box.runs()
    box.writes("garbage\n\n" + _line(1, "one") + "2026-01-31T12:00")
    assert api.get(LOG).body == b"one\n"


def test_endless_line_does_not_fill_memory(api: Api, box: Box) -> None:
    box.runs()
    box.writes(_line(1, "x" * 10_000, tag="P") * 200)
    assert len(api.get(LOG).body) == 2_000_000


def test_log_of_what_has_not_started(api: Api, box: Box) -> None:
    assert "not started" in api.fails(400, "GET", LOG)["message"]
    api.fails(404, "GET", f"{AGENTS}/nobody/log")


@pytest.mark.parametrize(
    "query",
    [
        {"tailLines": "-1"},
        {"sinceTime": "yesterday"},
        {"stream": "both"},
        {"sinceSeconds": "1", "sinceTime": "2026-01-31T12:00:00Z"},
        {"follow": "perhaps"},
    ],
)
def test_bad_log_queries(api: Api, box: Box, query: dict[str, str]) -> None:
    box.runs()
    api.fails(400, "GET", LOG, query=query)


def test_follow_gives_lines_as_they_come_and_ends_with_the_attempt(api: Api, box: Box) -> None:
    box.runs()
    box.writes(_line(1, "one"))
    with api.stream(LOG, follow="true") as response:
        assert response.readline() == b"one\n"
        box.writes(_line(2, "two"))
        assert response.readline() == b"two\n"
        box.writes(_line(3, "last"))
        box.ends()
        assert response.read() == b"last\n"


def test_follow_waits_for_an_agent_to_start(api: Api, box: Box) -> None:
    with api.stream(LOG, follow="true") as response:
        box.runs()
        box.writes(_line(1, "one"))
        assert response.readline() == b"one\n"


def test_follow_goes_on_over_rotations(api: Api, box: Box) -> None:
    box.runs()
    with api.stream(LOG, follow="true") as response:
        for second in range(6):
            box.writes(_line(second, str(second)))
            assert response.readline() == f"{second}\n".encode()
            box.rotates()
        box.writes(_line(9, "a"))
        box.rotates()
        box.writes(_line(9, "b"))
        box.ends()
        assert response.read() == b"a\nb\n"


def test_follow_stays_with_its_attempt(api: Api, box: Box) -> None:
    box.runs(1)
    box.writes(_line(1, "first"))
    with api.stream(LOG, follow="true") as response:
        assert response.readline() == b"first\n"
        box.runs(2)
        box.writes(_line(2, "second"), 2)
        assert response.read() == b""


def test_follow_ends_when_the_agent_is_deleted(api: Api, box: Box) -> None:
    box.runs()
    with api.stream(LOG, follow="true") as response:
        api.ok("DELETE", f"{AGENTS}/a")
        assert response.read() == b""


def test_follow_ends_with_the_daemon(api: Api, box: Box) -> None:
    box.runs()
    with api.stream(LOG, follow="true") as response:
        api.loop.call_soon_threadsafe(api.services.ending.set)
        assert response.read() == b""


def test_follower_that_leaves_frees_its_files(api: Api, box: Box) -> None:
    box.runs()
    box.writes(_line(1, "one"))

    def open_logs() -> int:
        return sum(str(box.folder) in _target(fd) for fd in os.listdir("/proc/self/fd"))

    with api.stream(LOG, follow="true") as response:
        assert response.readline() == b"one\n"
        assert open_logs() == 1
    assert api.settled(lambda: open_logs() == 0)


def test_follower_that_does_not_read_holds_up_nobody(api: Api, box: Box) -> None:
    box.runs()
    box.writes(_line(1, "x" * 4000) * 2000)
    slow = api.connect()
    slow.request("GET", f"{LOG}?follow=true")
    assert len(api.get(LOG).body) == 2000 * 4001
    assert api.ok("GET", f"{AGENTS}/a")["status"]["phase"] == "Running"
    box.ends()
    assert len(slow.getresponse().read()) == 2000 * 4001
    slow.close()


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""
