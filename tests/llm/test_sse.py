"""The events of a stream are the same however the network cuts it, and no byte is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.llm import sse

ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.one_of(
    st.binary(max_size=12).map(lambda b: b"data:" + b.translate(None, b"\r\n")),
    st.sampled_from([b": ping", b"event: a", b"id: 1", b"data", b"data: {}", b"nonsense"]),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """What is meant, and the bytes that say it."""
    meant, written = [], b""
    for lines in draw(st.lists(st.lists(LINES, min_size=1, max_size=4), max_size=5)):
        name, data = b"", []
        for line in lines:
            written += line + draw(ENDS)
            key, _, value = line.partition(b":")
            if key == b"data":
                data.append(value.removeprefix(b" "))
            elif key == b"event":
                name = value.removeprefix(b" ")
        # A lone CR before an LF would be one line end, so the blank line ends as the line before it may.
        written += b"\r\n" if written.endswith(b"\r\n") else draw(ENDS) if written.endswith(b"\n") else b"\r"
        meant.append((name, b"\n".join(data)))
    return meant, written


@given(streams(), st.data())
def test_events_do_not_depend_on_where_the_network_cuts(
    stream: tuple[list[tuple[bytes, bytes]], bytes], data: st.DataObject
) -> None:
    meant, written = stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=8)))
    parser = sse.Parser()
    events = []
    for start, end in zip([0, *cuts], [*cuts, len(written)], strict=True):
        events += parser.feed(written[start:end])
    events += parser.end()
    assert b"".join(event.raw for event in events) == written
    assert [(event.name, event.data) for event in events if event.raw.strip(b"\r\n")] == meant


@given(st.binary(max_size=200), st.integers(1, 7))
def test_any_bytes_come_out_as_they_went_in(noise: bytes, step: int) -> None:
    parser = sse.Parser()
    events = [e for n in range(0, len(noise), step) for e in parser.feed(noise[n : n + step])]
    assert b"".join(event.raw for event in [*events, *parser.end()]) == noise


def test_an_event_larger_than_the_limit_is_refused() -> None:
    parser = sse.Parser(most=100)
    with pytest.raises(sse.TooLarge):
        parser.feed(b"data: " + b"x" * 200)


def test_what_is_written_is_read() -> None:
    assert sse.read(sse.write(b"{}", b"ping")) == (b"event: ping\ndata: {}\n\n", b"ping", b"{}")
