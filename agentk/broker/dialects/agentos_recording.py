"""RECORD and REPLAY: what a connection asked and was told, and asking it again.

A recording is the client's to keep; the journal is what happened, and neither is made from the other. A replay makes
each recorded call that changes state anew, through the gate like any other: what needs a model, a program or the
network is skipped, because its answer need not be the same.
"""

import json
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from agentk.api import errors
from agentk.broker.dialects.agentos_words import Asked, Json, Op, name_of

ENTRIES_MAX = 50_000
_BYTES_MAX = 4 * 1024 * 1024  # of one connection
_EXPORT_BYTES = 900 * 1024  # a frame holds it, quotes and all: the oldest are left out
_REPLAYED = frozenset(
    {Op.REGISTER, Op.SEND, Op.BROADCAST, Op.STORE, Op.DELETE, Op.EMIT, Op.SUBSCRIBE, Op.UNSUBSCRIBE, Op.NOOP}
)
_FLAGS = {Op.THINK: "include_think", Op.HTTP: "include_http", Op.EXEC: "include_exec"}
_NEVER = frozenset({op for op in Op if 0x70 <= op <= 0x74} | {Op.EXIT})


@dataclass(frozen=True)
class Entry:
    opcode: int
    payload: str
    told: str  # as JSON, of a recording
    size_bytes: int


class Recorder:
    def __init__(self) -> None:
        self.recording = False
        self.last_sequence_id = 0
        self._kept: deque[Entry] = deque()
        self._bytes = 0
        self._most = ENTRIES_MAX
        self._left_out: frozenset[int] = frozenset()
        self.replay: list[Entry] = []
        self.replay_state = "IDLE"
        self.at = self.replayed = self.skipped = 0
        self.replay_error = ""

    def begin(self, asked: Asked, agent_id: int) -> None:
        """Raises BadRequest. What was recorded before is forgotten."""
        agents = asked.get("filter_agents") or []
        if not isinstance(agents, list):
            raise errors.BadRequest("filter_agents must be a list of ids")
        self._most = asked.whole("max_entries", ENTRIES_MAX, 1, ENTRIES_MAX)
        self._left_out = frozenset(op for op, flag in _FLAGS.items() if not asked.flag(flag))
        # A connection hears itself only, so a list without it records nothing.
        self.recording = not agents or agent_id in agents
        self._kept.clear()
        self._bytes = self.last_sequence_id = 0

    def __len__(self) -> int:
        return len(self._kept)

    def note(self, opcode: int, payload: bytes, reply: bytes, agent_id: int, took_seconds: float) -> None:
        if not self.recording or opcode in self._left_out or opcode in _NEVER:
            return
        self.last_sequence_id += 1
        text = payload.decode(errors="replace")
        told = json.dumps(
            {
                "sequence_id": self.last_sequence_id,
                "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "agent_id": agent_id,
                "opcode": opcode,
                "opcode_name": name_of(opcode),
                "payload": text,
                "response": reply.decode(errors="replace"),
                "duration_us": int(took_seconds * 1e6),
                "success": b'"success":false' not in reply[:40],
            },
            ensure_ascii=False,
        )
        entry = Entry(opcode, text, told, len(told))
        self._kept.append(entry)
        self._bytes += entry.size_bytes
        while len(self._kept) > self._most or self._bytes > _BYTES_MAX:
            self._bytes -= self._kept.popleft().size_bytes

    def exported(self) -> str:
        """A JSON array, of the newest entries that a frame holds."""
        found: list[str] = []
        size = 0
        for entry in reversed(self._kept):
            size += len(json.dumps(entry.told).encode()) + 2  # it is a text within a text
            if size > _EXPORT_BYTES:
                break
            found.append(entry.told)
        return "[" + ",".join(reversed(found)) + "]"

    def load(self, asked: Asked) -> None:
        """What is to be asked again. Raises BadRequest for what is no recording."""
        if self.replay_state == "RUNNING":
            raise errors.Conflict("a replay is running")
        given = asked.get("recording", "recording_data")
        try:
            entries = json.loads(given) if isinstance(given, str) else given
        except (ValueError, RecursionError):
            raise errors.BadRequest("recording is no JSON") from None
        if isinstance(entries, dict):
            entries = entries.get("entries")
        if not isinstance(entries, list):
            raise errors.BadRequest("recording required")
        self.replay = [_entry(one) for one in entries]
        self.at = self.replayed = self.skipped = 0
        self.replay_error = ""
        self.replay_state = "RUNNING"

    def status(self) -> Json:
        total = len(self.replay)
        told: Json = {
            "state": self.replay_state,
            "total_entries": total,
            "current_entry": self.at,
            "entries_replayed": self.replayed,
            "entries_skipped": self.skipped,
            "progress": self.at / total if total else 0.0,
        }
        return told | ({"error": self.replay_error} if self.replay_error else {})


def again(entry: Entry) -> bool:
    """Whether a replay makes this call anew."""
    return entry.opcode in _REPLAYED


def _entry(told: Any) -> Entry:
    if not isinstance(told, dict):
        raise errors.BadRequest("an entry of the recording is no object")
    opcode, payload = told.get("opcode"), told.get("payload", "")
    if opcode is None and isinstance(told.get("opcode_name"), str):
        opcode = Op.__members__.get(told["opcode_name"].removeprefix("SYS_"))
    if isinstance(payload, dict | list):
        payload = json.dumps(payload)
    if not isinstance(opcode, int) or isinstance(opcode, bool) or not isinstance(payload, str):
        raise errors.BadRequest("an entry of the recording has no opcode or payload")
    return Entry(opcode, payload, "", 0)
