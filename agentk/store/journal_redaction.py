"""Takes secrets out of what is about to be written, in every form that they usually travel in.

What cannot be seen this way: secrets under 8 bytes, encrypted or compressed data, and a secret cut in pieces. The
first defence is that a guest never holds one; this is the second.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

MARK = b"[redacted]"
SHORTEST_BYTES = 8  # anything shorter would tear holes into ordinary text

_HEADERS = (
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "cookie",
    "set-cookie",
)
# As quick a look as possible at what has none of them, nearly always.
_HINTS = (b"authorization", b"api-key", b"cookie")
_NAMES = "|".join(re.escape(name) for name in _HEADERS).encode()


@dataclass(frozen=True)
class _Depth:
    """How headers are written in JSON, or in JSON that is itself a string in JSON, once or twice."""

    mark: bytes  # what takes the place of a value
    name: re.Pattern[
        bytes
    ]  # with its quotes; begins with a letter of its own, so it is looked for at the speed of C
    value: re.Pattern[
        bytes
    ]  # `: "value"` or `: ["value", …]` behind it. No part can be matched in two ways: linear
    paired: re.Pattern[bytes]  # `, "value"]` behind it


def _depth(slashes: int) -> _Depth:
    mark = b"\\" * slashes + b'"'
    quote = re.escape(mark)
    # In a string a value with a quote in it ends early.
    value = rb'[^"\\]*+(?:\\++[^"\\]++)*+' if slashes else rb'[^"\\]*+(?:\\.[^"\\]*+)*+'
    text = quote + value + quote
    several = rb"\[\s*" + text + rb"(?:\s*,\s*" + text + rb")*+"
    return _Depth(
        mark + MARK + mark,
        re.compile(quote + rb"(?:" + _NAMES + rb")" + quote),
        re.compile(rb"(?s)\s*:\s*(?:(?P<array>" + several + rb")|(?P<text>" + text + rb"))"),
        re.compile(rb"(?s)\s*,\s*(?P<text>" + text + rb")(?=\s*\])"),
    )


_DEPTHS = tuple(_depth(slashes) for slashes in (0, 1, 3))
_BLANK = b" \t\n\r\f\v"
_NAME_BYTES = 64  # no name is longer, with its quotes
_WINDOW_BYTES = 256 * 1024  # looked through in one go: until it ends nothing else runs in this process


class Redactor:
    """Built once from the values of secrets; calling it replaces what it finds."""

    def __init__(self, secrets: Iterable[bytes | str]) -> None:
        found: set[bytes] = set()
        for secret in secrets:
            value = secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret
            for one in {value, value.strip()}:
                if len(one) >= SHORTEST_BYTES:
                    found |= forms(one)
        # Longest first: a form that contains another goes as a whole.
        self._needles = tuple(sorted(found, key=lambda form: (-len(form), form)))

    def __call__(self, data: bytes) -> bytes:
        for needle in self._needles:
            if needle in data:
                data = data.replace(needle, MARK)
        return without_headers(data)


def forms(secret: bytes) -> set[bytes]:
    """The secret itself, base64 wherever it begins, URL-encoded, and within JSON strings (twice, too)."""
    found = {secret}
    for shift in range(3):
        # Only the characters made of the secret's own bits: the ones at the edges mix with its neighbours.
        first, last = -(-shift * 8 // 6), (shift + len(secret)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(bytes(shift) + secret)[first:last])
    for safe in ("", "/", "!'()*", "!'()*/:@&=+$,;"):
        found |= _hex_cases(quote(secret, safe=safe))
    found |= _hex_cases(quote_plus(secret))
    text = secret.decode("utf-8", "replace")
    if "\ufffd" not in text:
        for ascii_only in (True, False):
            once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
            for form in (once, once.replace("/", "\\/"), json.dumps(once, ensure_ascii=ascii_only)[1:-1]):
                found |= {form.encode(), re.sub(r"\\u[0-9a-f]{4}", _upper, form).encode()}
    return found


def without_headers(data: bytes) -> bytes:
    """JSON without the values of headers that carry credentials."""
    lowered = data.lower()
    if not any(hint in lowered for hint in _HINTS):
        return data
    for depth in _DEPTHS:
        data = _without(depth, data, lowered)
        lowered = data.lower()
    return data


def _without(depth: _Depth, data: bytes, lowered: bytes) -> bytes:
    kept: list[bytes] = []
    done = 0
    for name in _names(depth.name, lowered):
        if name.start() < done:
            continue  # part of a value
        value = depth.value.match(lowered, name.end())
        opens = b"["
        if value is None:
            value, opens = depth.paired.match(lowered, name.end()), b""
            if value is None or not _opened(lowered, name.start(), done):
                continue
        found = "text" if value["text"] is not None else "array"
        kept += (data[done : value.start(found)], (opens if found == "array" else b"") + depth.mark)
        done = value.end(found)
    return b"".join((*kept, data[done:])) if kept else data


def _names(pattern: re.Pattern[bytes], data: bytes) -> Iterator[re.Match[bytes]]:
    """Piece by piece: a search through megabytes would hold up everybody else until its end."""
    at = 0
    while at < len(data):
        found = pattern.search(data, at, at + _WINDOW_BYTES + _NAME_BYTES)
        if found:
            yield found
        at = found.start() + 1 if found else at + _WINDOW_BYTES


def _opened(data: bytes, at: int, least: int) -> bool:
    """Whether a list begins right before."""
    while at > least and data[at - 1] in _BLANK:
        at -= 1
    return at > least and data[at - 1 : at] == b"["


def _hex_cases(form: str) -> set[bytes]:
    return {form.encode(), re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), form).encode()}


def _upper(found: re.Match[str]) -> str:
    return "\\u" + found[0][2:].upper()
