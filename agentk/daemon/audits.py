"""The journal for people: an agent's calls, the tree they make, and the proof that nobody changed them."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from agentk.api import errors
from agentk.broker.budgets_limits import format_usd
from agentk.daemon import answers, calls, desk
from agentk.store import journal_calls as telling
from agentk.store import journal_verifying as verifying
from agentk.store.journal_words import Record

Object = dict[str, Any]

_LIMIT, _LIMIT_MAX = 100, 1000
_SMALL = 64 * 1024  # a body of which a few words are shown is not worth reading when it is larger
_ABOUT = 120
_WHY = 300
_TELLING = ("url", "to", "name", "tool", "queue", "key", "type", "language", "id", "model", "path")
_verifying = asyncio.Semaphore(1)  # it reads the whole journal: one at a time


async def audit(call: calls.Call) -> Response:
    """Calls of an agent, newest first: `since`, `limit`, `continue`, `run`, `unknown`, `bodies`, `uid`."""
    room, uid = desk.of(call), await desk.uid(call)
    limit = min(calls.whole(call, "limit") or _LIMIT, _LIMIT_MAX)
    since = calls.moment(call, "since")
    bodies, unknown = calls.flag(call, "bodies"), calls.flag(call, "unknown")
    run, cont = call.query.get("run", ""), call.query.get("continue", "")

    def read(conn: Any) -> bytes:
        if unknown:
            page = telling.unknown(conn, uid, limit, bodies)
        else:
            page = telling.page(
                conn,
                uid,
                run=run,
                since=since.timestamp() if since else 0.0,
                limit=limit,
                cont=cont,
                with_bodies=bodies,
            )
        items = [
            as_json(one, bodies) | {"about": about(conn, one), "why": why(conn, one)} for one in page.calls
        ]
        metadata = {"continue": page.cont} if page.cont else {}
        answer = {"kind": "CallList", "metadata": metadata, "items": items}
        return answers.encoded(answer)  # here and not on the loop: it may be large

    return Response(await room.journal.read_apart(read), media_type="application/json")


async def head(room: desk.Desk) -> Object:
    """The sealed and anchored head."""
    told = await room.journal.head()
    if told is None:
        raise errors.Unavailable("the journal's anchor cannot be read", hint="agentk audit verify")
    return told


async def verify(room: desk.Desk, kept: Mapping[str, Any] | None) -> Object:
    """Whether the journal is what was written; against a head that was exported earlier, too."""
    async with _verifying:
        verdict = await room.journal.verify(kept)
    return {
        "ok": verdict.ok,
        "records": verdict.records,
        "anchoredThrough": verdict.anchored_through,
        "bad": _bad(verdict.bad),
        "gaps": [_bad(gap) for gap in verdict.gaps],
        "notes": list(verdict.notes),
    }


async def erase(room: desk.Desk, what: str, reason: str) -> Object:
    """Erase what was asked and answered in one call, or one body by its digest, for good."""
    return {"what": what, "erased": await room.journal.erase(what, reason)}


def as_json(one: telling.Called, bodies: bool) -> Object:
    """A call as the API tells it: amounts in whole numbers, money as decimal text, times in RFC 3339."""
    begun, last = one.begun, one.last
    told: Object = {
        "record": begun.id,
        "effect": begun.effect,
        "parent": begun.parent,
        "time": moment(begun.at),
        "durationSeconds": round(last.at - begun.at, 6) if one.ended else None,
        "namespace": begun.namespace,
        "agent": begun.agent,
        "uid": begun.uid,
        "run": begun.run,
        "attempt": begun.attempt,
        "method": begun.method,
        "status": status(one),
        "key": begun.key,
        "trace": begun.trace,
        "reserved": amounts(begun.amounts) if begun.kind == "intent" else {},
        "used": amounts(last.amounts) if one.ended or begun.kind != "intent" else {},
        "meta": one.meta,
        "askedDigest": begun.asked_digest,
        "answerDigest": last.answer_digest,
        "hash": begun.hash,
        "result": {"record": last.id, "time": moment(last.at), "hash": last.hash} if one.ended else None,
    }
    if bodies:
        told |= {"asked": _body(begun, "asked"), "answer": _body(last, "answer")}
    return told


def amounts(given: Mapping[str, int]) -> Object:
    told: Object = {key: value for key, value in given.items() if key != "cost_micro_usd"}
    if "cost_micro_usd" in given:
        told["costUsd"] = format_usd(given["cost_micro_usd"])
    return told


def about(conn: Any, one: telling.Called) -> str:
    """What a call was about, in a few words: a model, a language, a host, who a message went to."""
    if one.begun.method in ("think", "embed"):
        return str(one.meta.get("model", ""))[:_ABOUT]
    if one.begun.method.startswith("approval."):
        return f"{one.meta.get('approval', '')} by {one.meta.get('by', '')}"[:_ABOUT]
    try:
        asked = json.loads(telling.small_body(conn, one.begun, "asked", _SMALL) or b"null")
    except ValueError:
        return ""
    return _about(asked)[:_ABOUT] if isinstance(asked, dict) else ""


def status(one: telling.Called) -> str:
    """`failed` is a call that was made, of something that then said that it failed."""
    return "failed" if one.status == "ok" and one.meta.get("failed") else one.status


def why(conn: Any, one: telling.Called) -> str:
    """What a guest was told of a call that did not end well."""
    if status(one) == "ok":
        return ""
    try:
        told = json.loads(telling.small_body(conn, one.last, "answer", _SMALL) or b"null")
    except ValueError:
        return ""
    if isinstance(told, dict) and isinstance(told.get("error"), dict):
        told = told["error"]  # of an answer that was cut short
    if not isinstance(told, dict):
        return ""
    if status(one) == "failed":
        return _failure(told)[:_WHY]
    return str(told.get("message") or told.get("reason") or "")[:_WHY]


def _failure(told: Mapping[str, Any]) -> str:
    """Of a program how it ended; of a tool the first that it says."""
    if "exitCode" in told:
        return ", ".join(str(one) for one in (told.get("reason"), f"exit code {told['exitCode']}") if one)
    texts = [one["text"] for one in told.get("content") or () if isinstance(one, dict) and one.get("text")]
    return " ".join(" ".join(map(str, texts)).split()[:60])


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _about(asked: Mapping[str, Any]) -> str:
    if isinstance(asked.get("argv"), list):
        return " ".join(map(str, asked["argv"][:8]))
    if isinstance(asked.get("code"), str):
        return str(asked.get("language") or "python")
    if isinstance(asked.get("code"), int):  # of exit
        return str(asked.get("reason") or f"code {asked['code']}")
    found = next((str(asked[key]) for key in _TELLING if asked.get(key)), "")
    return f"{asked['method']} {found}" if "url" in asked and "method" in asked else found


def _body(record: Record, which: str) -> Any:
    """As JSON where it is; null when there was none, or it was erased or let go of (its digest is still told)."""
    data: bytes | None = record.asked if which == "asked" else record.answer
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")


def _bad(bad: verifying.Bad | None) -> Object | None:
    return None if bad is None else {"record": bad.record, "reason": bad.reason}
