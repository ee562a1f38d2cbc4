"""Answers in the shape the caller accepts: JSON objects, a drawn `Table`, or metadata only."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from agentk.api import errors, kinds, tables
from agentk.daemon import calls

Object = dict[str, Any]
Shape = Literal["object", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"]

# Encoding one object takes some 10 µs: a batch of them is not felt by others on the loop.
_BATCH = 100
_INCLUDE = ("None", "Metadata", "Object")


@dataclass(frozen=True)
class Wanted:
    """What the Accept header (and `includeObject`) asks for."""

    shape: Shape = "object"
    version: str = "v1"  # of meta.k8s.io
    include: str = "Metadata"  # how much of each object a Table carries


def wanted(request: Request) -> Wanted:
    """The first acceptable entry of Accept that we can serve. Raises NotAcceptable with what is served."""
    accept = request.headers.get("accept", "") or "*/*"
    include = request.query_params.get("includeObject") or "Metadata"
    if include not in _INCLUDE:
        raise errors.BadRequest(
            f'includeObject: "{include[:50]}" is not supported', hint=f"use {', '.join(_INCLUDE)}"
        )
    for entry in accept[:8192].split(","):
        media, *settings = [part.strip() for part in entry.split(";")]
        given = dict(setting.partition("=")[::2] for setting in settings)
        if media.lower() not in ("application/json", "application/*", "*/*"):
            continue
        shape, version = given.get("as", ""), given.get("v", "v1")
        if not shape:
            return Wanted()
        if given.get("g") == "meta.k8s.io" and version in ("v1", "v1beta1"):
            if shape == "Table":
                return Wanted("Table", version, include)
            if shape == "PartialObjectMetadata":
                return Wanted("PartialObjectMetadata", version)
            if shape == "PartialObjectMetadataList":
                return Wanted("PartialObjectMetadataList", version)
    raise errors.NotAcceptable(
        f'nothing of "{accept[:200]}" can be served', hint="accept application/json, also with as=Table"
    )


def plain(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Any JSON document."""
    return Response(encoded(content), status, headers, media_type="application/json")


def failure(error: errors.AgentkError) -> Response:
    """A `Status`, with the headers its code calls for."""
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    return plain(error.to_status(), error.status, headers)


def success(kind: kinds.Kind, obj: Object) -> Response:
    """The `Status` of a deletion that is done."""
    metadata = obj["metadata"]
    details = {"name": metadata["name"], "kind": kind.plural, "uid": metadata["uid"]}
    if kind.group:
        details["group"] = kind.group
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return plain(status)


def one(call: calls.Call, obj: Object, status: int = 200, warnings: Sequence[str] = ()) -> Response:
    """One object, drawn as asked."""
    made = shaped(call.target.kind, obj, wanted(call.request))
    response = plain(made, status)
    for text in warnings:
        response.headers.append("Warning", f"299 agentk {json.dumps(_one_line(text))}")
    return response


def shaped(kind: kinds.Kind, obj: Object, want: Wanted, *, columns: bool = True) -> Object:
    """One object as asked. `columns`: whether a Table repeats what its columns are."""
    if want.shape == "Table":
        made = table(kind, [obj], want, {"resourceVersion": obj["metadata"].get("resourceVersion", "")})
        return made if columns else {**made, "columnDefinitions": None}
    if want.shape == "object":
        return obj
    return partial(obj, want.version)


def partial(obj: Object, version: str = "v1") -> Object:
    return tables.partial(obj) | {"apiVersion": f"meta.k8s.io/{version}"}


def table(kind: kinds.Kind, items: Sequence[Object], want: Wanted, metadata: Object) -> Object:
    made = tables.table(kind, items, calls.now())
    made["apiVersion"], made["metadata"] = f"meta.k8s.io/{want.version}", metadata
    for row, item in zip(made["rows"], items, strict=True):
        if want.include == "Object":
            row["object"] = item
        elif want.include == "Metadata":
            row["object"] = partial(item, want.version)
        else:
            row.pop("object", None)
    return made


def many(call: calls.Call, items: Sequence[Object], metadata: Object) -> Response:
    """A list, drawn as asked. A long one is encoded piece by piece, so that others get their turn."""
    kind, want = call.target.kind, wanted(call.request)
    head: Object = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata}
    key = "items"
    draw: Callable[[Sequence[Object]], list[Object]] = list
    if want.shape == "Table":
        head, key = table(kind, [], want, metadata), "rows"
        del head["rows"]
        draw = lambda batch: table(kind, batch, want, {})["rows"]  # noqa: E731
    elif want.shape != "object":
        head |= {"kind": "PartialObjectMetadataList", "apiVersion": f"meta.k8s.io/{want.version}"}
        draw = lambda batch: [partial(item, want.version) for item in batch]  # noqa: E731
    opening = encoded(head)[:-1] + f',"{key}":['.encode()
    if len(items) <= _BATCH:
        return Response(opening + encoded(draw(items))[1:] + b"}", media_type="application/json")
    return StreamingResponse(_pieces(opening, items, draw), media_type="application/json")


async def _pieces(
    opening: bytes, items: Sequence[Object], draw: Callable[[Sequence[Object]], list[Object]]
) -> AsyncIterator[bytes]:
    for at in range(0, len(items), _BATCH):
        yield (b"," if at else opening) + encoded(draw(items[at : at + _BATCH]))[1:-1]
        await asyncio.sleep(0)
    yield b"]}"


def encoded(content: Any) -> bytes:
    """Compact UTF-8 JSON."""
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, quoted from a request
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def _one_line(text: str) -> str:
    """Headers are latin-1 and one line long."""
    return " ".join(text.split()).encode("ascii", "replace").decode()[:500]
