"""tool.list, tool.describe and tool.call: what an agent is granted of tools, found by words and called by name.

What a tool says of itself and what it answers is its author's: bounded, passed on, and never followed. What it answers
at length is written by a program in the caller's own jail, never by the host.
"""

import asyncio
import functools
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentk.api import errors, inputs, quantities
from agentk.broker import crash, policy, previews
from agentk.broker.calling.execing import Execute
from agentk.broker.methods import ONE_CALL, Context, Done, Method, Params, parser, recording
from agentk.broker.tooling import kinds as words
from agentk.broker.tooling import promising
from agentk.broker.tooling.counting import Counts
from agentk.broker.tooling.shelf import Found, Shelf
from agentk.broker.words import Guest
from agentk.tools import results, searching
from agentk.tools.offers import Outcome

LIST_SECONDS = 30.0  # for what was never asked before; the others are listed without it
_KEEP_SECONDS = 60.0
_LONG_BYTES = 8 * 1024  # of an answer: more is cut in a thread
# Whole, or not there: nobody reads half of it.
_KEEP = 'umask 077 && mkdir -p .tools && cat >"$1.part" && mv -f "$1.part" "$1"'

Object = Mapping[str, Any]


def methods(*, shelf: Shelf, execute: Execute, counts: Counts) -> dict[str, Method]:
    calls = Calls(shelf, execute, counts)
    return {
        "tool.list": Method("tool.list", recording("tool.list"), parser("tool.list"), calls.list),
        "tool.describe": Method(
            "tool.describe", recording("tool.describe"), parser("tool.describe"), calls.describe
        ),
        "tool.call": Method(
            "tool.call",
            recording("tool.call"),
            parser("tool.call"),
            calls.call,
            facts=calls.about,
            repeatable=calls.repeatable,
            preview=calls.preview,
        ),
    }


def forms(*, shelf: Shelf) -> dict[str, Method]:
    """tool.list as MCP has it: whole descriptions, a page at a time."""

    async def whole(context: Context, params: Params) -> Done:
        found, refused = await shelf.granted(context.call.guest, LIST_SECONDS)
        begin = int(params["continue"] or 0)
        end = begin + _WHOLE_PAGE
        answer: dict[str, Any] = {"items": [described(one) for one in found[begin:end]]}
        if end < len(found):
            answer["continue"] = str(end)
        if refused:
            answer["unavailable"] = [{"tool": tool, "message": why} for tool, why in refused.items()]
        return Done(answer)

    return {"mcp.list": Method("tool.list", recording("tool.list"), parser("tool.list"), whole)}


_WHOLE_PAGE = 100  # tools with their schemas in one answer


@dataclass(frozen=True)
class Calls:
    shelf: Shelf
    execute: Execute
    counts: Counts

    async def list(self, context: Context, params: Params) -> Done:
        found, refused = await self.shelf.granted(context.call.guest, LIST_SECONDS)
        entries = [searching.Entry(one.name, words.name(one.tool), one.offered.description) for one in found]
        few = len(entries) <= searching.FEW or not params["search"]
        work = functools.partial(searching.found, entries, params["search"])
        ranked = work() if few else await asyncio.to_thread(work)
        begin = int(params["continue"] or 0)
        page = ranked[begin : begin + params["limit"]]
        items = [
            {"name": one.name, "tool": one.tool, "description": searching.line(one.description)}
            for one in page
        ]
        answer: dict[str, Any] = {"items": items}
        if begin + len(page) < len(ranked):
            answer["continue"] = str(begin + len(page))
        if refused:
            answer["unavailable"] = [{"tool": tool, "message": why} for tool, why in refused.items()]
        return Done(answer)

    async def describe(self, context: Context, params: Params) -> Done:
        return Done(described(await self.shelf.found(context.call.guest, params["name"])))

    def about(self, guest: Guest, params: Params) -> policy.Facts:
        """Raises NotFound for what is not granted at all."""
        tool, grant, inner = self.shelf.split(guest, params["name"])
        if not inner:
            raise errors.NotFound(
                f'what Tool "{words.name(tool)}" offers is not known yet',
                hint="tool.list asks it; then call one by its whole name",
                field="params.name",
            )
        given = params["arguments"]
        judged = grant.judged(inner, given)
        return policy.Facts(tool=f"{words.name(tool)}/{inner}", arguments=given, granted=judged)

    def repeatable(self, guest: Guest, params: Params) -> bool:
        return may_repeat(self.shelf.split(guest, params["name"])[0])

    async def preview(self, guest: Guest, params: Params) -> previews.Preview:
        """What somebody approves is this tool: what the Tool says by now counts, and may not have changed."""
        tool = self.shelf.split(guest, params["name"])[0]
        made_of = await self.shelf.kind(tool).fingerprint(tool)  # what it is made of besides
        said = json.dumps([tool["spec"], made_of], sort_keys=True).encode()
        digest = hashlib.sha256(said).hexdigest()
        return previews.Preview((previews.File(f"tool/{words.name(tool)}", digest, len(said)),))

    async def call(self, context: Context, params: Params) -> Done:
        guest, given = context.call.guest, params["arguments"]
        found = await self.shelf.found(guest, params["name"])
        if context.facts.tool != f"{words.name(found.tool)}/{found.offered.name}":
            raise errors.Conflict(  # the only tool that it offered has another name by now
                f'what Tool "{words.name(found.tool)}" offers has changed',
                hint="tool.list; then call one by its whole name",
            )
        await check(found, given)
        await self.counts.count(guest, words.name(found.tool))
        context.used = ONE_CALL
        calling = words.Calling(
            offered=found.offered,
            arguments=given,
            guest=guest,
            effect=context.effect,
            key=context.effect,
            seconds=seconds(found.tool, params.get("timeoutSeconds")),
            progress=_telling(context) if params["stream"] else None,
        )
        outcome = await called(self.shelf.kind(found.tool), found.tool, calling)
        crash.crashpoint("tool.ran")
        if outcome.is_error:
            context.meta["failed"] = 1  # the call was made; what it was for was not done
        seen = await context.seen(results.answer(outcome))
        outcome = replace(outcome, content=tuple(seen["content"]), structured=seen.get("structured"))
        return Done(await self._answer(context, found, outcome))

    async def _answer(self, context: Context, found: Found, outcome: Outcome) -> dict[str, Any]:
        most = int(found.tool["spec"].get("resultBytes", 32768))
        if found.grant.result_bytes is not None:
            most = min(most, found.grant.result_bytes)
        name = context.effect or secrets.token_hex(16)
        work = functools.partial(results.limited, outcome, most, name)
        told, file = await asyncio.to_thread(work) if _is_long(outcome) else work()
        if file is not None:
            why = await self._keep(context.call.guest, file)
            crash.crashpoint("tool.kept")
            if why:
                del told["file"]
                text = told["content"][0]
                text["text"] = text["text"].replace(
                    f"in the file {file.path} of the workspace", f"not kept: {why}"
                )
        return told

    async def _keep(self, guest: Guest, file: results.File) -> str:
        """Why it could not be written; "" when it was."""
        argv = ["sh", "-c", _KEEP, "sh", file.path]
        try:
            ran = await self.execute(
                guest.box_id, argv, _KEEP_SECONDS, stdin=file.data, cwd="/workspace", output_bytes=1024
            )
        except errors.AgentkError as error:
            return error.message
        if ran.exit.code == 0 and not ran.timed_out:
            return ""
        said = ran.stderr.decode("utf-8", "replace").strip().splitlines()
        return said[-1][:200] if said else "the workspace does not take it"


