"""Servers of MCP that are spoken with: each started when it is first needed, kept, and started again when it ended.

A server on stdio is a program in a box of the Tool's own, put there by hands: it has the rights of that box and ends
with it. Its stderr is the box's log. One behind HTTP is asked by the gate, at the one address that its Tool names, with
secrets that neither the server's words nor the worker that reads them ever hold.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, mcptools
from agentk.broker import egress_fetching, egress_urls, exec_orders, pipes
from agentk.broker.tooling import kinds as words
from agentk.broker.tooling import senders
from agentk.broker.tooling.instances import Instances
from agentk.broker.tooling.kinds import Object
from agentk.broker.tooling.running import START_SECONDS
from agentk.broker.words import Guest
from agentk.runtime import hands
from agentk.tools import mcp_fetching, mcp_worker
from agentk.tools.mcp_worker import Listing, Session

BACKOFF_SECONDS = 1.0  # before it is started again, doubled each time …
BACKOFF_SECONDS_MAX = 60.0
LASTED_SECONDS = 300.0  # … until it stayed for so long
_WAIT_SECONDS = 5.0  # what a caller waits for that; with more to wait it is told instead
_HINT = "what it said on stderr is in the log of its box: agentk logs -l agentk.dev/tool={}"
_LINE_BYTES = 8 * 1024  # of stderr: what is longer is several lines

Say = Callable[[str, bytes], Awaitable[None]]  # box id, line
Changed = Callable[[Object, Listing], None]


@dataclass(frozen=True)
class Rooms:
    """What servers are made of."""

    worker: mcp_worker.Worker
    reach: hands.Hands
    instances: Instances
    fetcher: egress_fetching.Fetcher
    say: Say


@dataclass(frozen=True)
class Spoken:
    """A server that is spoken with, and the Agent that is its box, if it has one."""

    session: Session
    agent: Object | None = None


class Servers:
    def __init__(self, rooms: Rooms) -> None:
        self.changed: Changed = lambda tool, listing: None
        self._rooms = rooms
        self._servers: dict[tuple[str, ...], _Server] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextlib.asynccontextmanager
    async def spoken(self, tool: Object, guest: Guest | None) -> AsyncIterator[Spoken]:
        """It stays while the block does, as far as that is ours to say. Raises Unavailable, with why it does not
        start."""
        if "http" in words.spec(tool)["mcp"]:
            whose = guest.uid if guest is not None and words.spec(tool).get("sharing") == "PerAgent" else ""
            key = (words.uid(tool), _generation(tool), whose)
            server = self._server(key, lambda: self._over_http(tool))
            with server.used(float(words.spec(tool).get("idleSeconds", 600))):
                yield Spoken(await server.session())
            return
        async with self._rooms.instances.box(tool, guest, START_SECONDS) as agent:
            box_id = str(agent["status"]["boxID"])
            key = (words.uid(tool), _generation(tool), box_id)
            server = self._server(key, lambda: self._over_pipes(tool, box_id))
            yield Spoken(await server.session(), agent)

    def listings(self, tool: Object) -> list[Listing]:
        """Of those of this Tool that are spoken with now."""
        mine = (
            server for key, server in self._servers.items() if key[:2] == (words.uid(tool), _generation(tool))
        )
        return [one.session_now.listing for one in mine if one.session_now is not None]

    def hurry(self, tool_uid: str) -> None:
        """Start those that ended without their pause."""
        for key, server in self._servers.items():
            if key[0] == tool_uid:
                server.hurry()

    def forget(self, tool_uid: str) -> None:
        """Leave all that are of this Tool, or of an earlier state of it."""
        for key in [key for key in self._servers if key[0] == tool_uid]:
            self._servers.pop(key).leave()

    async def close(self) -> None:
        servers, self._servers = self._servers, {}
        for server in servers.values():
            server.leave()
        await asyncio.gather(*(server.left() for server in servers.values()), return_exceptions=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _hold(self, work: Coroutine[Any, Any, Any], name: str) -> "asyncio.Task[Any]":
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._let_go)
        return task

    def _let_go(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # how a server ended is told by who speaks with it

    async def _over_pipes(self, tool: Object, box_id: str) -> Session:
        """Start the server in the box, and greet it."""
        rooms, ends = self._rooms, pipes.Pipes.made()
        argv = mcptools.argv(words.spec(tool)["mcp"])
        enter = rooms.reach.enter(box_id, argv, stdin=ends.stdin, stdout=ends.stdout, stderr=ends.stderr)
        entering = self._hold(enter, f"mcp server of {words.name(tool)}")
        entering.add_done_callback(ends.close_theirs)
        self._hold(_tell(rooms.say, box_id, ends.said), f"stderr of the mcp server of {words.name(tool)}")
        try:
            session = await rooms.worker.over_pipes(ends.says, ends.hears)
        except errors.AgentkError as error:
            how = await _ended_how(entering, argv[0])
            hint = _HINT.format(words.name(tool))
            raise errors.Unavailable(f"{error.message}{how}", hint=hint) from None
        except BaseException:
            entering.cancel()
            raise
        finally:
            ends.close_ours()
        session.ended.add_done_callback(lambda _: entering.cancel())
        session.changed = lambda listing: self.changed(tool, listing)
        return session

    async def _over_http(self, tool: Object) -> Session:
        session = await self._rooms.worker.over_http(_fetch(self._rooms.fetcher, tool))
        session.changed = lambda listing: self.changed(tool, listing)
        return session

    def _server(self, key: tuple[str, ...], start: "Start") -> "_Server":
        if key not in self._servers:
            for old in [one for one in self._servers if one[0] == key[0] and one[1] != key[1]]:
                self._servers.pop(old).leave()  # of a Tool that was changed
            for old in [one for one, server in self._servers.items() if server.is_over]:
                del self._servers[old]
            self._servers[key] = _Server(start)
        return self._servers[key]


Start = Callable[[], Awaitable[Session]]


class _Server:
    """One server, over all its starts."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._starting: asyncio.Task[Session] | None = None
        self._session: Session | None = None
        self._began = self._not_before = 0.0
        self._wait = BACKOFF_SECONDS
        self._why = ""  # it last ended
        self._left = False
        self._users = 0
        self._idle = asyncio.get_running_loop().call_later(0, lambda: None)

    @property
    def session_now(self) -> Session | None:
        return self._session if self._session is not None and not self._session.ended.done() else None

    @property
    def is_over(self) -> bool:
        """Ended, and long enough ago that its pause counts no more."""
        idle = self._starting is None and self.session_now is None
        return idle and asyncio.get_running_loop().time() > self._not_before + BACKOFF_SECONDS_MAX

    async def session(self) -> Session:
        if (now := self.session_now) is not None:
            return now
        if self._starting is None:
            await self._pause()
        if self._starting is None:
            self._starting = asyncio.create_task(self._begin(), name="mcp-server-start")
            self._starting.add_done_callback(self._started)
        # Waited for, not awaited: a caller that hangs up does not take the start from the others.
        await asyncio.wait((starting := self._starting,))
        if starting.cancelled():
            raise errors.Unavailable("the tool's server is being left")
        return starting.result()

    @contextlib.contextmanager
    def used(self, idle_seconds: float) -> Iterator[None]:
        """Left some time after the last that used it: where there is no box that goes by itself."""
        self._users += 1
        self._idle.cancel()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._idle = asyncio.get_running_loop().call_later(idle_seconds, self._rest)

    def _rest(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.leave()
            self.hurry()  # it did nothing wrong

    def hurry(self) -> None:
        self._wait, self._not_before = BACKOFF_SECONDS, 0.0

    def leave(self) -> None:
        self._left = True
        self._idle.cancel()
        if self._starting:
            self._starting.cancel()
        if self._session:
            self._session.leave()

    async def left(self) -> None:
        if self._starting:
            await asyncio.gather(self._starting, return_exceptions=True)

    async def _pause(self) -> None:
        wait = self._not_before - asyncio.get_running_loop().time()
        if wait > _WAIT_SECONDS:
            told = "the tool's server has ended too often and is given a rest"
            raise errors.Unavailable(
                f"{told}: {self._why}" if self._why else told, retry_after_seconds=int(wait) + 1
            )
        if wait > 0:
            await asyncio.sleep(wait)

    async def _begin(self) -> Session:
        loop = asyncio.get_running_loop()
        try:
            session = await self._start()
        except BaseException as error:
            self._why = error.message if isinstance(error, errors.AgentkError) else ""
            self._back_off()
            raise
        if self._left:
            session.leave()
        self._session, self._began = session, loop.time()
        session.ended.add_done_callback(lambda how: self._ended(session, how.result()))
        return session

    def _ended(self, session: Session, how: str) -> None:
        if session is not self._session:  # it was left at rest
            return
        self._why = how
        if asyncio.get_running_loop().time() - self._began >= LASTED_SECONDS:
            self._wait = BACKOFF_SECONDS
        self._back_off()

    def _back_off(self) -> None:
        self._not_before = asyncio.get_running_loop().time() + self._wait
        self._wait = min(self._wait * 2, BACKOFF_SECONDS_MAX)

    def _started(self, task: "asyncio.Task[Session]") -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()


async def _ended_how(entering: "asyncio.Task[Any]", program: str) -> str:
    """How the program ended that never spoke sense; one that still runs is ended."""
    done, _ = await asyncio.wait((entering,), timeout=1)
    if not done:
        entering.cancel()
        await asyncio.wait((entering,))
        return ""
    if entering.cancelled():
        return ""
    if (wrong := entering.exception()) is not None:
        return f" ({wrong})"
    code = entering.result().code
    return (
        f" (there is no {program} in its jail)" if code == exec_orders.NOT_FOUND else f" (exit code {code})"
    )


async def _tell(say: Say, box_id: str, said: int) -> None:
    """Its stderr into the log of its box, no faster than that takes it."""
    reader = asyncio.StreamReader(limit=_LINE_BYTES)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(said, "rb", 0)
    )
    held = b""
    try:
        while data := await reader.read(_LINE_BYTES):
            *lines, held = (held + data).split(b"\n")
            if len(held) > _LINE_BYTES:
                lines, held = [*lines, held], b""
            for line in lines:
                await say(box_id, line)
        if held:
            await say(box_id, held)
    except errors.AgentkError:
        pass  # the box is gone, and its log with it
    finally:
        transport.close()


def _fetch(fetcher: egress_fetching.Fetcher, tool: Object) -> mcp_fetching.Fetch:
    """How this server is asked: at the one address of its Tool, with the Tool's own headers."""
    http = words.spec(tool)["mcp"]["http"]
    url = egress_urls.parse(str(http["url"]))
    guest = senders.own(tool, http, url)
    own = [(str(one["name"]), str(one["value"])) for one in http.get("headers") or () if "value" in one]

    @contextlib.asynccontextmanager
    async def fetch(
        method: str, headers: Sequence[tuple[str, str]], body: bytes
    ) -> AsyncIterator[egress_fetching.Answer]:
        names = {name.lower() for name, _ in own}
        told = [*own, *((name, value) for name, value in headers if name.lower() not in names)]
        outgoing = egress_fetching.Outgoing(method, url, told, body, plain=True)
        async with fetcher.send(guest, outgoing) as answer:
            yield answer

    return fetch


def _generation(tool: Object) -> str:
    return str(tool["metadata"].get("generation", 0))
