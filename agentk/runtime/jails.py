"""The daemon's way to the launcher: the Runtime verbs as messages over one connection.

The launcher may die and come back at any moment: the connection is made again, what was lent is given back, and a
verb that was on its way is asked again, for every verb but `exec` is repeatable. Copies of every box's FIFOs and
listening sockets are kept here, so that nothing is refused or lost while the launcher is away.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime import commands, lent
from agentk.runtime.launcher import wire
from agentk.runtime.link import Link

_FIRST_RETRY_SECONDS = 0.02
_MAX_RETRY_SECONDS = 1.0
_AWAY_SECONDS = 15.0  # the keeper starts a launcher that died within moments
_CLAIMS = 3  # the version of the first launcher that knows waiting boxes
_WORDS_MAX = 200  # of how far a pull is
_EXEC_GRACE_SECONDS = 10.0  # beyond the command's own timeout


class Jails:
    """Implements `box.Runtime`. `run` must be running for anything to be answered."""

    def __init__(self, path: Path) -> None:
        """`path` of the launcher's socket."""
        self._path = path
        self._link: Link | None = None
        self._linked = asyncio.Event()
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._lent = lent.Lent()
        self._commands: dict[tuple[str, str], commands.Running] = {}
        self._pulls: dict[str, Callable[[str], None]] = {}
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
        self._lent.close()

    def descriptors(self, box_id: str) -> dict[str, int]:
        """What is kept of one box: `gate` and `inside` listen; `out`, `err` and `said` are its FIFOs. They stay
        ours."""
        return self._lent.of(box_id)

    def listeners(self) -> dict[str, tuple[str, dict[str, int]]]:
        """Box id → the agent's uid and its listening sockets, {"gate": fd, "inside": fd}; a box without a jail has
        no `inside`. They stay ours and may be closed in the next turn of the loop: duplicate them at once."""
        return self._lent.listeners()

    def on_listeners(self, callback: lent.Heard) -> Callable[[], None]:
        """Call `callback(box_id, uid, fds)` for every box that listens now, and whenever listeners come or are
        replaced by other sockets; with {} when they went. Answers what ends this.

        Always on the loop. The descriptors stay ours: the callee duplicates them before it returns. A launcher that
        comes back with the sockets we kept for it changes nothing, and nothing is told; what was duplicated serves on.
        """
        return self._lent.on_listeners(callback)

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
            self._lent.expect()
            await link.ask({"verb": "take_fds"})
        except BaseException:
            link.close()
            self._lent.settle(instead=False)
            raise
        self._lent.settle(instead=True)
        self._link = link
        self._linked.set()
        return link

    async def _give_back(self, link: Link) -> None:
        kept = self._lent.all()
        for start in range(0, len(kept), wire.FDS_A_MESSAGE):
            part = kept[start : start + wire.FDS_A_MESSAGE]
            names = [{"box_id": key.box_id, "what": key.what, "uid": held.uid} for key, held in part]
            await link.ask({"verb": "give_fds", "names": names}, [held.fd for _, held in part])

    def noted(self, message: wire.Message, fds: Sequence[int]) -> None:
        """A note of the launcher's: something changed by itself."""
        if message["note"] == "fds":
            self._lent.take(message, fds)
            return
        for fd in fds:
            os.close(fd)
        if message["note"] == "changed":
            self._tell(str(message.get("uid")))
        elif message["note"] == "output":
            command = self._commands.get((str(message.get("box_id")), str(message.get("exec_id"))))
            if command is not None:
                command.heard(str(message.get("stream")), message.get("data"))
        elif message["note"] == "image":
            hears = self._pulls.get(str(message.get("pull_id")))
            if hears is not None:
                hears(str(message.get("told"))[:_WORDS_MAX])
        elif message["note"] == "ended":
            self._lent.forget(str(message.get("box_id")))

    def _tell(self, uid: str | None) -> None:
        for queue in self._listeners:
            queue.put_nowait(uid)

    async def linked(self, needs: int = 1) -> Link:
        """A connection to a launcher of at least that version. Raises Unavailable when none answers for a while."""
        while True:
            try:
                async with asyncio.timeout(_AWAY_SECONDS):
                    await self._linked.wait()
            except TimeoutError:
                raise errors.Unavailable(
                    "the launcher does not answer", hint="agentk daemon status  # says whether it runs"
                ) from None
            if self._link is None or self._link.ended.is_set():  # `run` has not noticed yet
                await asyncio.sleep(0)
                continue
            if int(self.hello.get("version", 1)) < needs:
                raise errors.Unavailable(
                    "the launcher is older than this daemon and cannot do that",
                    hint="agentk daemon stop && agentk daemon start  # when its agents have ended",
                )
            return self._link

    async def _ask(self, verb: str, *, needs: int = 1, **told: Any) -> wire.Message:
        """The answer, of the next launcher when one goes away."""
        while True:
            link = await self.linked(needs)
            try:
                return await link.ask({"verb": verb, **told})
            except ConnectionError:
                continue

    # the verbs

    async def probe(self, kind: str = "nsjail") -> words.Probe:
        """What the launcher, with its rights, finds on this host for boxes of that kind. Takes a second or two."""
        told = (await self._ask("probe", runtime=kind))["probe"]
        findings = tuple(words.Finding(**finding) for finding in told["findings"])
        return words.Probe(told["available"], told["reason"], findings)

    async def start(self, box: words.Box) -> words.Seen:
        return wire.seen_from((await self._ask("start", box=wire.plain(box)))["seen"])

    async def claim(self, waiting_id: str, box: words.Box) -> words.Seen:
        """Let a waiting box become this one: what `start` does, without making a jail. The waiting box is used up.

        Raises Conflict when it does not fit or is not there to be had, as NotFound does when it is unknown: start
        the box then. After any other error it is used up, and nothing is left of either.
        """
        told = await self._ask("claim", needs=_CLAIMS, waiting_id=waiting_id, box=wire.plain(box))
        return wire.seen_from(told["seen"])

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

    async def exec(
        self,
        box_id: str,
        argv: Sequence[str],
        timeout_seconds: float,
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        limits: words.Limits | None = None,
        cwd: str = "",
        output_bytes: int | None = None,
        exec_id: str = "",
        on_output: commands.Hears | None = None,
    ) -> words.ExecResult:
        """Run a command beside a box. Not asked again when the launcher dies meanwhile: it may have run, and the
        error is OutcomeUnknown.

        `stdin` of at most 8 MiB is fed to it. `env` goes over the box's; what begins with AGENTK_ is refused. `limits`
        (cpu_millis, memory_bytes, pids, open_files) may only be lower than the agent's, and are refused where this
        host does not hold them. Of each output `output_bytes` are answered, its first and its last half: 1 MiB when
        not said, 4 MiB at most.

        `on_output` is awaited with "out" or "err" and the bytes, in order, as they come, and nothing of them is in
        the result; as long as it does not return, the command is held back by its own pipe.

        `exec_id`, unique among the box's running commands, is for `exec_cancel`. Whoever cancels the call, or raises
        in `on_output`, ends the command too; so does the end of the box, of the connection and of this daemon.
        """
        order = commands.Order(
            box_id,
            argv,
            timeout_seconds,
            stdin,
            env,
            limits,
            cwd,
            output_bytes,
            exec_id,
            on_output is not None,
        )
        command = commands.Running(order, on_output)
        if command.key in self._commands:
            raise errors.Conflict(f"a command {exec_id} runs in this box already")
        self._commands[command.key] = command
        try:
            async with asyncio.timeout(timeout_seconds + _AWAY_SECONDS + _EXEC_GRACE_SECONDS):
                link = await self.linked(order.needs)
                told = await command.run(link)
        except TimeoutError:
            raise errors.OutcomeUnknown("the launcher does not answer: the command may have run") from None
        except ConnectionError:
            raise errors.OutcomeUnknown("the launcher went away while it ran the command") from None
        finally:
            self._commands.pop(command.key, None)
        return wire.exec_result_from(told)

    async def exec_cancel(self, box_id: str, exec_id: str) -> None:
        """Kill a command with all it started; its call answers with `cancelled`. One that has ended is no error."""
        await self._ask("exec_cancel", needs=commands.VERSION, box_id=box_id, exec_id=exec_id)

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

    async def environments(self) -> tuple[Sequence[str], Sequence[str]]:
        """Names of environments that are whole, and of those that were begun."""
        told = await self._ask("environments")
        return [str(name) for name in told["kept"]], [str(name) for name in told["half"]]

    async def keep_environment(self, name: str) -> None:
        """It is whole now. Raises Conflict while a box still makes it."""
        await self._ask("keep_environment", name=name)

    async def remove_environment(self, name: str) -> None:
        """Whole or half. Raises Conflict when a box sees it."""
        await self._ask("remove_environment", name=name)

    async def interpreter(self, prefix: str, venv: str = "") -> words.Interpreter:
        """The Python of boxes with this prefix. Raises RuntimeRefused when there is none, or `venv` is not one."""
        told = await self._ask("interpreter", prefix=prefix, venv=venv)
        return words.Interpreter(
            **{key: str(told[key]) for key in ("path", "version", "machine", "venv_version")}
        )

    async def image(
        self, reference: str, policy: str, login: words.Login | None, told: Callable[[str], None]
    ) -> words.Image:
        """The image of that full name, from its registry when the policy says so; `told` hears how far it is.

        Raises NotFound when it is not here and may not be pulled, UpstreamError with the registry's words, and
        Unavailable when there is no podman to ask.
        """
        pull_id = os.urandom(8).hex()
        self._pulls[pull_id] = told
        try:
            answer = await self._ask(
                "image",
                needs=3,
                pull_id=pull_id,
                reference=reference,
                policy=policy,
                login=wire.plain(login) if login else None,
            )
        finally:
            del self._pulls[pull_id]
        return wire.image_from(answer["image"])

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
