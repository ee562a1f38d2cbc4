"""HTTP/1.1 on a socket that we bound: uvicorn with h11, plus what a control socket needs.

Each connection is told apart by its peer's credentials before a byte of it is read, a caller who sends no request
is let go, and the end of the daemon is an event, not a poll.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Generator, Sequence
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from agentk.api import errors
from agentk.daemon import sockets

_HEAD_BYTES = 64 * 1024  # request line and headers: selectors of 8 KiB fit several times
_HEAD_SECONDS = 30  # from connect to the end of the first request's headers
_IDLE_SECONDS = 75  # a kept-alive connection without a request


async def serve(app: ASGIApp, sock: socket.socket, ending: asyncio.Event, *, grace_seconds: int = 5) -> None:
    """Serve `app` on a listening socket until `ending` is set, then let requests finish for `grace_seconds`.

    Closes `sock`; a duplicate that the keeper holds goes on queueing callers. Installs no signal handler.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=1024,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=grace_seconds,
        h11_max_incomplete_event_size=_HEAD_BYTES,
    )
    await _Server(config, ending).serve(sockets=[sock])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ending: asyncio.Event) -> None:
        super().__init__(config)
        self._ending = ending

    async def main_loop(self) -> None:
        await self.on_tick(0)  # sets the default headers, which then stay as they are
        await self._ending.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # signals are the house's


class _Upgraded(Exception):
    """Why HTTP lost its connection."""


class _Protocol(H11Protocol):
    """Adds `peer` to the request's state, a deadline for the first headers, and errors that are a `Status`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        peer = None if connection is None else sockets.peer(connection)
        self.app_state = {**self.app_state, "peer": peer, "upgrade": self.upgrade}
        self._head_deadline = self.loop.call_later(_HEAD_SECONDS, self._no_request)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._requested():
            self._forget_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def upgrade(self, protocol: asyncio.Protocol, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Answers 101, and the connection is `protocol`'s from here on: HTTP knows nothing of it any more."""
        word = next((value for name, value in self.headers if name == b"upgrade"), b"")
        told = [(b"connection", b"upgrade"), (b"upgrade", word), *headers]
        lines = [b"HTTP/1.1 101 Switching Protocols", *(name + b": " + value for name, value in told)]
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        early = self.conn.trailing_data[0]
        gone = self.transport.is_closing()
        self.connection_lost(_Upgraded())  # an error, so that the transport stays open
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if gone:
            protocol.connection_lost(None)  # asyncio may have told HTTP already
            return
        self.transport.write(head)
        self.transport.resume_reading()
        if early:
            protocol.data_received(early)

    def _unsupported_upgrade_warning(self) -> None:
        """What is supported is for the paths to say."""

    def send_400_response(self, msg: str) -> None:
        """Not HTTP, or headers beyond the limit."""
        error = errors.BadRequest("this is not a valid HTTP/1.1 request", hint="headers have at most 64 KiB")
        body = json.dumps(error.to_status()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # in the middle of an answer: there is no room for another
            return
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _no_request(self) -> None:
        self._head_deadline = None
        if not self._requested():
            self.transport.close()

    def _requested(self) -> bool:
        return bool(self.headers)  # set with the first request

    def _forget_deadline(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None
