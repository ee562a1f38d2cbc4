"""The daemon's way to the launcher: the Runtime verbs as messages over one connection.

The launcher may die and come back at any moment: the connection is made again, what was lent is given back, and a
verb that was on its way is asked again, for every verb but `exec` is repeatable. Copies of every box's FIFOs and
listening sockets are kept here, so that nothing is refused or lost while the launcher is away.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime.launcher import wire

_FIRST_RETRY_SECONDS = 0.02
_MAX_RETRY_SECONDS = 1.0
_AWAY_SECONDS = 15.0  # the keeper starts a launcher that died within moments
_EXEC_GRACE_SECONDS = 10.0  # beyond the command's own timeout


class Link:
    """One connection: messages out, answers and notes in. Ends once, for good."""

    def __init__(self, connection: socket.socket, owner: "Jails") -> None:
        self._connection, self._owner = connection, owner
        self._loop = asyncio.get_running_loop()
        self._inbox, self._outbox = wire.Inbox(), wire.Outbox()
        self._answers: dict[int, asyncio.Future[wire.Message]] = {}
        self._number = 0
        self.ended = asyncio.Event()
        self._loop.add_reader(connection.fileno(), self._read)

    async def ask(self, message: wire.Message, fds: Sequence[int] = ()) -> wire.Message:
        """The answer. Raises the launcher's error, ConnectionError when it goes away."""
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


