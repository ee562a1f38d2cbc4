"""A client as programs for that kernel bring their own: Python's standard library, and nothing of ours.

Given to agents as text, so it must stand alone.
"""

import json
import socket
import struct
import time


class AgentOS:
    def __init__(self, path="/tmp/agentos.sock"):
        self.agent_id = 0
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)

    def raw(self, opcode, payload=b""):
        head = struct.pack("<IIBQ", 0x41474E54, self.agent_id, opcode, len(payload))
        self.sock.sendall(head + payload)
        magic, self.agent_id, told, size = struct.unpack("<IIBQ", self.exactly(17))
        assert (magic, told) == (0x41474E54, opcode)
        return self.exactly(size)

    def exactly(self, size):
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise EOFError("the kernel hung up")
            data += more
        return data

    def ask(self, opcode, **fields):
        return json.loads(self.raw(opcode, json.dumps(fields).encode() if fields else b""))

    def receive(self, seconds=60):
        """The next message: RECV does not wait, so programs ask again."""
        return self.until(lambda: self.ask(0x21, max=1)["messages"], seconds)[0]

    def until(self, true, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            told = true()
            if told:
                return told
            time.sleep(0.05)
        raise TimeoutError("it never came")
