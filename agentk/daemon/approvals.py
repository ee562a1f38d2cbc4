"""Approvals for people: who answers is who the kernel says is calling, never what the request says."""

import pwd
from typing import Any, Literal

from starlette.responses import Response

from agentk.api import errors, kinds
from agentk.broker.approving_words import Answer
from agentk.daemon import answers, bodies, calls, desk, sockets

_FIELDS = ("reason", "remember", "match")
_MATCH_MAX = 10  # arguments
_GLOB_MAX = 512  # letters
_REASON_MAX = 1024
_TEXT_MAX = 8192


async def approve(call: calls.Call) -> Response:
    """Let the call through, once, or with `remember` whenever it comes again. Answers with the object."""
    return await _answered(call, "Approved")


async def deny(call: calls.Call) -> Response:
    """Refuse the call; with `remember` whenever it comes again. Answers with the object."""
    return await _answered(call, "Denied")


async def answer(call: calls.Call) -> Response:
    """Answer a question. Answers with the object."""
    body = await bodies.optional(call.request)
    bodies.only(body, ("text",))
    text = body.get("text")
    if not isinstance(text, str) or len(text) > _TEXT_MAX or "\0" in text:
        raise errors.BadRequest(f"text must be text of at most {_TEXT_MAX} letters", field="text")
    return await _given(call, "Approved", text=text)


async def _answered(call: calls.Call, phase: Literal["Approved", "Denied"]) -> Response:
    body = await bodies.optional(call.request)
    bodies.only(body, _FIELDS)
    reason, remember = body.get("reason", ""), body.get("remember", False)
    if not isinstance(reason, str) or len(reason) > _REASON_MAX or "\0" in reason:
        raise errors.BadRequest(f"reason must be text of at most {_REASON_MAX} letters", field="reason")
    if not isinstance(remember, bool):
        raise errors.BadRequest("remember must be true or false", field="remember")
    matching = _matching(body.get("match") or {})
    if matching and not remember:
        raise errors.BadRequest(
            "match is of an answer that is remembered", field="match", hint="remember: true"
        )
    return await _given(call, phase, reason=reason, remember=remember, matching=matching)


def _matching(given: Any) -> tuple[tuple[str, str], ...]:
    """Globs by the names of arguments. Raises BadRequest."""
    if not isinstance(given, dict) or len(given) > _MATCH_MAX:
        raise errors.BadRequest(f"match must have at most {_MATCH_MAX} globs by name", field="match")
    for glob in given.values():
        if not isinstance(glob, str) or not 0 < len(glob) <= _GLOB_MAX or "\0" in glob:
            raise errors.BadRequest(f"a glob is text of 1 to {_GLOB_MAX} letters", field="match")
    return tuple(sorted(given.items()))


async def _given(call: calls.Call, phase: Literal["Approved", "Denied"], **said: Any) -> Response:
    room = desk.of(call)
    if calls.dry_run(call):
        raise errors.BadRequest("an answer cannot be tried", field="dryRun")
    peer = call.request.scope.get("state", {}).get("peer")
    if not isinstance(peer, sockets.Peer):
        raise errors.Forbidden("nobody knows who answers", hint="answer over the daemon's unix socket")
    given = Answer(phase, _user(peer.uid), peer.uid, **said)
    made = await room.answers.give(call.target.namespace, call.target.name, given)
    return answers.one(call, made)


def writable(call: calls.Call) -> None:
    """Raises MethodNotAllowed for what only agentk writes."""
    kind = call.target.kind
    if "update" in kind.verbs:
        return
    hint = "agentk approve, deny or answer NAME" if kind is kinds.APPROVAL else "agentk explain tells"
    raise errors.MethodNotAllowed(
        f"{kind.plural} are made by agentk alone, and nobody else writes one", hint=hint
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
