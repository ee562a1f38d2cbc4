"""The AgentOS header without I/O: cut anywhere, and wrong in every way."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.broker import door
from agentk.broker.dialects import frames
from agentk.broker.dialects.frames import Frame, Frames, Refused

IDS = st.integers(0, 2**32 - 1)
FRAMES = st.lists(st.builds(Frame, IDS, st.integers(0, 255), st.binary(max_size=200)), max_size=8)


def written(sent: list[Frame]) -> bytes:
    return b"".join(frames.encode(*frame) for frame in sent)


def taken(reader: Frames) -> list[Frame]:
    found = []
    while (frame := reader.take()) is not None:
        found.append(frame)
    return found


@given(FRAMES, st.lists(st.integers(1, 60), min_size=1))
def test_frames_come_whole_however_they_are_cut(sent: list[Frame], cuts: list[int]) -> None:
    data, reader, found, at, turn = written(sent), Frames(), [], 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        reader.feed(data[at : at + size])
        found += taken(reader)
        at, turn = at + size, turn + 1
    assert found == sent and len(reader) == 0


@given(FRAMES, st.integers(0, 2000))
def test_a_part_of_a_frame_is_no_frame(sent: list[Frame], cut: int) -> None:
    data = written(sent)
    whole, size = 0, 0
    while whole < len(sent) and size + sent[whole].size_bytes <= cut:
        size += sent[whole].size_bytes
        whole += 1
    reader = Frames()
    reader.feed(data[:cut])
    assert taken(reader) == sent[:whole]


@given(st.binary(max_size=300))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    reader = Frames()
    for at in range(len(data)):
        reader.feed(data[at : at + 1])
        try:
            taken(reader)
        except Refused:
            with pytest.raises(Refused):
                reader.take()
            assert len(reader) == 0


@pytest.mark.parametrize("size", [frames.PAYLOAD_BYTES + 1, 2**31, 2**63, 2**64 - 1])
def test_a_huge_length_is_refused_by_its_header_alone(size: int) -> None:
    reader = Frames()
    reader.feed(struct.pack("<IIBQ", frames.MAGIC, 7, 3, size))
    with pytest.raises(Refused) as refused:
        reader.take()
    assert refused.value.opcode == 3 and str(size) in refused.value.message
    reader.feed(b"x" * 100_000)
    assert len(reader) == 0  # nothing is kept of what follows


def test_the_largest_payload_goes_through() -> None:
    reader = Frames()
    reader.feed(frames.encode(1, 0, bytes(frames.PAYLOAD_BYTES)))
    frame = reader.take()
    assert frame is not None and len(frame.payload) == frames.PAYLOAD_BYTES
    with pytest.raises(ValueError):
        frames.encode(1, 0, bytes(frames.PAYLOAD_BYTES + 1))


def test_the_second_frame_may_be_the_wrong_one() -> None:
    reader = Frames()
    reader.feed(frames.encode(0, 0, b"one") + b"GET / HTTP/1.1\r\n")
    assert reader.take() == Frame(0, 0, b"one")
    with pytest.raises(Refused):
        reader.take()


def test_the_magic_is_what_the_door_knows() -> None:
    assert frames.encode(1, 2, b"")[:4] == door.AGENTOS_MAGIC
    assert struct.calcsize("<IIBQ") == frames.HEADER_BYTES == 17