async def called(kind: words.Kind, tool: Object, calling: words.Calling) -> Outcome:
    """What the tool answers, if that is as it promised. Asked once more when nobody knows how it went and it may be
    asked again."""
    return await promising.kept(calling.offered, await _answered(kind, tool, calling))


async def _answered(kind: words.Kind, tool: Object, calling: words.Calling) -> Outcome:
    try:
        return await _once(kind, tool, calling)
    except errors.OutcomeUnknown:
        if not may_repeat(tool):
            raise
    return await _once(kind, tool, replace(calling, effect=f"{calling.effect}-again"))


async def _once(kind: words.Kind, tool: Object, calling: words.Calling) -> Outcome:
    try:
        async with asyncio.timeout(calling.seconds + _MORE_SECONDS):
            return await kind.call(tool, calling)
    except TimeoutError:
        told = f'Tool "{words.name(tool)}" did not answer within {calling.seconds:g} s'
        if may_repeat(tool):
            raise errors.Timeout(told) from None
        raise errors.OutcomeUnknown(
            f"{told}: what it has done by then is not known",
            hint="look whether it did it; then make the call again with a new key",
        ) from None


_MORE_SECONDS = 180.0  # beyond the call's own time: a box of its own may have to be made first


def may_repeat(tool: Object) -> bool:
    return str(words.spec(tool).get("idempotent", "false")) != "false"


async def check(found: Found, given: Object) -> None:
    """Raises BadRequest for arguments that do not fit its schema."""
    work = functools.partial(inputs.check, found.offered.input_schema, given)
    if inputs.is_quick(found.offered.input_schema, given):
        work()
    else:
        await asyncio.to_thread(work)


def seconds(tool: Object, asked: Any) -> float:
    own = quantities.parse_duration(str(tool["spec"].get("timeout", "60s")))
    return own if asked is None else min(own, float(asked))


def described(found: Found) -> dict[str, Any]:
    one = found.offered
    told: dict[str, Any] = {
        "name": found.name,
        "tool": words.name(found.tool),
        "description": one.description,
        "inputSchema": dict(one.input_schema),
        "digest": one.digest,
    }
    if one.output_schema is not None:
        told["outputSchema"] = dict(one.output_schema)
    if one.annotations:
        told["annotations"] = dict(one.annotations)
    return told


def _telling(context: Context) -> words.Progress:
    async def tell(done: float | None, total: float | None, text: str) -> None:
        about = {"progress": done, "total": total, "message": text or None}
        await context.emit({key: value for key, value in about.items() if value is not None})

    return tell


def _size(value: Any) -> int:
    """About as many bytes as it is JSON; no more than is needed to know that it is much."""
    waiting, size = [value], 0
    while waiting and size <= _LONG_BYTES:
        one = waiting.pop()
        size += len(one) if isinstance(one, str) else 2
        if isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one
    return size


def _is_long(outcome: Outcome) -> bool:
    return _size([*outcome.content, outcome.structured]) > _LONG_BYTES
