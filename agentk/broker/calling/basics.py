"""hello, task, noop and log: what a guest needs before it asks for anything."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agentk.broker.dialects import jsonrpc
from agentk.broker.methods import Context, Done, Method, Params, parser, recording
from agentk.sdk import wire

PROTOCOL = 1

_log = logging.getLogger(__name__)

# (box id, line without its end): returns once it is on its way to the agent's log. Raises AgentkError.
Write = Callable[[str, bytes], Awaitable[None]]


def methods(
    *,
    version: str,
    names: Callable[[], list[str]],
    write: Write,
    agent: Callable[[str], Mapping[str, Any] | None],
) -> dict[str, Method]:
    """`names`: every call of this gate; `agent`: the Agent of a uid."""
    calls = _Calls(version, names, write, agent)
    handlers = {"hello": calls.hello, "task": calls.task, "noop": calls.noop, "log": calls.log}
    return {name: Method(name, recording(name), parser(name), handle) for name, handle in handlers.items()}


class _Calls:
    def __init__(
        self,
        version: str,
        names: Callable[[], list[str]],
        write: Write,
        agent: Callable[[str], Mapping[str, Any] | None],
    ) -> None:
        self._version, self._names, self._write, self._agent = version, names, write, agent

    async def hello(self, context: Context, params: Params) -> Done:
        guest, client = context.call.guest, params["client"]
        if client:
            _log.debug(
                "%s/%s, attempt %d: client %s", guest.namespace, guest.name, guest.attempt, _quoted(client)
            )
        told = {
            "version": self._version,
            "protocol": PROTOCOL,
            "namespace": guest.namespace,
            "agent": guest.name,
            "uid": guest.uid,
            "attempt": guest.attempt,
            "runId": guest.run_id,
            "methods": sorted(self._names()),
            "limits": {"lineBytes": wire.LINE_BYTES, "callsInFlight": jsonrpc.CALLS},
        }
        return Done(told)

    async def task(self, context: Context, params: Params) -> Done:
        agent = self._agent(context.call.guest.uid)
        spec = agent["spec"] if agent else {}
        return Done({"given": True, "task": spec["task"]} if "task" in spec else {"given": False})

    async def noop(self, context: Context, params: Params) -> Done:
        return Done({"payload": params["payload"]} if "payload" in params else {})

    async def log(self, context: Context, params: Params) -> Done:
        line = written(params["level"], params["message"], params["fields"])
        await self._write(context.call.guest.box_id, line)
        return Done({})


def written(level: str, message: str, fields: Mapping[str, Any]) -> bytes:
    """One line: `level=info msg="it is done" count=3`. Names of fields and texts are quoted where they have to be."""
    told = [f"level={level}", f"msg={_quoted(message)}"]
    told += [f"{_name(name)}={_value(value)}" for name, value in fields.items()]
    return " ".join(told).encode()


def _value(value: Any) -> str:
    if isinstance(value, str) and _plain(value):
        return value
    return _quoted(value)


def _name(name: str) -> str:
    return name if _plain(name) else _quoted(name)


def _quoted(value: Any) -> str:
    """As JSON, on one line whatever it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)


def _plain(text: str) -> bool:
    """Whether it is read as one word, and as no number, true, false or null of JSON."""
    if not text or not text.isprintable() or any(letter in ' "=\\' for letter in text):
        return False
    return not (text[0] in "-[{0123456789" or text in ("true", "false", "null"))
