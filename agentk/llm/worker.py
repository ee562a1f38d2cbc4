"""The daemon's side of the LiteLLM worker: one child process that translates what no provider speaks itself.

It is started by the first call that needs it, replaced when it dies, and ends with the daemon. Whatever ends it, every
call under way is answered at once. This file never imports LiteLLM (2 s and 170 MB), never repeats a call that may have
reached an upstream, and never logs what it sends: keys are in it. They travel over a socketpair only, never in an
environment or a command line.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from agentk.apart import child, frames
from agentk.apart.kept import Kept
from agentk.api import errors
from agentk.llm import asking
from agentk.llm.worker_reply import WorkerReply

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")

ROLE = child.Role(
    "the model worker",
    "agentk.llm.worker_main",
    # What it needs to find its libraries and its upstreams, and nothing else of the daemon's environment.
    passed=(*child.PASSED, "SSL_CERT_FILE", "SSL_CERT_DIR", *_PROXIES, *map(str.lower, _PROXIES)),
    fixed={
        "HOME": "/nonexistent",  # no ~/.netrc, ~/.aws or ~/.config decides which key is used
        "LITELLM_MODE": "PRODUCTION",  # reads no .env
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # the price list of the package, not one from the network
        "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
        "LITELLM_LOCAL_BLOG_POSTS": "True",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOG": "CRITICAL",
        # a stream that nobody reads is closed, not read to its end
        "ANTHROPIC_MESSAGES_MAX_DETACHED_STREAM_DRAINS": "0",
        "REPEATED_STREAMING_CHUNK_LIMIT": "1000000000",  # a long line of "=" is an answer too
        "MAX_IMAGE_URL_DOWNLOAD_SIZE_MB": "0",  # it fetches nothing that a guest names
    },
)


class Worker:
    """Every argument is optional; nothing is started before the first call or `start`."""

    def __init__(self, python: str = sys.executable) -> None:
        self._kept = Kept(ROLE, self._hear, self._died, self._rest, python)
        self._calls: dict[int, WorkerReply] = {}
        self._ids = itertools.count(1)

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._kept.now.pid if self._kept.now else None

    async def start(self) -> None:
        """Have the process ready. Safe to call twice."""
        await self._ready()

    async def close(self) -> None:
        """End the process and every call in flight. Safe to call twice; nothing is started afterwards."""
        await self._kept.close()

    async def send(
        self,
        route_key: str,
        model_list: Sequence[Mapping[str, Any]],
        router_settings: Mapping[str, Any],
        ask: asking.Ask,
    ) -> asking.Reply:
        """Ask, and return once the upstream has begun to answer. Until then every failure is raised from here."""
        message = {
            "t": "ask",
            "route": route_key,
            "models": list(model_list),
            "settings": dict(router_settings),
            "dialect": ask.dialect,
            "body": dict(ask.body),
            "stream": ask.stream,
        }
        worker = await self._ready()
        number = next(self._ids)
        try:
            worker.tell({**message, "id": number})
        except frames.TooLarge as error:
            raise errors.TooLarge(f"the request is too large to translate: {error}") from None

        def tell(name: str, **more: int) -> None:
            if name == "stop":
                self._calls.pop(number, None)
            worker.tell({"t": name, "id": number, **more})

        reply = self._calls[number] = WorkerReply(ask, model_list[0], tell)
        try:
            await reply.begun()
        except BaseException:
            reply.stop()
            raise
        return reply

    async def _ready(self) -> child.Child:
        try:
            return await self._kept.ready()
        except child.NotStarted as error:
            raise asking.Refused(error.message, type="worker") from None

    async def _rest(self, seconds: float) -> None:
        raise asking.Refused(
            f"the model worker ended {self._kept.deaths} times in a row and is given a rest",
            type="worker",
            retryable=True,
            retry_after_seconds=int(seconds) + 1,
        )

    def _hear(self, message: frames.Message) -> None:
        """Hand each message to its call."""
        number = int(message.get("id", 0))
        if reply := self._calls.get(number):  # else it was stopped meanwhile
            reply.feed(message)
            if message["t"] != "data":
                self._calls.pop(number, None)
                self._kept.served()

    def _died(self, how: str) -> None:
        calls, self._calls = self._calls, {}
        for reply in calls.values():
            reply.fail(
                asking.Refused(
                    f"{how} during this call: whether the model answered is not known",
                    type="worker",
                    retryable=False,
                    hint="a new worker is started by the next call",
                )
            )
