"""Takes secrets out of what is about to be written, in every form that they usually travel in.

What cannot be seen this way: secrets under 8 bytes, encrypted or compressed data, and a secret cut in pieces. The
first defence is that a guest never holds one; this is the second.
"""

import base64
import functools
import json
import re
from collections.abc import Iterable
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


def _pattern(quote: bytes, value: bytes) -> re.Pattern[bytes]:
    """`"name": "value"`, `"name": ["value", …]` and `["name", "value"]`. No part can be matched in two ways: linear."""
    name, text = quote + rb"(?:" + _NAMES + rb")" + quote, quote + value + quote
    several = rb"\[\s*" + text + rb"(?:\s*,\s*" + text + rb")*+"
    return re.compile(
        rb"(?is)(?P<named>" + name + rb"\s*:\s*)(?P<array>" + several + rb"|" + text + rb")"
        rb"|(?P<paired>\[\s*" + name + rb"\s*,\s*)" + text + rb"(?=\s*\])"
    )


# In JSON, and in JSON that is itself a string in JSON, up to three deep. There a value with a quote in it ends early.
_HEADERS_AT = tuple(
    _pattern(
        b"\\\\" * slashes + b'"', rb'(?:[^"\\]|\\.)*+' if not slashes else rb'[^"\\]*+(?:\\++[^"\\]++)*+'
    )
    for slashes in (0, 1, 3)
)


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
    for slashes, pattern in zip((b"", b"\\", b"\\\\\\"), _HEADERS_AT, strict=True):
        mark = slashes + b'"' + MARK + slashes + b'"'
        data = pattern.sub(functools.partial(_marked, mark), data)
    return data


def _marked(mark: bytes, found: re.Match[bytes]) -> bytes:
    if found["paired"]:
        return found["paired"] + mark
    return found["named"] + (b"[" + mark if found["array"].startswith(b"[") else mark)


def _hex_cases(form: str) -> set[bytes]:
    return {form.encode(), re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), form).encode()}


def _upper(found: re.Match[str]) -> str:
    return "\\u" + found[0][2:].upper()
