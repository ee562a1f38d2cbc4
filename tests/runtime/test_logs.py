"""CRI logs: what is written, and that reading gives the same back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.runtime import logs

WHEN = "2026-01-02T03:04:05.123456789Z"
STREAMS = st.sampled_from(["stdout", "stderr"])
BATCHES = st.lists(st.tuples(STREAMS, st.binary(min_size=1, max_size=200)), max_size=20)


def test_stamp_has_nanoseconds_in_utc() -> None:
    assert logs.stamp(1_767_323_045_123_456_789) == "2026-01-02T03:04:05.123456789Z"


@pytest.mark.parametrize(
    ("data", "written"),
    [
        (b"a\n", b"W stdout F a\n"),
        (b"a\nb", b"W stdout F a\nW stdout P b\n"),
        (b"b", b"W stdout P b\n"),
        (b"\n\n", b"W stdout F \nW stdout F \n"),
        (b"", b""),
    ],
)
def test_records_mark_what_is_whole(data: bytes, written: bytes) -> None:
    assert logs.records("stdout", data, "W") == written


@given(BATCHES)
def test_what_is_written_is_read_back(batches: list[tuple[str, bytes]]) -> None:
    joiner = logs.Joiner()
    lines = [line for stream, data in batches for line in joiner.feed(logs.records(stream, data, WHEN))]
    lines += joiner.rest()
    for stream in ("stdout", "stderr"):
        given_bytes = b"".join(data for name, data in batches if name == stream)
        assert logs.texts(line for line in lines if line.stream == stream) == given_bytes


def write(path: Path, text: str, when: str = WHEN) -> None:
    with path.open("ab") as file:
        file.write(logs.records("stdout", text.encode(), when))


def test_rotation_keeps_at_most_so_many_files(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    for number in range(5):
        path.write_text(str(number))
        logs.rotate(path, 3)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"1.log.1": "4", "1.log.2": "3"}


def test_one_file_alone_is_thrown_away_when_full(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    path.write_text("x")
    logs.rotate(path, 1)
    assert list(tmp_path.iterdir()) == []


def test_reading_spans_rotated_files(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    write(path, "one\ntw")
    logs.rotate(path, 3)
    write(path, "o\nthree\n")
    assert [line.text for line in logs.read(path)] == [b"one", b"two", b"three"]


@pytest.mark.parametrize("tail", [0, 1, 5, 99, 100, 5000])
def test_tail_gives_the_last_lines(tmp_path: Path, tail: int) -> None:
    path = tmp_path / "1.log"
    for start in range(0, 3000, 1000):
        logs.rotate(path, 5)
        write(path, "".join(f"line {number} {'x' * 60}\n" for number in range(start, start + 1000)))
    numbers = [int(line.text.split()[1]) for line in logs.read(path, tail=tail)]
    assert numbers == list(range(3000))[3000 - min(tail, 3000) :]


def test_tail_keeps_a_line_together(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    for piece in ("a", "b", "c\n", "d", "e\n"):
        write(path, piece)
    assert [line.text for line in logs.read(path, tail=1)] == [b"de"]


def test_since_leaves_out_what_is_older(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    write(path, "old\n", "2026-01-01T00:00:00.000000000Z")
    write(path, "new\n", "2026-01-03T00:00:00.000000000Z")
    assert [line.text for line in logs.read(path, since="2026-01-02T00:00:00Z")] == [b"new"]


def test_what_is_no_record_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    path.write_bytes(b"torn\n" + logs.records("stdout", b"x\n", WHEN) + b"2026 stdout F cut off")
    assert [line.text for line in logs.read(path)] == [b"x"]
