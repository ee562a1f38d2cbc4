"""The native dialect, without I/O: bytes of one connection in, calls to answer out; answers in, lines to write out.

It never does a call, and never answers one twice. A line that is no JSON ends the connection, because nothing after
it can be trusted to be a line; a message that is wrong is told so, and the next one is read.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from agentk.api import errors
from agentk.sdk import wire

LINES_A_TURN = 32  # of one guest; then others have their turn on the loop: some 1 ms of parsing
CALLS = 64  # under way at once, of one guest: enough for a program with a thread for each tool
RUNNING_BYTES = 32 * 1024 * 1024  # lines of calls under way, of one guest; a call alone may always run
HELD_BYTES = 64 * 1024 * 1024  # read and not yet begun, of one guest: eight of the longest lines


class Asked:
    """One call of a connection, from its line to its answer."""

    __slots__ = ("id", "key", "method", "params", "seq", "size_bytes", "trace")

    def __init__(self, request: wire.Request, size_bytes: int) -> None:
        self.id, self.method, self.params, self.key, self.trace = request
        self.size_bytes = size_bytes
        self.seq = 0  # of the next item of its stream


class Revoked:
    """The guest takes a call back. It is still to be answered, as Cancelled."""

    __slots__ = ("asked",)

    def __init__(self, asked: Asked) -> None:
        self.asked = asked


Event = Asked | Revoked | bytes  # bytes: a line to write


class Room:
    """What one guest may have under way and in buffers, over all its connections."""

    def __init__(
        self, calls: int = CALLS, running_bytes: int = RUNNING_BYTES, held_bytes: int = HELD_BYTES
    ) -> None:
        self._most_calls, self._most_running, self._most_held = calls, running_bytes, held_bytes
        self._waiting: deque[Callable[[], None]] = deque()
        self.lines_left = LINES_A_TURN  # that may be read before others have their turn on the loop
        self.calls = 0
        self.running_bytes = 0
        self.held_bytes = 0

    def enter(self, size_bytes: int) -> bool:
        """Whether a call may begin now."""
        if self.calls >= self._most_calls:
            return False
        if self.calls and self.running_bytes + size_bytes > self._most_running:
            return False
        self.calls += 1
        self.running_bytes += size_bytes
        return True

    def leave(self, size_bytes: int) -> None:
        self.calls -= 1
        self.running_bytes -= size_bytes
        self.wake()

    def hold(self, more_bytes: int) -> bool:
        """Counts what buffers gained or lost; False when that is more than the guest may."""
        self.held_bytes += more_bytes
        return self.held_bytes <= self._most_held

    def wait(self, woken: Callable[[], None], first: bool = False) -> None:
        """`woken` is called once, when there may be room. `first`: it was woken before, and there was none."""
        if first:
            self._waiting.appendleft(woken)
        else:
            self._waiting.append(woken)

    def wake(self) -> None:
        """Lets the one that waits longest try. Who gets in, or gives up, wakes the next."""
        if self._waiting:
            self._waiting.popleft()()

    def forget(self, woken: Callable[[], None]) -> None:
        if woken in self._waiting:
            self._waiting.remove(woken)


class Conversation:
    """One connection. Feed it, do what it says, and read on only while it is neither `blocked` nor has `more`."""

    def __init__(
        self, room: Room, line_bytes: int = wire.LINE_BYTES, lines_a_turn: int = LINES_A_TURN
    ) -> None:
        self._room = room
        self._lines = wire.Lines(line_bytes)
        self._line_bytes = line_bytes
        self._lines_a_turn = lines_a_turn
        self._under_way: dict[wire.Id, Asked] = {}
        self._next: Asked | None = None  # read, and not begun: the guest has too many under way
        self._counted_bytes = 0
        self.more = False  # lines may be left: call `feed` again before reading on
        self.closing = False  # write what there is, then close

    @property
    def blocked(self) -> bool:
        """A call waits for room: call `feed` again when the room wakes you."""
        return self._next is not None

    @property
    def ahead_bytes(self) -> int:
        """What was read and not looked at yet."""
        return len(self._lines)

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def feed(self, data: bytes = b"") -> list[Event]:
        """What is to be done, of a bounded number of lines. Never raises for anything a guest sends."""
        events: list[Event] = []
        if self.closing:
            return events
        if data:
            self._lines.feed(data)
        self.more = False
        for _ in range(self._lines_a_turn):
            if self._next is None:
                if not self._room.lines_left:
                    self.more = True
                    break
                self._room.lines_left -= 1
            if self._next is None and not self._read(events):
                break
            if self._next is not None and not self._begin(events):
                break
            if not self._lines:
                break  # as a rule: one line came, and it was a call
        else:
            self.more = not self.closing
        if self._lines or self._next is not None or self._counted_bytes:
            self._count(events)
        return events

    def keep(self, data: bytes) -> list[Event]:
        """Holds what came while the conversation is blocked or has more: those have their turn, not this."""
        events: list[Event] = []
        if not self.closing:
            self._lines.feed(data)
            self._count(events)
        return events

    def reply(self, asked: Asked, result: Any) -> bytes:
        """The line that answers a call; b"" when that was answered, or nobody is there to hear it."""
        if not self._done(asked):
            return b""
        try:
            line = wire.response(asked.id, result)
        except wire.UNSAYABLE:
            return self._failure(asked.id, errors.AgentkError("the answer cannot be said in JSON"))
        if len(line) > self._line_bytes:
            told = f"the answer has {len(line)} bytes: a line holds {self._line_bytes}"
            return self._failure(asked.id, errors.TooLarge(told, hint="ask for less at once"))
        return line

    def fail(self, asked: Asked, error: errors.AgentkError) -> bytes:
        return self._failure(asked.id, error) if self._done(asked) else b""

    def item(self, asked: Asked, data: Any) -> bytes:
        """One item of a call's stream. Raises BadRequest or TooLarge for what cannot be sent."""
        if self._under_way.get(asked.id) is not asked:
            return b""
        try:
            line = wire.stream(asked.id, asked.seq, data)
        except wire.UNSAYABLE:
            raise errors.BadRequest("the item cannot be said in JSON") from None
        if len(line) > self._line_bytes:
            raise errors.TooLarge(f"the item has {len(line)} bytes: a line holds {self._line_bytes}")
        asked.seq += 1
        return line

    def hang_up(self) -> list[Asked]:
        """Nobody is there any more: what was under way, to be cancelled. Safe to call again."""
        self.closing = True
        self._next = None
        self._lines = wire.Lines(self._line_bytes)
        self._room.hold(-self._counted_bytes)
        self._counted_bytes = 0
        left = list(self._under_way.values())
        for asked in left:
            self._done(asked)
        return left

    def _read(self, events: list[Event]) -> bool:
        """Takes one line. False when there is none, or none can follow."""
        try:
            line = self._lines.take()
            if line is None:
                return False
            said = wire.read_request(line)
            if isinstance(said, wire.Cancel):
                asked = self._under_way.get(said.id)
                if asked is not None:  # else it was answered while this was on its way
                    events.append(Revoked(asked))
            elif said.id in self._under_way:
                # With this id the error would be taken for the answer of the call under way.
                events.append(wire.failure(None, wire.INVALID_REQUEST, _twice(said.id)))
            else:
                self._next = Asked(said, len(line))
        except wire.Refused as refused:
            self._refuse(events, refused)
        return not self.closing

    def _begin(self, events: list[Event]) -> bool:
        asked = self._next
        if asked is None or not self._room.enter(asked.size_bytes):
            return False
        self._next = None
        self._under_way[asked.id] = asked
        events.append(asked)
        return True

    def _count(self, events: list[Event]) -> None:
        held = len(self._lines) + (self._next.size_bytes if self._next is not None else 0)
        fits = self._room.hold(held - self._counted_bytes)
        self._counted_bytes = held
        if not fits and held and not self.closing:
            told = "the connections of this agent hold too much at once: use fewer, or smaller calls"
            self._refuse(events, wire.Refused(wire.CODES["RequestEntityTooLarge"], told, fatal=True))

    def _refuse(self, events: list[Event], refused: wire.Refused) -> None:
        kind = errors.TooLarge if refused.code == wire.CODES["RequestEntityTooLarge"] else errors.BadRequest
        status = kind(refused.message).to_status()
        events.append(wire.failure(refused.id, refused.code, refused.message, status))
        self.closing = self.closing or refused.fatal

    def _done(self, asked: Asked) -> bool:
        if self._under_way.get(asked.id) is not asked:
            return False
        del self._under_way[asked.id]
        self._room.leave(asked.size_bytes)
        return True

    def _failure(self, id: wire.Id, error: errors.AgentkError) -> bytes:
        status: Mapping[str, Any] = error.to_status()
        code = wire.CODES.get(error.code, wire.INTERNAL_ERROR)
        try:
            line = wire.failure(id, code, status["message"], status)
        except wire.UNSAYABLE:  # half a surrogate pair, in a text of somebody else's
            line = b""
        if not line or len(line) > self._line_bytes:
            line = wire.failure(id, code, f"{error.code}: the rest cannot be told", {"reason": error.code})
        return line


def _twice(id: wire.Id) -> str:
    return f"a call with the id {id!r} is under way: use another"
