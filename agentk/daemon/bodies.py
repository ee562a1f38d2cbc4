"""Request bodies: read with a limit in bytes and in time, and decoded off the loop when they are large.

A body may be anything. What comes out is a plain JSON object of bounded depth without duplicate keys, or an error.
"""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from typing import Any, NoReturn

from starlette.requests import Request

from agentk.api import errors, kinds, manifest

MAX_BYTES = 8 * 1024 * 1024
_CHUNK_SECONDS = 60  # of silence in the middle of a body
_DEPTH = 64  # levels; as manifests, and far from Python's recursion limit
_THREAD_BYTES = 32 * 1024  # parsing more than this would be felt by other callers

Object = dict[str, Any]

JSON = frozenset({"application/json", "text/json", ""})
YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "application/vnd.yaml"})


async def read(request: Request, limit_bytes: int = MAX_BYTES) -> bytes:
    """The whole body. Raises TooLarge beyond the limit, Timeout when the sender stops in the middle."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit_bytes:
        raise too_large(limit_bytes)
    parts = bytearray()
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout(_CHUNK_SECONDS):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise errors.Timeout(f"no more of the body came within {_CHUNK_SECONDS} s") from None
        if chunk is None:
            return bytes(parts)
        if len(parts) + len(chunk) > limit_bytes:
            raise too_large(limit_bytes)
        parts += chunk


def too_large(limit_bytes: int) -> errors.TooLarge:
    return errors.TooLarge(
        f"the request body is larger than {limit_bytes} bytes",
        hint="split it, or put files into spec.source.path",
    )


def media_type(request: Request) -> str:
    """The Content-Type in lower case without its parameters; "" when there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def one(request: Request) -> Object:
    """The body as one JSON or YAML object. Raises UnsupportedMediaType, BadRequest, TooLarge."""
    kind = media_type(request)
    if kind not in JSON and kind not in YAML:
        raise unsupported(kind, sorted((JSON | YAML) - {""}))
    return await decode_object(await read(request), yaml=kind in YAML)


async def optional(request: Request) -> Object:
    """The body as a JSON object; {} for an empty one."""
    body = await read(request)
    return await decode_object(body, yaml=media_type(request) in YAML) if body.strip() else {}


def only(body: Object, known: Sequence[str]) -> None:
    """Raises BadRequest for a field of a request that means nothing."""
    for key in body:
        if key not in known:
            hint = kinds.did_you_mean(key, sorted(known), "fields")
            raise errors.BadRequest(f'unknown field "{key[:100]}"', hint=hint, field=key[:100])


async def decode_object(body: bytes, *, yaml: bool = False) -> Object:
    value = await decode(body, yaml=yaml)
    if not isinstance(value, dict):
        raise errors.BadRequest("the body must be one object", hint='like {"apiVersion": …, "kind": …}')
    return value


async def decode(body: bytes, *, yaml: bool = False) -> Any:
    """Any JSON value, or one YAML document. Raises BadRequest."""
    parse = from_yaml if yaml else from_json
    return await asyncio.to_thread(parse, body) if len(body) > _THREAD_BYTES else parse(body)


async def decode_json_or_yaml(body: bytes) -> Object:
    """An apply patch: named YAML, and JSON almost always, which is read a hundred times faster."""
    if body.lstrip()[:1] == b"{":
        with contextlib.suppress(_NotJson):
            return await decode_object(body)
    return await decode_object(body, yaml=True)


class _NotJson(errors.BadRequest):
    """Not even its grammar."""


def unsupported(kind: str, known: list[str]) -> errors.UnsupportedMediaType:
    return errors.UnsupportedMediaType(
        f'the body of the request is of an unsupported media type "{kind[:100]}"',
        hint=f"supported: {', '.join(known)}",
    )


def from_json(body: bytes) -> Any:
    """Strict JSON: UTF-8, no duplicate keys, no NaN, at most 64 levels."""
    if not body.strip():
        raise errors.BadRequest("the request needs a body")
    try:
        value = json.loads(body, object_pairs_hook=_unique, parse_constant=_no_constant)
        if body.count(b"[") + body.count(b"{") > _DEPTH:
            _check_depth(value)
        if b"\\ud" in body.lower():  # half of a surrogate pair is no text, and could not be written back
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise _NotJson(f"the body is not JSON: {error.msg}", line=error.lineno, column=error.colno) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # not UTF-8, lone surrogates, a number of thousands of digits
        raise errors.BadRequest(f"the body is not JSON: {error}"[:300]) from None
    return value


def from_yaml(body: bytes) -> Any:
    """One YAML document."""
    found = manifest.parse(body, "body")
    if len(found) != 1:
        raise errors.BadRequest(f"the body must be one object, not {len(found)}")
    return found[0].obj


def _unique(pairs: list[tuple[str, Any]]) -> Object:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise errors.BadRequest(f'duplicate field "{key[:100]}"', field=key[:100])
            seen.add(key)
    return made


def _no_constant(name: str) -> NoReturn:
    raise errors.BadRequest(f"{name} is not JSON")


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_DEPTH):
        if not level:
            return
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    if level:
        raise _too_deep()


def _too_deep() -> errors.BadRequest:
    return errors.BadRequest(f"the body has more than {_DEPTH} levels")
