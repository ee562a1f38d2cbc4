"""Watches over HTTP: one JSON event a line, as Kubernetes writes them."""

from collections.abc import AsyncGenerator
from typing import Any

from starlette.responses import Response

from agentk.api import errors
from agentk.daemon import answers, calls, streaming

# Kubernetes ends a watch after 30 to 60 minutes; nothing here is balanced between servers, so the longest will do.
_SECONDS = 3600
_BOOKMARK_SECONDS = 30.0
INITIAL_END = "k8s.io/initial-events-end"

Object = dict[str, Any]


async def watch(call: calls.Call) -> Response:
    """Events from `resourceVersion` on; without one (or from "0"), first what is there."""
    want = answers.wanted(call.request)
    since = call.query.get("resourceVersion", "")
    seconds = calls.whole(call, "timeoutSeconds") or _SECONDS
    bookmarks = calls.flag(call, "allowWatchBookmarks")
    initial = _initial(call, bookmarks)
    if initial:
        since = ""
    changes = call.store.watch(
        call.target.kind,
        call.target.namespace or None,
        since,
        labels=call.query.get("labelSelector", ""),
        fields=fields(call),
        bookmark_seconds=_BOOKMARK_SECONDS if bookmarks else None,
    )
    until = streaming.until(changes, call.services.ending, min(seconds, _SECONDS))
    return streaming.Stream(_lines(call, want, until, initial), "application/json")


def fields(call: calls.Call) -> str:
    """The field selector of a collection, or the one that means the single object of the path."""
    asked = call.query.get("fieldSelector", "")
    if not call.target.name:
        return asked
    named = f"metadata.name={call.target.name}"
    return f"{asked},{named}" if asked else named


async def _lines(
    call: calls.Call, want: answers.Wanted, changes: AsyncGenerator[Any, None], initial: bool
) -> AsyncGenerator[bytes, None]:
    first = True
    try:
        async for change in changes:
            if change.type == "BOOKMARK":
                ends = INITIAL_END in change.obj["metadata"].get("annotations", {})
                if not ends or initial:
                    yield _line("BOOKMARK", _bookmark(change.obj, want))
                continue
            yield _line(change.type, answers.shaped(call.target.kind, change.obj, want, columns=first))
            first = False
    except errors.AgentkError as error:  # 410 above all: too late for a status line
        yield _line("ERROR", error.to_status())
    finally:
        await changes.aclose()


def _initial(call: calls.Call, bookmarks: bool) -> bool:
    """Whether the caller asked for a list as events (`sendInitialEvents`)."""
    match = call.query.get("resourceVersionMatch", "")
    if not calls.flag(call, "sendInitialEvents"):
        if match:
            raise errors.Invalid(
                "resourceVersionMatch is forbidden for watch", hint="unless sendInitialEvents is given"
            )
        return False
    if match != "NotOlderThan" or not bookmarks:
        raise errors.Invalid(
            "sendInitialEvents needs resourceVersionMatch=NotOlderThan and allowWatchBookmarks=true"
        )
    return True


def _bookmark(obj: Object, want: answers.Wanted) -> Object:
    if want.shape != "Table":
        return obj
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{want.version}",
        "metadata": obj["metadata"],
        "columnDefinitions": None,
        "rows": [],
    }


def _line(type_: str, obj: Object) -> bytes:
    return answers.encoded({"type": type_, "object": obj}) + b"\n"
