"""A command in an agent's box, or the agent's own program, with our own streams as its streams.

One thread that polls; nothing is held but what a pipe would hold. How it ends is the exit code that the daemon tells.
"""

import contextlib
import json
import os
import select
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agentk.api import channels
from agentk.client import lines, wire

_CHUNK_BYTES = 32 * 1024
_STATUS_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Streams:
    """Descriptors of ours; -1 for an input that is not passed on."""

    stdin: int = -1
    stdout: int = 1
    stderr: int = 2
    resized: int = -1  # readable when the terminal has another size …
    size: Callable[[], tuple[int, int]] | None = None  # … which this tells: columns, rows
    # What is written of what came for a descriptor: a terminal need not obey what others wrote.
    shown: Callable[[int, bytes], bytes] = lambda fd, data: data


def run(line: lines.Line, streams: Streams) -> int:
    """The exit code. Raises what the daemon says when there is none, and Cut when it went away."""
    status = bytearray()
    reads = streams.stdin
    poll = select.poll()
    while not line.ended:
        wanted = {line.fileno(): select.POLLIN | (select.POLLOUT if line.wants_to_write else 0)}
        if reads >= 0 and line.has_room:
            wanted[reads] = select.POLLIN
        if streams.resized >= 0:
            wanted[streams.resized] = select.POLLIN
        ready = _ready(poll, wanted)
        if streams.resized in ready and streams.size is not None:
            os.read(streams.resized, _CHUNK_BYTES)
            line.say(channels.RESIZE, channels.sized(*streams.size()))
        if reads in ready:
            reads = _pass_on(line, reads)
        if line.fileno() in ready:
            line.flush()
            _tell(line.hear(), streams, status)
    return _ended(bytes(status))


def _ready(poll: "select.poll", wanted: Mapping[int, int]) -> set[int]:
    for fd, events in wanted.items():
        poll.register(fd, events)
    try:
        return {fd for fd, _ in poll.poll()}
    finally:
        for fd in wanted:
            poll.unregister(fd)


def _pass_on(line: lines.Line, stdin: int) -> int:
    """What is to be read from next: -1 after the end."""
    try:
        data = os.read(stdin, _CHUNK_BYTES)
    except BlockingIOError:
        return stdin
    except OSError:  # a terminal that has gone
        data = b""
    if data:
        line.say(channels.STDIN, data)
        return stdin
    line.close_channel(channels.STDIN)
    return -1


def _tell(heard: list[channels.Heard], streams: Streams, status: bytearray) -> None:
    for channel, data in heard:
        if channel in (channels.STDOUT, channels.STDERR):
            fd = streams.stdout if channel == channels.STDOUT else streams.stderr
            write_all(fd, streams.shown(fd, data))
        elif channel == channels.ERROR and len(status) < _STATUS_MAX_BYTES:
            status += data


def write_all(fd: int, data: bytes) -> None:
    """Also to a descriptor that does not wait, which another program may have left us."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def _ended(status: bytes) -> int:
    with contextlib.suppress(ValueError):
        told = json.loads(status)
        if isinstance(told, dict):
            return channels.exit_code(told)
    raise wire.Cut("the daemon went away; what was running has ended with it", hint="agentk daemon status")
