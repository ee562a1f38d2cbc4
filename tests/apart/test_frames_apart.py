"""Frames between the daemon and a process apart: cut anywhere, too long, or no message at all."""

import asyncio
import io
from typing import Any

import pytest

from agentk.apart import frames


def read(data: bytes) -> list[Any]:
    async def all_of_them() -> list[Any]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        found = []
        while message := await frames.read(reader):
            found.append(message)
        return found

    return asyncio.run(all_of_them())


def read_waiting(data: bytes) -> list[Any]:
    file = io.BytesIO(data)
    return list(iter(lambda: frames.read_waiting(file), None))


either = pytest.mark.parametrize("read", [read, read_waiting])


@either
def test_frames_come_back_one_by_one(read: Any) -> None:
    messages: list[dict[str, Any]] = [{"t": "data", "text": "ä\ud800\n"}, {"t": "end", "id": 7}]
    assert read(b"".join([frames.pack(message) for message in messages])) == messages


@either
def test_half_a_frame_is_the_end(read: Any) -> None:
    frame = frames.pack({"t": "ready"})
    for cut in range(len(frame)):
        assert read(frame + frame[:cut]) == [{"t": "ready"}]


@either
def test_a_frame_without_end_is_refused_before_it_is_read(read: Any) -> None:
    with pytest.raises(frames.TooLarge):
        read((frames.BYTES_MAX + 1).to_bytes(4, "big") + b"{}")


def test_a_frame_that_is_too_long_is_not_made() -> None:
    with pytest.raises(frames.TooLarge):
        frames.pack({"text": "x" * frames.BYTES_MAX})


@either
@pytest.mark.parametrize("text", [b"[]", b"7", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_message_is_a_value_error(read: Any, text: bytes) -> None:
    with pytest.raises(ValueError):
        read(len(text).to_bytes(4, "big") + text)
