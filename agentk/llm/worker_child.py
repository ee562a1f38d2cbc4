"""One LiteLLM worker process and the calls it holds: starting it, hearing it, telling its callers when it is gone.

Whatever ends the process, every call in flight is answered at once; none is asked again, since it may have happened.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from agentk.llm import asking, worker_wire
from agentk.llm.worker_reply import WorkerReply

START_SECONDS = 120.0  # importing LiteLLM takes 2 to 4 s, and far longer on an emulated machine
END_SECONDS = 2.0  # what it is given to end by itself

# What it needs to find its libraries and its upstreams, and nothing else of the daemon's environment.
_PASSED = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
_FIXED = {
    "HOME": "/nonexistent",  # no ~/.netrc, ~/.aws or ~/.config decides which key is used
    "LITELLM_MODE": "PRODUCTION",  # reads no .env
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # the price list of the package, not one from the network
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOG": "CRITICAL",
    "ANTHROPIC_MESSAGES_MAX_DETACHED_STREAM_DRAINS": "0",  # a stream that nobody reads is closed, not read to its end
    "REPEATED_STREAMING_CHUNK_LIMIT": "1000000000",  # a long line of "=" is an answer too
    "MAX_IMAGE_URL_DOWNLOAD_SIZE_MB": "0",  # it fetches nothing that a guest names
}


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The worker's whole environment."""
    kept = {name: given[name] for name in _PASSED if name in given}
    kept |= {name.lower(): given[name.lower()] for name in _PASSED[5:] if name.lower() in given}
    return kept | _FIXED


class Child:
    """A started worker. `died` is called once when it ends unasked, `answered` whenever a call came to its end."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        died: Callable[[], None],
        answered: Callable[[], None],
    ) -> None:
        self.gone = False
        self._process = process
        self._reader, self._writer = streams
        self._died, self._answered = died, answered
        self._calls: dict[int, WorkerReply] = {}
        self._ids = itertools.count(1)
        self._ending = False
        self._hearing: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def spawn(cls, python: str, died: Callable[[], None], answered: Callable[[], None]) -> "Child":
        """Start a process and wait until it has said that it is ready."""
        ours, theirs = socket.socketpair()
        streams = await asyncio.open_connection(sock=ours)
        try:
            process = await _execute(python, theirs)
        except BaseException as error:
            streams[1].close()
            if isinstance(error, OSError):
                raise asking.Refused(f"the model worker cannot be started: {error}", type="worker") from None
            raise
        finally:
            theirs.close()
        child = cls(process, streams, died, answered)
        try:
            await child._greet()
        except BaseException:
            await child.end()
            raise
        child._hearing = asyncio.create_task(child._hear(), name="llm-worker")
        return child

    def ask(self, message: Mapping[str, Any], ask: asking.Ask, model: Mapping[str, Any]) -> WorkerReply:
        """Send one call. Its answer arrives in the reply."""
        number = next(self._ids)
        frame = worker_wire.pack({**message, "id": number})

        def tell(name: str, **more: int) -> None:
            if name == "stop":
                self._calls.pop(number, None)
            if not self.gone:
                self._writer.write(worker_wire.pack({"t": name, "id": number, **more}))

        reply = self._calls[number] = WorkerReply(ask, model, tell)
        self._writer.write(frame)
        return reply

    async def end(self) -> None:
        """End the process, kindly first, and every call with it. Safe to call twice."""
        self._ending = True
        self._writer.close()  # the end of its socket is its signal
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self._kill()
        await self._process.wait()
        if self._hearing:
            await self._hearing

    async def _greet(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                first = await worker_wire.read(self._reader)
        except TimeoutError:
            raise asking.Refused(
                f"the model worker was not ready in {START_SECONDS:.0f} s", type="worker"
            ) from None
        if not first or first.get("t") != "ready":
            self._writer.close()
            why = (first or {}).get("message") or await self._how()
            raise asking.Refused(f"the model worker cannot be started: {why}", type="worker")

    async def _hear(self) -> None:
        """Hand each message to its call, until the process is gone."""
        try:
            while message := await worker_wire.read(self._reader):
                reply = self._calls.get(int(message.get("id", 0)))
                if reply is None:
                    continue  # stopped meanwhile
                reply.feed(message)
                if message["t"] != "data":
                    self._calls.pop(int(message["id"]), None)
                    self._answered()
        except (ValueError, KeyError, worker_wire.TooLarge):
            pass  # it speaks no sense any more: as good as dead
        finally:
            self.gone = True
            self._writer.close()
            how = "the model worker was shut down" if self._ending else await self._how()
            for reply in self._calls.values():
                reply.fail(
                    asking.Refused(
                        f"{how} during this call: whether the model answered is not known",
                        type="worker",
                        retryable=False,
                        hint="a new worker is started by the next call",
                    )
                )
            self._calls.clear()
            if not self._ending:
                self._died()

    async def _how(self) -> str:
        """How the process ended; one that only closed its socket is ended."""
        try:
            async with asyncio.timeout(END_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            self._kill()
            code = await self._process.wait()
        if code < 0:
            return f"the model worker died ({signal.Signals(-code).name})"
        return f"the model worker died (exit code {code})"

    def _kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


async def _execute(python: str, theirs: socket.socket) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        python,
        "-I",
        "-m",
        "agentk.llm.worker_main",
        str(theirs.fileno()),
        pass_fds=(theirs.fileno(),),
        env=environment(os.environ),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # a traceback from LiteLLM may hold a key
        start_new_session=True,
    )