class Jails:
    """Implements `box.Runtime`. `run` must be running for anything to be answered."""

    def __init__(self, path: Path) -> None:
        """`path` of the launcher's socket."""
        self._path = path
        self._link: Link | None = None
        self._linked = asyncio.Event()
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._held: dict[tuple[str, str], tuple[str, int]] = {}  # (box id, what) → (agent's uid, descriptor)
        self._arriving: dict[tuple[str, str], tuple[str, int]] | None = None
        self.hello: Mapping[str, Any] = {}

    # the connection

    async def run(self) -> None:
        """Keep the connection. Ends by cancellation only."""
        wait = _FIRST_RETRY_SECONDS
        try:
            while True:
                try:
                    link = await self._connect()
                except (OSError, errors.AgentkError):
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, _MAX_RETRY_SECONDS)
                    continue
                wait = _FIRST_RETRY_SECONDS
                await link.ended.wait()
                self._linked.clear()
                self._link = None
                self._tell(None)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the connection and of everything that was lent. Repeatable."""
        if self._link is not None:
            self._link.close()
            self._link = None
        for _, fd in [*self._held.values(), *(self._arriving or {}).values()]:
            os.close(fd)
        self._held, self._arriving = {}, None

    def descriptors(self, box_id: str) -> dict[str, int]:
        """What is kept of one box: `gate` and `inside` listen, `out` and `err` are its FIFOs. They stay ours."""
        return {what: fd for (held, what), (_, fd) in self._held.items() if held == box_id}

    async def _connect(self) -> Link:
        connection = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            raise
        link = Link(connection, self)
        try:
            self.hello = await link.ask({"verb": "hello", "version": wire.VERSION})
            await self._give_back(link)
            self._arriving = {}
            await link.ask({"verb": "take_fds"})
        except BaseException:
            link.close()
            self._keep_arrived()
            raise
        self._keep_arrived(instead=True)
        self._link = link
        self._linked.set()
        return link

    async def _give_back(self, link: Link) -> None:
        kept = list(self._held.items())
        for start in range(0, len(kept), wire.FDS_A_MESSAGE):
            part = kept[start : start + wire.FDS_A_MESSAGE]
            names = [{"box_id": box_id, "what": what, "uid": uid} for (box_id, what), (uid, _) in part]
            await link.ask({"verb": "give_fds", "names": names}, [fd for _, (_, fd) in part])

    def _keep_arrived(self, *, instead: bool = False) -> None:
        """Descriptors of a new connection; `instead` of those of the old one, whose boxes may have ended."""
        arrived, self._arriving = self._arriving or {}, None
        if instead:
            for _, fd in self._held.values():
                os.close(fd)
            self._held = {}
        for key, held in arrived.items():
            self._keep(self._held, key, held)

    @staticmethod
    def _keep(
        where: dict[tuple[str, str], tuple[str, int]], key: tuple[str, str], held: tuple[str, int]
    ) -> None:
        if key in where:
            os.close(where[key][1])
        where[key] = held

    def noted(self, message: wire.Message, fds: Sequence[int]) -> None:
        """A note of the launcher's: something changed by itself."""
        if message["note"] == "fds":
            where = self._held if self._arriving is None else self._arriving
            for name, fd in zip(message.get("names", []), fds, strict=True):
                key = (str(name.get("box_id")), str(name.get("what")))
                self._keep(where, key, (str(name.get("uid")), fd))
            return
        for fd in fds:
            os.close(fd)
        if message["note"] == "changed":
            self._tell(str(message.get("uid")))
        elif message["note"] == "ended":
            for key in [key for key in self._held if key[0] == message.get("box_id")]:
                os.close(self._held.pop(key)[1])

    def _tell(self, uid: str | None) -> None:
        for queue in self._listeners:
            queue.put_nowait(uid)

    async def _ask(self, verb: str, *, again: bool = True, **told: Any) -> wire.Message:
        """Raises Unavailable when no launcher answers for a while."""
        while True:
            try:
                async with asyncio.timeout(_AWAY_SECONDS):
                    await self._linked.wait()
            except TimeoutError:
                raise errors.Unavailable(
                    "the launcher does not answer", hint="agentk daemon status  # says whether it runs"
                ) from None
            link = self._link
            if link is None:
                await asyncio.sleep(0)
                continue
            try:
                return await link.ask({"verb": verb, **told})
            except ConnectionError:
                self._linked.clear()
                if not again:
                    raise errors.Unavailable("the launcher went away while it ran the command") from None

    # the verbs

    async def probe(self) -> words.Probe:
        """What the launcher, with its rights, finds on this host. Takes a second or two."""
        told = (await self._ask("probe"))["probe"]
        findings = tuple(words.Finding(**finding) for finding in told["findings"])
        return words.Probe(told["available"], told["reason"], findings)

    async def start(self, box: words.Box) -> words.Seen:
        return wire.seen_from((await self._ask("start", box=wire.plain(box)))["seen"])

    async def signal(self, box_id: str, signal: int, intent: words.Intent | None = None) -> None:
        await self._ask("signal", box_id=box_id, signal=signal, intent=wire.plain(intent) if intent else None)

    async def kill(self, box_id: str, intent: words.Intent) -> None:
        await self._ask("kill", box_id=box_id, intent=wire.plain(intent))

    async def list(self) -> Sequence[words.Seen]:
        return [wire.seen_from(told) for told in (await self._ask("list"))["boxes"]]

    async def counters(self, box_id: str) -> words.Counters:
        return wire.counters_from((await self._ask("counters", box_id=box_id))["counters"])

    async def remove(self, box_id: str) -> None:
        await self._ask("remove", box_id=box_id)

    async def release(self, namespace: str, uid: str) -> None:
        await self._ask("release", namespace=namespace, uid=uid)

    async def exec(self, box_id: str, argv: Sequence[str], timeout_seconds: float) -> words.ExecResult:
        """Not asked again when the launcher dies meanwhile: it may have run."""
        try:
            async with asyncio.timeout(timeout_seconds + _AWAY_SECONDS + _EXEC_GRACE_SECONDS):
                told = await self._ask(
                    "exec", again=False, box_id=box_id, argv=list(argv), timeout_seconds=timeout_seconds
                )
        except TimeoutError:
            raise errors.Timeout("the launcher does not answer") from None
        return wire.exec_result_from(told)

    async def freeze(self, box_id: str) -> None:
        await self._ask("freeze", box_id=box_id)

    async def thaw(self, box_id: str) -> None:
        await self._ask("thaw", box_id=box_id)

    async def limit_namespace(
        self, namespace: str, cpu_millis: int | None, memory_bytes: int | None
    ) -> Sequence[str]:
        """A Quota's limits on all agents of a namespace together. Answers those that are not held, with why."""
        told = await self._ask(
            "namespace_limits", namespace=namespace, cpu_millis=cpu_millis, memory_bytes=memory_bytes
        )
        return [str(text) for text in told["unenforced"]]

    async def changes(self) -> AsyncIterator[str]:
        """Uids of agents whose boxes changed by themselves. Raises Unavailable when the launcher went away: what
        changed meanwhile is not known, so look at every box and listen again."""
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            while (uid := await queue.get()) is not None:
                yield uid
            raise errors.Unavailable("the launcher went away")
        finally:
            self._listeners.discard(queue)


@contextlib.asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Jails]:
    """A client that is connected while the block runs."""
    jails = Jails(path)
    task = asyncio.create_task(jails.run(), name="jails")
    try:
        yield jails
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
