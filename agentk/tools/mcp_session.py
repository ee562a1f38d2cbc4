"""One server that is spoken with, in the worker: greeting it, asking what it offers, calling it, leaving it.

Nothing of what a server says about itself is checked by running it: a schema's pattern could hold this process for
hours, so an answer is not compared here with the schema that was promised: the gate does, and runs no pattern.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import mcp_types
from mcp.client._transport import Transport
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError

from agentk.tools import mcp_sieve, offers, speaking

PAGES = 50  # of one listing
KEY = "agentk.dev/idempotency-key"  # in the _meta of a call of a tool that is idempotent by key
LISTING_BYTES = 4 * 1024 * 1024  # of all that it says of its tools
LISTED_SECONDS = 60.0  # how old a listing may be when a tool is called: not every server says that it changed
_PROGRESS_SECONDS = 0.1  # between two words of one call's progress
_CLOSED = (mcp_types.CONNECTION_CLOSED,)
_OTHER_ERA = (mcp_types.UNSUPPORTED_PROTOCOL_VERSION, mcp_types.METHOD_NOT_FOUND)

Say = Callable[[Mapping[str, Any]], None]


class _Client(ClientSession):
    async def validate_tool_result(self, name: str, result: mcp_types.CallToolResult) -> None:
        """Not at all: see above."""


class Session:
    """`run` is its life; `call` may be asked for by others meanwhile."""

    def __init__(
        self,
        number: int,
        transport: Transport,
        seconds: float,
        say: Say,
        cause: Callable[[], str] = lambda: "",
    ) -> None:
        """`cause`: why the transport last failed, when it knows better than the SDK says."""
        self.number, self._cause = number, cause
        self._transport, self._seconds, self._say = transport, seconds, say
        self._share = mcp_sieve.Share()
        self._client: _Client
        self._over = asyncio.Event()
        self._dirty = asyncio.Event()
        self._why = "the server ended"
        self._listed = 0.0
        self._known: dict[str, str] = {}

    def close(self) -> None:
        self._why = "closed"
        self._over.set()

    async def run(self) -> None:
        """Until the server ends or is left. Always says `closed` in the end, and never raises."""
        kind = "ended"
        try:
            await self._live()
        except Exception as error:  # noqa: BLE001 - whatever a server can make the SDK raise ends this session alone
            kind = "start"
            if not self._over.is_set():
                self._why = _first(error)
            self._why = self._cause() or self._why
        finally:
            self._say({"t": "closed", "id": self.number, "why": self._why[:500], "kind": kind})

    async def _live(self) -> None:
        info = mcp_types.Implementation(name="agentk", version="1")
        sifted = mcp_sieve.sifted(self._transport, self._share, self._dirty.set, self._ended)
        async with sifted as (read, write), _Client(read, write, client_info=info) as self._client:
            try:
                with anyio.fail_after(self._seconds):
                    await self._greet()
                    listing = await self._list()
            except TimeoutError:
                self._ended(f"the server did not answer within {self._seconds:g} s")
                raise
            except Exception as error:
                self._ended(_first(error))  # unless it ended before, which is why then
                raise
            server = self._client.server_info
            told = {"server": _text(server.name if server else ""), "version": self._client.protocol_version}
            self._say({"t": "opened", "id": self.number, **listing, **told})
            await self._watch()

    async def _greet(self) -> None:
        """With `initialize`, which every server of today knows; one that no longer does is asked what it speaks."""
        try:
            await self._client.initialize()
        except MCPError as error:
            if error.code not in _OTHER_ERA:
                raise
            await self._client.discover()

    async def _watch(self) -> None:
        while not self._over.is_set():
            waits = [asyncio.ensure_future(event.wait()) for event in (self._over, self._dirty)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            if self._over.is_set():
                return
            try:
                await self._look_again()
            except TimeoutError:
                self._ended(f"the server hung: it did not list its tools within {self._seconds:g} s")
                return
            except (MCPError, offers.Unusable, ValueError, RuntimeError) as error:
                self._ended(_first(error))
                return
            await asyncio.sleep(1)  # however often it says that they changed

    async def _look_again(self) -> None:
        """Tell of a listing that is another than before."""
        self._dirty.clear()
        before = self._known
        with anyio.fail_after(self._seconds):
            listing = await self._list()
        if self._known != before:
            self._say({"t": "changed", "id": self.number, **listing})

    async def _list(self) -> dict[str, Any]:
        found: list[offers.Offered] = []
        refused: list[str] = []
        names: set[str] = set()
        cursor: str | None = None
        for _ in range(PAGES):
            params = mcp_types.PaginatedRequestParams(cursor=cursor) if cursor else None
            page = await self._client.list_tools(params=params)
            for tool in page.tools:
                if len(found) + len(refused) >= offers.OFFERS:
                    raise offers.Unusable(f"the server offers more than {offers.OFFERS} tools")
                self._keep(tool, found, refused, names)
            cursor = page.next_cursor
            if not cursor:
                break
        else:
            raise offers.Unusable(f"the list of tools has more than {PAGES} pages")
        told = [_told(one) for one in found]
        if (size := sum(len(json.dumps(one)) for one in told)) > LISTING_BYTES:
            raise offers.Unusable(f"the server says {size} bytes of its tools; the most is {LISTING_BYTES}")
        self._listed = time.monotonic()
        self._known = {one.name: one.digest for one in found}
        return {"offers": told, "refused": refused[: offers.OFFERS]}

    def _keep(
        self, tool: mcp_types.Tool, found: list[offers.Offered], refused: list[str], names: set[str]
    ) -> None:
        self._share.begin()
        hints = tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else {}
        try:
            one = offers.offered(tool.name, tool.description, tool.input_schema, tool.output_schema, hints)
            if one.name in names:
                raise offers.Unusable(f"{one.name} is offered twice")
            names.add(one.name)
            found.append(one)
        except offers.Unusable as error:
            refused.append(_text(str(error)))
        finally:
            self._share.end()

    async def call(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """What the daemon is told of one call."""
        try:
            with anyio.fail_after(float(message["seconds"])):
                if time.monotonic() - self._listed > LISTED_SECONDS:
                    await self._look_again()
                progress = self._progress(int(message["id"])) if message.get("progress") else None
                meta: Any = {KEY: str(message["key"])} if message.get("key") else None
                result = await self._client.call_tool(
                    str(message["name"]), message["arguments"], progress_callback=progress, meta=meta
                )
        except TimeoutError:
            self._dirty.set()  # whether it answers anything at all: one that hangs is let go
            return _wrong("timeout", f"no answer within {float(message['seconds']):g} s")
        except MCPError as error:
            if error.code in _CLOSED:
                return _wrong("gone", self._why)
            return _wrong("refused", _text(error.message), code=error.code)
        except (ValueError, RuntimeError) as error:
            return _wrong("nonsense", f"the server's answer is none: {_first(error)}")
        return self._result(result)

    def _result(self, result: mcp_types.CallToolResult) -> dict[str, Any]:
        self._share.begin()
        try:
            content = [
                block.model_dump(by_alias=True, mode="json", exclude_none=True) for block in result.content
            ]
            told = speaking.spoken([content, result.structured_content])
        except ValueError as error:
            return _wrong("nonsense", f"the server's answer is none: {error}")
        finally:
            self._share.end()
        return {
            "t": "result",
            "content": told[0],
            "structured": told[1],
            "error": bool(result.is_error),
        }

    def _progress(self, number: int) -> Any:
        last = 0.0

        async def told(done: float, total: float | None, text: str | None) -> None:
            nonlocal last
            if time.monotonic() - last >= _PROGRESS_SECONDS:
                last = time.monotonic()
                word = {"done": _finite(done), "total": _finite(total), "text": _text(text or "")}
                self._say({"t": "progress", "id": number, **word})

        return told

    def _ended(self, why: str) -> None:
        if not self._over.is_set():
            self._why = why
            self._over.set()


def _told(one: offers.Offered) -> dict[str, Any]:
    return {
        "name": one.name,
        "description": one.description,
        "inputSchema": one.input_schema,
        "outputSchema": one.output_schema,
        "annotations": one.annotations,
        "digest": one.digest,
    }


def _wrong(kind: str, why: str, **more: Any) -> dict[str, Any]:
    return {"t": "wrong", "kind": kind, "why": why[:2000], **more}


def _first(error: BaseException) -> str:
    """The cause within groups of them, in a few words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, MCPError):
        return _text(error.message)
    said = str(error).partition("\n")[0]
    return _text(said or type(error).__name__)


def _text(text: str) -> str:
    return offers.cleaned(text[:2000])


def _finite(number: float | None) -> float | None:
    return number if number is not None and number == number and abs(number) != float("inf") else None
