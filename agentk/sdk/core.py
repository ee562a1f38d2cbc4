"""The client without I/O: calls in, bytes to send out; bytes that came in, answers out. Both fronts drive this one.

Every call gets a random key. When the connection breaks, `again` says the calls under way once more, with the same
keys, so that the gate can tell a repetition from a new call: it answers, attaches, or says OutcomeUnknown. Which it
is, is never guessed here. Not safe for threads by itself.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

from agentk.sdk import errors, wire
from agentk.sdk.answers import Call


class Flight:
    """One call under way: what came of it so far. `tag` is the front's own."""

    __slots__ = (
        "call",
        "done",
        "error",
        "id",
        "items",
        "key",
        "last",
        "next_seq",
        "params",
        "result",
        "tag",
        "trace",
    )

    def __init__(self, id: int, call: Call[Any], key: str, trace: str) -> None:
        self.id = id
        self.call = call
        self.params = call.params
        self.key = key
        self.trace = trace
        self.items: Deque[Any] = deque()  # of its stream, as they came
        self.next_seq = 0
        self.last: Any = None
        self.done = False
        self.result: Any = None
        self.error: Optional[errors.CallError] = None
        self.tag: Any = None

    def line(self) -> bytes:
        return wire.request(self.id, self.call.method, self.params, self.key, self.trace)

    def outcome(self) -> Any:
        """The result. Raises the error there was."""
        if self.error is not None:
            raise self.error
        return self.result


def random_key() -> str:
    return os.urandom(16).hex()


class Core:
    def __init__(self, trace: str = "", new_key: Callable[[], str] = random_key) -> None:
        self._trace = trace
        self._new_key = new_key
        self._flights: Dict[wire.Id, Flight] = {}
        self._lines = wire.Lines()
        self._last_id = 0

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._flights)

    def begin(self, call: Call[Any], key: str = "") -> Tuple[Flight, bytes]:
        """A call and the line to send. Raises Invalid or TooLarge for what cannot be said."""
        flight = Flight(self._last_id + 1, call, key or self._new_key(), self._trace)
        try:
            line = flight.line()
        except wire.UNSAYABLE as error:
            raise errors.Invalid(f"{call.method}: not JSON: {error}") from None
        if len(line) > wire.LINE_BYTES:
            raise errors.TooLarge(f"{call.method}: {len(line)} bytes, and a line holds {wire.LINE_BYTES}")
        self._last_id = flight.id
        self._flights[flight.id] = flight
        return flight, line

    def cancel(self, flight: Flight) -> bytes:
        """Takes a call back: the line to send, b"" when it has ended. Its answer is not heard any more."""
        if self._flights.pop(flight.id, None) is None:
            return b""
        return wire.cancel(flight.id)

    def feed(self, data: bytes) -> List[Flight]:
        """What came: the flights it was for. Raises ConnectionError when it is not our wire."""
        self._lines.feed(data)
        touched: List[Flight] = []
        try:
            while True:
                line = self._lines.take()
                if line is None:
                    return touched
                touched += self._hear(wire.read_answer(line))
        except wire.Refused as error:
            raise ConnectionError(f"this is not a gate: {error.message}") from None

    def again(self) -> bytes:
        """On a new connection: all that is under way, once more."""
        self._lines = wire.Lines()
        for flight in list(self._flights.values()):
            going_on = flight.call.resumed(flight.last)
            if going_on is not None:  # other params are another call
                flight.params, flight.key, flight.next_seq, flight.last = going_on, self._new_key(), 0, None
        return b"".join(flight.line() for flight in self._flights.values())

    def give_up(self, error: errors.CallError) -> List[Flight]:
        """Ends all that is under way, with this error."""
        ended = list(self._flights.values())
        for flight in ended:
            self._end(flight, None, error)
        return ended

    def _hear(self, said: Any) -> List[Flight]:
        if said is None:
            return []
        if (
            said.id is None
        ):  # the gate could not read what we sent, and hangs up: sending it again helps nobody
            return self.give_up(errors.from_answer(said.code, said.message, said.data))
        flight = self._flights.get(said.id)
        if flight is None:
            return []  # taken back meanwhile
        if isinstance(said, wire.Stream):
            if said.seq < flight.next_seq:
                return []  # heard before the connection broke
            flight.next_seq = said.seq + 1
            flight.last = said.data
            flight.items.append(said.data)
        elif isinstance(said, wire.Failure):
            self._end(flight, None, errors.from_answer(said.code, said.message, said.data))
        else:
            self._parse(flight, said.result)
        return [flight]

    def _parse(self, flight: Flight, raw: Any) -> None:
        try:
            self._end(flight, flight.call.parse(raw), None)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            told = f"{flight.call.method}: the gate answered with something else: {error!r}"
            self._end(flight, None, errors.CallError(told))

    def _end(self, flight: Flight, result: Any, error: Optional[errors.CallError]) -> None:
        self._flights.pop(flight.id, None)
        flight.done, flight.result, flight.error = True, result, error


class Patience:
    """How long to wait between tries to reach the gate, and when to stop trying. Given the time, it keeps none."""

    FIRST_SECONDS = 0.05
    MOST_SECONDS = 2.0

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds  # a daemon that restarts is back within a few
        self._since: Optional[float] = None
        self._pause = self.FIRST_SECONDS

    def heard(self) -> None:
        """The gate is there and answers."""
        self._since = None
        self._pause = self.FIRST_SECONDS

    def pause(self, now: float) -> Optional[float]:
        """Seconds until the next try; None: enough."""
        if self._since is None:
            self._since = now
        if now - self._since >= self._seconds:
            self.heard()
            return None
        pause, self._pause = self._pause, min(2 * self._pause, self.MOST_SECONDS)
        return pause


def socket_path(given: Optional[str]) -> str:
    return given or os.environ.get("AGENTK_SOCKET") or "/run/agentk/gate.sock"
