"""One connection to the launcher: messages out, answers and notes in. It ends once, for good.

It never waits on the socket: what does not fit is kept, and what is too long for the other side is refused here,
before it could end the connection of everybody else.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import Protocol

from agentk.api import errors
from agentk.runtime.launcher import wire


class Owner(Protocol):
    """Who hears the notes."""

    def noted(self, message: wire.Message, fds: Sequence[int]) -> None:
        """A note of the launcher's. Takes the descriptors over."""
        ...


class Link:
    def __init__(self, connection: socket.socket, owner: Owner) -> None:
        self._connection, self._owner = connection, owner
        self._loop = asyncio.get_running_loop()
        self._inbox, self._outbox = wire.Inbox(), wire.Outbox()
        self._answers: dict[int, asyncio.Future[wire.Message]] = {}
        self._number = 0
        self.ended = asyncio.Event()
        self._loop.add_reader(connection.fileno(), self._read)

    async def ask(self, message: wire.Message, fds: Sequence[int] = ()) -> wire.Message:
        """The answer. Raises the launcher's error, ConnectionError when it goes away, TooLarge."""
        if self.ended.is_set():
            raise ConnectionError("the launcher went away")
        self._number += 1
        number = self._number  # others ask while we wait
        answer: asyncio.Future[wire.Message] = self._loop.create_future()
        self._answers[number] = answer
        try:
            self._outbox.put({"id": number, **message}, fds)
            self._write()
            return await answer
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
            if not answer.done():
                answer.set_exception(ConnectionError("the launcher went away"))

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
        for fd in fds:
            os.close(fd)
        answer = self._answers.get(message.get("id") or 0)
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(errors.from_status(message["error"]))
        else:
            answer.set_result(message.get("ok") or {})
