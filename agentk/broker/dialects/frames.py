"""AgentOS frames, without I/O: bytes of one connection in, frames out, and how a reply is written.

A frame is a 17-byte header (magic u32, agent id u32, opcode u8, payload size u64, all little endian) and its payload.
Nothing is built from a length before it is checked. A header that is wrong ends the connection: what follows it
cannot be trusted to be a frame.
"""

import struct
from typing import NamedTuple

MAGIC = 0x41474E54  # on the wire the door knows it by
PAYLOAD_BYTES = 1024 * 1024
_HEADER = struct.Struct("<IIBQ")
HEADER_BYTES = _HEADER.size


class Frame(NamedTuple):
    agent_id: int  # what the sender says: never believed
    opcode: int
    payload: bytes

    @property
    def size_bytes(self) -> int:
        return HEADER_BYTES + len(self.payload)


class Refused(Exception):
    """A header that is none. `opcode` as it stood there, so that the refusal can be told in a frame."""

    def __init__(self, message: str, opcode: int) -> None:
        super().__init__(message)
        self.message = message
        self.opcode = opcode


def encode(agent_id: int, opcode: int, payload: bytes) -> bytes:
    """Raises ValueError for a payload that no frame holds."""
    if len(payload) > PAYLOAD_BYTES:
        raise ValueError(f"a frame holds {PAYLOAD_BYTES} bytes, not {len(payload)}")
    return _HEADER.pack(MAGIC, agent_id, opcode, len(payload)) + payload


class Frames:
    """Bytes as they come → whole frames, asked for one at a time so that the caller can stop between them."""

    def __init__(self, payload_bytes: int = PAYLOAD_BYTES) -> None:
        self._held = bytearray()
        self._payload_bytes = payload_bytes
        self._agent_id, self._opcode = 0, 0
        self._size = -1  # of the payload that is being read; -1: its header is not read yet
        self._refused: Refused | None = None

    def __len__(self) -> int:
        return len(self._held)

    def feed(self, data: bytes) -> None:
        if self._refused is None:
            self._held += data

    def take(self) -> Frame | None:
        """The next whole frame. Raises Refused for a header that is none, and for ever after."""
        if self._refused is not None:
            raise self._refused
        if self._size < 0 and not self._read_header():
            return None
        end = HEADER_BYTES + self._size
        if len(self._held) < end:
            return None
        payload = bytes(self._held[HEADER_BYTES:end])
        del self._held[:end]
        self._size = -1
        return Frame(self._agent_id, self._opcode, payload)

    def _read_header(self) -> bool:
        held = self._held
        if held[:4] != _MAGIC_BYTES[: len(held)]:
            raise self._refuse("this is no AgentOS frame: its magic is wrong", 0)
        if len(held) < HEADER_BYTES:
            return False
        _, self._agent_id, self._opcode, size = _HEADER.unpack_from(held)
        if size > self._payload_bytes:
            told = f"a payload of {size} bytes: a frame holds {self._payload_bytes}"
            raise self._refuse(told, self._opcode)
        self._size = size
        return True

    def _refuse(self, message: str, opcode: int) -> Refused:
        self._refused = Refused(message, opcode)
        self._held.clear()
        return self._refused


_MAGIC_BYTES = struct.pack("<I", MAGIC)
