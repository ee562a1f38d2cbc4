"""…/agents/NAME/files?path=P: files of a box as a tar stream, out with GET and in with PUT; HEAD tells what P is.

What packs and unpacks runs in the box as its own user and holds nothing that the box does not. The stream is passed on
as it comes, never read here.
"""

import asyncio
import contextlib
import io
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from agentk.api import errors
from agentk.client import tars
from agentk.daemon import answers, calls, descriptors, streaming, visiting

_PATH_MAX = 4096
_TAR = "application/x-tar"
_LAST_SECONDS = 1.0
_HEAD_MAX_BYTES = 256 * 1024  # before the first entry there are only its names
KIND = "agentk-kind"


async def read(call: calls.Call) -> Response:
    """The file or directory at `path` with all below it, and a JSON object of what was left out, if something was.

    Raises what is wrong before the first byte is sent.
    """
    visit = await visiting.visit(call, "read", [_path(call)])
    packed = _packed(visit)
    try:
        first = await anext(packed, b"")
    except BaseException:
        await packed.aclose()
        raise
    return streaming.Stream(_after(first, packed), _TAR)


async def look(call: calls.Call) -> Response:
    """Whether `path` is a directory, in a header."""
    visit = await visiting.visit(call, "look", [_path(call)])
    async with contextlib.aclosing(_packed(visit)) as packed:
        head, kind = b"", ""
        async for data in packed:
            head += data
            if (kind := _kind(head)) or len(head) > _HEAD_MAX_BYTES:
                break
    return Response(headers={KIND: kind or "file"}, media_type=_TAR)


async def write(call: calls.Call) -> Response:
    """Below the directory `path`: {"files": …, "bytes": …}."""
    visit = await visiting.visit(call, "write", [_path(call)])
    source, ours = os.pipe()
    writer = descriptors.Writer(ours)
    loop = asyncio.get_running_loop()
    async with visit.recorded() as told:
        unpacking = loop.create_task(
            visit.room.hands.unpack(visit.box_id, visit.about[0], source, visit.id), name="unpack"
        )
        feeding = loop.create_task(_feed(call.request.stream(), writer), name="feed unpack")
        try:
            await asyncio.wait({unpacking, feeding}, return_when=asyncio.FIRST_COMPLETED)
            if not unpacking.done() and isinstance(feeding.exception(), ClientDisconnect):
                raise errors.Cancelled("the caller hung up")
            told |= await unpacking
        finally:
            for task in (unpacking, feeding):
                task.cancel()
            await asyncio.gather(unpacking, feeding, return_exceptions=True)
            writer.close()
            os.close(source)
    return answers.plain(dict(told))


async def _feed(body: AsyncIterator[bytes], writer: descriptors.Writer) -> None:
    try:
        async for chunk in body:
            await writer.write(chunk)
    except BrokenPipeError:
        pass  # it says why itself
    finally:
        writer.close()


async def _packed(visit: visiting.Visit) -> AsyncGenerator[bytes, None]:
    ours, out = os.pipe()
    reader = descriptors.Reader(ours)
    async with visit.recorded() as told:
        packing = asyncio.get_running_loop().create_task(_pack(visit, out, reader), name="pack")
        try:
            while data := await reader.read():
                yield data
            told |= await packing
            if told.get("refused"):  # after the end of the archive, where tar programs do not look
                yield json.dumps({"refused": told["refused"]}).encode()
        finally:
            packing.cancel()
            await asyncio.gather(packing, return_exceptions=True)
            reader.close()


async def _pack(visit: visiting.Visit, out: int, reader: descriptors.Reader) -> Any:
    """When it is done, what it wrote has an end."""
    try:
        return await visit.room.hands.pack(visit.box_id, visit.about[0], out, visit.id)
    finally:
        os.close(out)
        reader.hurry(_LAST_SECONDS)


def _kind(head: bytes) -> str:
    """Of the first entry; "" when it is not all there."""
    file = io.BytesIO(head)
    try:
        return next((entry.kind for entry in tars.Reader(file.read).entries()), "")
    except errors.BadRequest:
        return ""


async def _after(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for chunk in rest:
            yield chunk
    finally:
        await rest.aclose()


def _path(call: calls.Call) -> str:
    path = call.query.get("path", "")
    if not path.startswith("/") or "\0" in path or len(path) > _PATH_MAX:
        raise errors.BadRequest("path is an absolute path in the box", field="path")
    return path
