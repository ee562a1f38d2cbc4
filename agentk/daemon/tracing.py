"""The tree of a run: each call below the one it was part of, and what an agent spawned below its spawning.

Bounded in calls and depth; what was left out is said.
"""

import json
from typing import Any

from starlette.responses import Response

from agentk.broker.managing import managed as managing
from agentk.daemon import answers, audits, calls, desk
from agentk.store import journal_calls as telling

Object = dict[str, Any]

_CALLS = 1000  # of one run, the newest
_CALLS_IN_ALL = 5000
_RUNS = 200  # in one tree
_DEPTH = 16
_ANSWER_BYTES = 4096  # of a spawning: a name and a uid


async def trace(call: calls.Call) -> Response:
    """One run of an agent, its last one unless `run` names another."""
    room, uid = desk.of(call), await desk.uid(call)
    asked = call.query.get("run", "")

    def read(conn: Any) -> bytes:
        found = telling.runs(conn, uid)
        run = asked or (found[0] if found else "")
        tree = _Tree(conn)
        told = tree.run(uid, run, _DEPTH) if run else None
        root = told or {"uid": uid, "run": run, "namespace": call.target.namespace, "agent": call.target.name}
        answer = {"kind": "Trace", "truncated": tree.truncated, "runs": found[:100], "root": root}
        return answers.encoded(answer)  # here and not on the loop: it may be large

    return Response(await room.journal.read_apart(read), media_type="application/json")


class _Tree:
    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self._runs, self._left = 0, _CALLS_IN_ALL
        self.truncated = False

    def run(self, uid: str, run: str, depth: int) -> Object | None:
        """A run with its calls; None when it has none, or there is no room left."""
        if depth <= 0 or self._runs >= _RUNS or self._left <= 0:
            self.truncated = True
            return None
        self._runs += 1
        page = telling.page(self._conn, uid, run=run, limit=min(_CALLS, self._left), with_bodies=False)
        self._left -= len(page.calls)
        if not page.calls:
            return None
        self.truncated = self.truncated or bool(page.cont)
        found = list(reversed(page.calls))
        spans = [self._span(one, depth) for one in found]
        first, last = found[0].begun, max(found, key=lambda one: one.last.at).last
        return {
            "uid": uid,
            "run": run,
            "namespace": first.namespace,
            "agent": first.agent,
            "start": audits.moment(first.at),
            "durationSeconds": round(last.at - first.at, 6),
            "used": audits.amounts(_sum(found)),
            "children": _nested(spans),
        }

    def _span(self, one: telling.Called, depth: int) -> Object:
        told = {
            key: value
            for key, value in audits.as_json(one, bodies=False).items()
            if key in ("effect", "parent", "record", "method", "status", "attempt", "durationSeconds", "used")
        }
        told |= {"about": audits.about(self._conn, one), "why": audits.why(self._conn, one)}
        told |= {key: one.meta[key] for key in ("approval", "approvedBy") if key in one.meta}
        if managing.SENT in one.meta:
            told["context"] = managing.told_of(one.meta)
        told |= {"start": audits.moment(one.begun.at), "children": []}
        if one.begun.method == "agent.spawn" and one.status == "ok":
            told["children"] = self._spawned(one, depth)
        return told

    def _spawned(self, one: telling.Called, depth: int) -> list[Object]:
        try:
            told = json.loads(telling.small_body(self._conn, one.last, "answer", _ANSWER_BYTES) or b"null")
            uid = told["uid"]
        except (ValueError, TypeError, LookupError):
            return []
        runs = reversed(telling.runs(self._conn, str(uid)))
        return [made for run in runs if (made := self.run(str(uid), run, depth - 1))]


def _nested(spans: list[Object]) -> list[Object]:
    """Each below its parent, when that is there and came before it."""
    by_effect: dict[str, Object] = {}
    top: list[Object] = []
    for span in spans:
        above = by_effect.get(span["parent"])
        (top if above is None else above["children"]).append(span)
        by_effect[span["effect"]] = span
    return top


def _sum(found: list[telling.Called]) -> dict[str, int]:
    total: dict[str, int] = {"tokens": 0, "calls": 0, "cost_micro_usd": 0}
    for one in found:
        used = one.last.amounts if one.ended or one.begun.kind != "intent" else {}
        for key in total:
            total[key] += used.get(key, 0)
    return total
