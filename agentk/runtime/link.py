"""One connection to the launcher: messages out, answers and notes in. It ends once, for good.

It never waits on the socket: what does not fit is kept, and what is too long for the other side is refused here,
before it could end the connection of everybody else.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agentk.api import errors
from agentk.runtime.launcher import wire


class Owner(Protocol):
    """Who hears the notes."""

    def noted(self, message: wire.Message, fds: Sequence[int]) -> None:
        """A note of the launcher's. Takes the descriptors over."""
        ...


@dataclass(frozen=True)
class Answer:
    """One that is waited for."""

    future: "asyncio.Future[tuple[wire.Message, Sequence[int]]]"
    takes: bool  # whether descriptors may come with it


class Link:
    def __init__(self, connection: socket.socket, owner: Owner) -> None:
        self._connection, self._owner = connection, owner
        self._loop = asyncio.get_running_loop()
        self._inbox, self._outbox = wire.Inbox(), wire.Outbox()
        self._answers: dict[int, Answer] = {}
        self._number = 0
        self.ended = asyncio.Event()
        self._loop.add_reader(connection.fileno(), self._read)

    async def ask(self, message: wire.Message, fds: Sequence[int] = ()) -> wire.Message:
        """The answer. Raises the launcher's error, ConnectionError when it goes away, TooLarge."""
        return (await self._ask(message, fds, takes=False))[0]

    async def ask_for_fd(self, message: wire.Message) -> int:
        """The descriptor that comes with the answer; it is the caller's. Raises as `ask` does."""
        _, taken = await self._ask(message, (), takes=True)
        if len(taken) != 1:
            _close(taken)
            raise ConnectionError("the launcher answered without a descriptor")
        return taken[0]

    async def _ask(
        self, message: wire.Message, fds: Sequence[int], takes: bool
    ) -> tuple[wire.Message, Sequence[int]]:
        if self.ended.is_set():
            raise ConnectionError("the launcher went away")
        self._number += 1
        number = self._number  # others ask while we wait
        answer = Answer(self._loop.create_future(), takes)
        self._answers[number] = answer
        try:
            self._outbox.put({"id": number, **message}, fds)
            self._write()
            return await answer.future
        except asyncio.CancelledError:
            if answer.future.done() and not answer.future.cancelled() and not answer.future.exception():
                _close(answer.future.result()[1])
            raise
        finally:
            self._answers.pop(number, None)

    def tell(self, message: wire.Message) -> None:
        """Ask, and do not wait for the answer. Telling one that has ended does nothing."""
        if self.ended.is_set():
            return
        self._number += 1
        self._outbox.put({"id": self._number, **message})
        self._write()

    def close(self) -> None:
        """Repeatable."""
        if self.ended.is_set():
            return
        self.ended.set()
        self._loop.remove_reader(self._connection.fileno())
        self._loop.remove_writer(self._connection.fileno())
        self._connection.close()
        self._inbox.close()
        self._outbox.close()
        for answer in self._answers.values():
            if not answer.future.done():
                answer.future.set_exception(ConnectionError("the launcher went away"))

    def _write(self) -> None:
        try:
            done = self._outbox.flush(self._connection)
        except OSError:
            self.close()
            return
        if done:
            self._loop.remove_writer(self._connection.fileno())
        else:
            self._loop.add_writer(self._connection.fileno(), self._write)

    def _read(self) -> None:
        try:
            data, fds = wire.receive(self._connection)
            messages = self._inbox.feed(data, fds)
        except BlockingIOError:
            return
        except (OSError, errors.AgentkError):
            self.close()
            return
        for message, mine in messages:
            if "note" in message:
                self._owner.noted(message, mine)
            else:
                self._answered(message, mine)
        if not data:
            self.close()

    def _answered(self, message: wire.Message, fds: Sequence[int]) -> None:
        answer = self._answers.get(message.get("id") or 0)
        if answer is None or answer.future.done():
            _close(fds)
            return
        if "error" in message or not answer.takes:
            _close(fds)
            fds = ()
        if "error" in message:
            answer.future.set_exception(errors.from_status(message["error"]))
        else:
            answer.future.set_result((message.get("ok") or {}, fds))


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
