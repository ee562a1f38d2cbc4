"""The daemon's end of a WebSocket that speaks Kubernetes' channels, for whoever serves one caller from begin to end.

Nothing grows without a bound: a caller that sends more than is taken is not read, one that does not read holds up
whoever says something to it. One that is silent, also to pings, is hung up on. It must never act on what it hears.
"""

import asyncio
import base64
import binascii
import select
from collections import deque
from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from wsproto.utilities import generate_accept_token

from agentk.api import channels, errors

_HELD_BYTES = 256 * 1024  # heard and not yet taken; then it is read no more, until half of it is
_UNSENT_BYTES = 256 * 1024
_PING_SECONDS = 10.0
_LOOK_SECONDS = 1.0  # how soon the end of a caller is noticed that is not being read
_SILENCE_SECONDS = 3600.0  # a pager may stop somebody from reading for long
_LAST_WORDS_SECONDS = 2.0  # for the caller to hear them
_VERSION = "13"


class Gone(Exception):
    """Nobody is at the other end any more."""


class WebSocket(asyncio.Protocol):
    """`receive`, `send` and `close` are for one task each."""

    def __init__(self, speaker: channels.Speaker) -> None:
        self._speaker = speaker
        self._heard: deque[channels.Heard] = deque()
        self._held_bytes = 0
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()
        self._transport: asyncio.Transport | None = None
        self._gone = self._paused = False
        self._spoke_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._over, self._lost = asyncio.Event(), asyncio.Event()

    # what its task asks

    async def receive(self) -> channels.Heard:
        """What came next. Raises Gone."""
        while not self._heard:
            if self._gone:
                raise Gone
            self._news.clear()
            await self._news.wait()
        heard = self._heard.popleft()
        self._held_bytes -= len(heard.data)
        if self._paused and self._held_bytes <= _HELD_BYTES // 2 and self._transport is not None:
            self._paused = False
            self._spoke_at = asyncio.get_running_loop().time()
            self._transport.resume_reading()
        return heard

    async def send(self, channel: int, data: bytes) -> None:
        """Returns when there is room for more. Raises Gone."""
        self._write(self._speaker.say(channel, data))
        await self._room.wait()
        if self._gone:
            raise Gone

    @property
    def closes_channels(self) -> bool:
        """Whether the other end may say that a channel ends."""
        return self._speaker.closes_channels

    def close_channel(self, channel: int) -> None:
        self._write(self._speaker.close_channel(channel))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say the last words, and hang up when they were heard. Repeatable."""
        self._write(self._speaker.end(code, reason))
        if self._transport is not None and not self._gone:
            self._transport.resume_reading()  # for the other end's last words
            try:
                async with asyncio.timeout(_LAST_WORDS_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                self._transport.abort()

    async def gone(self) -> None:
        """Returns when nobody is at the other end."""
        await self._over.wait()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        self._spoke_at = asyncio.get_running_loop().time()
        self._timer = asyncio.get_running_loop().call_later(_PING_SECONDS, self._tick)

    def data_received(self, data: bytes) -> None:
        self._spoke_at = asyncio.get_running_loop().time()
        for heard in self._speaker.feed(data):
            self._heard.append(heard)
            self._held_bytes += len(heard.data) + 1
        self._write(self._speaker.answers())
        if self._speaker.ended:
            assert self._transport is not None
            self._transport.close()  # once all is sent, or never will be:
            asyncio.get_running_loop().call_later(_LAST_WORDS_SECONDS, self._transport.abort)
            self._leave()
        elif self._held_bytes > _HELD_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
        self._news.set()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        self._leave()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def _leave(self) -> None:
        self._gone = True
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()
        self._news.set()
        self._room.set()

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _look(self) -> None:
        """Nobody tells the loop of the end of a connection that is not read."""
        if not self._paused or self._gone or self._transport is None:
            return
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        if poll.poll(0):
            self._transport.abort()
        else:
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _tick(self) -> None:
        """Whether somebody is still there."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        if not self._paused and loop.time() - self._spoke_at > _SILENCE_SECONDS:
            self._transport.abort()
            return
        if self._room.is_set():
            self._write(self._speaker.ping())
        self._timer = loop.call_later(_PING_SECONDS, self._tick)


class Upgrade(Response):
    """Becomes a WebSocket instead of an answer, and begins to serve it."""

    def __init__(
        self, request: Request, begin: Callable[[WebSocket], None], whole: Sequence[int] = ()
    ) -> None:
        """Raises BadRequest for what is no handshake of ours. `whole`: as of a Speaker, besides CLOSE."""
        super().__init__()
        self._begin = begin
        self._protocol, self._token = _handshake(request)
        speaker = channels.Speaker(client=False, protocol=self._protocol, whole=(channels.CLOSE, *whole))
        self._socket = WebSocket(speaker)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        told = [
            (b"sec-websocket-accept", self._token),
            (b"sec-websocket-protocol", self._protocol.encode("ascii")),
        ]
        scope["state"]["upgrade"](self._socket, told)
        self._begin(self._socket)


def _handshake(request: Request) -> tuple[str, bytes]:
    """The subprotocol, and what proves that we have heard."""
    told = request.headers
    words = [word.strip().lower() for word in told.get("connection", "").split(",")]
    if "upgrade" not in words or told.get("upgrade", "").lower() != "websocket":
        raise errors.BadRequest(
            "this path is for WebSocket connections", hint="agentk exec, attach, port-forward"
        )
    if told.get("sec-websocket-version") != _VERSION:
        raise errors.BadRequest(f"only version {_VERSION} of WebSocket is spoken here")
    key = told.get("sec-websocket-key", "")
    try:
        good = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        good = False
    if not good:
        raise errors.BadRequest("Sec-WebSocket-Key must be 16 bytes in base64")
    offered = [one.strip() for line in told.getlist("sec-websocket-protocol") for one in line.split(",")]
    return channels.choose(offered), generate_accept_token(key.encode("ascii"))
