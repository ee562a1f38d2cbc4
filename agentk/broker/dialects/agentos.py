"""The AgentOS dialect: which opcode is answered by what. Everything that does something is a call of the gate.

Opcodes that mean nothing here (worlds, tunnels, unknown ones) are answered as such, with the same opcode.
"""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable

from agentk.api import errors
from agentk.broker.dialects import agentos_family as family
from agentk.broker.dialects import agentos_recording as recording
from agentk.broker.dialects import agentos_talk as talk
from agentk.broker.dialects import agentos_telling as telling
from agentk.broker.dialects import agentos_work as work
from agentk.broker.dialects.agentos_session import Host, Kernel, Session
from agentk.broker.dialects.agentos_words import Asked, Json, Op, Reply, encoded, name_of, refusal, size_bytes
from agentk.broker.dialects.frames import PAYLOAD_BYTES
from agentk.broker.dialects.frames_serving import FRAMES_A_TURN, FramesService, Start
from agentk.broker.dialects.jsonrpc import Room
from agentk.broker.words import Guest

ASYNC_MAX = 64  # of one connection: under way, or done and not asked for
_ASYNC_BYTES = 16 * 1024 * 1024  # of answers that wait to be asked for
_TOLD_CHARS = 500  # of an error, in an event
_POLL_BYTES = PAYLOAD_BYTES - 64 * 1024

Handler = Callable[[Session, Asked], Awaitable[Reply]]

_TABLE: dict[int, Handler] = {
    Op.EXEC: work.run,
    Op.READ: work.read,
    Op.WRITE: work.write,
    Op.HTTP: work.http,
    Op.SPAWN: family.spawn,
    Op.KILL: family.kill,
    Op.LIST: family.listing,
    Op.PAUSE: family.pause,
    Op.RESUME: family.resume,
    Op.SEND: talk.send,
    Op.RECV: talk.receive,
    Op.BROADCAST: talk.broadcast,
    Op.REGISTER: talk.register,
    Op.STORE: talk.store,
    Op.FETCH: talk.fetch,
    Op.DELETE: talk.delete,
    Op.KEYS: talk.keys,
    Op.GET_PERMS: telling.rights,
    Op.SET_PERMS: telling.lower,
    Op.SUBSCRIBE: talk.subscribe,
    Op.UNSUBSCRIBE: talk.unsubscribe,
    Op.POLL_EVENTS: talk.poll,
    Op.EMIT: talk.emit,
    Op.GET_AUDIT_LOG: telling.audit,
    Op.SET_AUDIT_CONFIG: telling.audit_config,
    Op.METRICS_SYSTEM: telling.system,
    Op.METRICS_AGENT: telling.one_agent,
    Op.METRICS_ALL_AGENTS: telling.all_agents,
    Op.METRICS_CGROUP: telling.cgroup,
    Op.LLM_REPORT: telling.report,
    Op.HELLO: telling.hello,
    Op.THINK: work.think,
}
_ASYNC = frozenset({Op.THINK, Op.EXEC, Op.HTTP})
_GROUPS = {range(0xA0, 0xA9): "worlds are not simulated here", range(0xB0, 0xB5): "there are no tunnels here"}


def service(
    kernel: Kernel, find: Callable[[], Guest], room: Room | None = None, host: Host | None = None
) -> FramesService:
    """Who answers one guest's connections: `{"frames": service(…).connection}` for its door."""
    return FramesService(lambda start: Speaker(kernel, find, start, host), room)


