"""An AgentOS client made from the wire, of nothing of ours."""

import asyncio
import contextlib
import json
import struct
from typing import Any

MAGIC = 0x41474E54


class Client:
    """What a program written for that kernel does, and no more."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.agent_id = 0

    async def raw(self, opcode: int, payload: bytes = b"") -> bytes:
        self.writer.write(struct.pack("<IIBQ", MAGIC, self.agent_id, opcode, len(payload)) + payload)
        magic, agent_id, told, size = struct.unpack("<IIBQ", await self.reader.readexactly(17))
        assert (magic, told) == (MAGIC, opcode)
        assert self.agent_id in (0, agent_id)
        self.agent_id = agent_id
        return await self.reader.readexactly(size)

    async def ask(self, opcode: int, fields: Any = None, **more: Any) -> Any:
        asked = {**(fields or {}), **more}
        return json.loads(await self.raw(opcode, json.dumps(asked).encode() if asked else b""))

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