class Speaker(Session):
    """One connection, answering."""

    def __init__(
        self, kernel: Kernel, find: Callable[[], Guest], start: Start, host: Host | None = None
    ) -> None:
        super().__init__(kernel, find, start, host)
        self._own: dict[int, Handler] = {
            Op.RECORD_START: self._record,
            Op.RECORD_STOP: self._record_stop,
            Op.RECORD_STATUS: self._record_status,
            Op.REPLAY_START: self._replay,
            Op.REPLAY_STATUS: self._replay_status,
            Op.ASYNC_POLL: self._poll,
        }
        self._under_way = 0
        self._done: deque[Json] = deque()
        self._done_bytes = 0
        self._next_request = 1
        self._closers: list[Callable[[], object]] = []

    async def answer(self, opcode: int, payload: bytes) -> bytes:
        began, agent_id = time.monotonic(), self.agent_id  # from here on it has its address
        reply = await self._answer(opcode, payload)
        self.recorder.note(opcode, payload, reply, agent_id, time.monotonic() - began)
        return reply

    def close(self) -> None:
        """Ends what goes on without a reply being waited for. Safe to call again."""
        for end in self._closers:
            end()
        self.leave()

    async def _answer(self, opcode: int, payload: bytes) -> bytes:
        try:
            if opcode == Op.NOOP:
                await self.permitted()
                return payload
            if opcode == Op.EXIT:
                await self.permitted()
                return b"goodbye"
            handler = _TABLE.get(opcode) or self._own.get(opcode)
            if handler is None:
                raise _unknown(opcode)
            asked = _thought(payload) if opcode == Op.THINK else Asked.read(payload)
            guest = self.guest
            self.kernel.rights.check(guest, opcode, asked)
            if opcode in _ASYNC and asked.flag("async"):
                return encoded(self._later(opcode, handler, asked))
            return encoded(await handler(self, asked))
        except errors.AgentkError as error:
            return encoded(self._refusal(opcode, error))

    def _refusal(self, opcode: int, error: errors.AgentkError) -> Json:
        """A denial is an event too, for whoever listens for those."""
        told = refusal(opcode, error)
        if isinstance(error, errors.Denied):
            with contextlib.suppress(errors.AgentkError):
                data = {"opcode": name_of(opcode), "error": told["error"][:_TOLD_CHARS]}
                self.kernel.note(self.guest.uid, "call.denied", data)
        return told

    # answers that are asked for later

    def _later(self, opcode: int, handler: Handler, asked: Asked) -> Json:
        if self._under_way + len(self._done) >= ASYNC_MAX or self._done_bytes > _ASYNC_BYTES:
            raise errors.TooManyRequests(
                f"{ASYNC_MAX} asynchronous requests are under way or were never asked for",
                hint="ASYNC_POLL takes their answers",
            )
        request_id = asked.get("request_id")
        if request_id is None:
            request_id, self._next_request = self._next_request, self._next_request + 1
        elif (
            isinstance(request_id, bool)
            or not isinstance(request_id, int | str)
            or len(str(request_id)) > 200
        ):
            raise errors.BadRequest("request_id must be a number or a short text")
        self._under_way += 1
        task = self.start(self._finish(opcode, handler, asked, request_id), f"async {name_of(opcode)}")
        self._closers.append(task.cancel)
        task.add_done_callback(lambda ended: self._ended(ended.cancel))
        return {"success": True, "async": True, "request_id": request_id, "status": "accepted"}

    def _ended(self, closer: Callable[[], object]) -> None:
        self._under_way -= 1
        self._closers.remove(closer)

    async def _finish(self, opcode: int, handler: Handler, asked: Asked, request_id: int | str) -> None:
        try:
            reply: Reply = await handler(self, asked)
        except errors.AgentkError as error:
            reply = self._refusal(opcode, error)
        payload = encoded(reply)
        if len(payload) > _POLL_BYTES // 2:  # it is a text within a text, with every quote escaped
            told = errors.TooLarge(f"the answer has {len(payload)} bytes", hint="ask for it without async")
            payload = encoded(refusal(opcode, told))
        result = {
            "request_id": request_id,
            "opcode": opcode,
            "opcode_name": name_of(opcode),
            "payload": payload.decode(errors="replace"),
        }
        self._done.append(result)
        self._done_bytes += size_bytes(result)

    async def _poll(self, session: Session, asked: Asked) -> Json:
        await self.permitted()
        most = asked.whole("max", 10, 1, ASYNC_MAX)
        results: list[Json] = []
        size = 0
        while self._done and len(results) < most:
            one_bytes = size_bytes(self._done[0]) + 1
            size += one_bytes
            if results and size > _POLL_BYTES:
                break
            results.append(self._done.popleft())
            self._done_bytes -= one_bytes - 1
        return {"success": True, "results": results, "count": len(results)}

    # recordings

    async def _record(self, session: Session, asked: Asked) -> Json:
        await self.permitted()
        self.recorder.begin(asked, self.agent_id)
        return {"success": True, "recording": self.recorder.recording, "state": self._state()}

    async def _record_stop(self, session: Session, asked: Asked) -> Json:
        await self.permitted()
        self.recorder.recording = False
        count = len(self.recorder)
        return {
            "success": True,
            "recording": False,
            "entry_count": count,
            "entries_recorded": count,
            "state": self._state(),
        }

    async def _record_status(self, session: Session, asked: Asked) -> Json:
        await self.permitted()
        reply: Json = {
            "success": True,
            "state": self._state(),
            "recording_active": self.recorder.recording,
            "entry_count": len(self.recorder),
            "last_sequence_id": self.recorder.last_sequence_id,
        }
        return reply | ({"recording": self.recorder.exported()} if asked.flag("export") else {})

    def _state(self) -> str:
        return "RECORDING" if self.recorder.recording else "IDLE"

    async def _replay(self, session: Session, asked: Asked) -> Json:
        await self.permitted()
        self.recorder.load(asked)
        task = self.start(self._again(), "replay")
        self._closers.append(task.cancel)
        task.add_done_callback(lambda ended: self._closers.remove(ended.cancel))
        return {"success": True, **self.recorder.status()}

    async def _again(self) -> None:
        recorder = self.recorder
        try:
            for number, entry in enumerate(recorder.replay):
                if number % FRAMES_A_TURN == 0:
                    await asyncio.sleep(0)  # not every call waits for something
                if recording.again(entry):
                    reply = await self._answer(entry.opcode, entry.payload.encode(errors="replace"))
                    if b'"success":false' in reply[:40] and not recorder.replay_error:
                        recorder.replay_error = str(json.loads(reply).get("error", ""))[:1000]
                    recorder.replayed += 1
                else:
                    recorder.skipped += 1
                recorder.at += 1
            recorder.replay_state = "ERROR" if recorder.replay_error else "COMPLETED"
        finally:
            if recorder.replay_state == "RUNNING":
                recorder.replay_state = "ERROR"

    async def _replay_status(self, session: Session, asked: Asked) -> Json:
        await self.permitted()
        return {"success": True, **self.recorder.status()}


def _thought(payload: bytes) -> Asked:
    """An object with a prompt; anything else is the prompt itself, as the first version had it."""
    try:
        asked = Asked.read(payload)
        if "prompt" in asked.fields:
            return asked
    except errors.BadRequest:
        pass
    return Asked({"prompt": payload.decode(errors="replace")})


def _unknown(opcode: int) -> errors.AgentkError:
    for opcodes, why in _GROUPS.items():
        if opcode in opcodes:
            return errors.MethodNotAllowed(f"opcode 0x{opcode:02X}: {why}")
    return errors.MethodNotAllowed(f"unknown opcode 0x{opcode:02X}")
