"""A request of a template and the arguments of a call, and its answer as a tool's. Pure.

No value changes where a request goes, nor which request it is: in a path it is one segment that leads nowhere else, in
a query one value, in a header one line, in a body one value of JSON.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib import parse

from agentk.api import errors, templates
from agentk.tools import argvs, outputs, speaking
from agentk.tools.offers import Outcome

_JSON = "application/json"

Given = Mapping[str, Any]


@dataclass(frozen=True)
class Header:
    name: str
    value: str  # a template


@dataclass(frozen=True)
class Form:
    """How a request is made, whoever said so."""

    method: str
    url: str  # a template
    query: Mapping[str, str]  # templates
    headers: Sequence[Header] = ()
    body: str | None = None  # a template


@dataclass(frozen=True)
class Asked:
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Came:
    """What came back, scrubbed."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    truncated: bool


def form(http: Mapping[str, Any]) -> Form:
    """Of `spec.http`, without its Secrets."""
    return Form(
        http.get("method", "GET"), http["url"], http.get("query") or {}, own_headers(http), http.get("body")
    )


def own_headers(http: Mapping[str, Any]) -> list[Header]:
    return [Header(one["name"], one["value"]) for one in http.get("headers") or () if "value" in one]


def asked(made: Form, given: Given) -> Asked:
    """Raises BadRequest naming the argument."""
    template = templates.parse(made.url)
    whole = templates.whole(template)
    url = argvs.text(whole, given.get(whole)) if whole else _address(template, given)
    pairs = [pair for name, text in made.query.items() for pair in _query(name, text, given)]
    if pairs:
        url += ("&" if "?" in url else "?") + parse.urlencode(pairs, errors="strict")
    headers = [(one.name, text) for one in made.headers if (text := _line(one, given)) is not None]
    body = b""
    if made.body is not None:
        body = _body(templates.parse(made.body), given)
        if body and not any(name.lower() == "content-type" for name, _ in headers):
            headers.append(("Content-Type", _JSON))
    return Asked(url, tuple(headers), body)


def outcome(came: Came, url: str) -> Outcome:
    """As a tool answers. Never raises."""
    kind = came.headers.get("content-type", "").partition(";")[0].strip().lower()
    wrong = came.status >= 400
    said = [f"HTTP {came.status}"] if wrong else []
    if came.truncated:
        said.append(f"only the first {len(came.body)} bytes of the answer were taken")
    try:
        text = came.body.decode()
    except UnicodeDecodeError:
        return _binary(came, kind, url, said, wrong)
    structured = None
    if (kind == _JSON or kind.endswith("+json")) and not came.truncated:
        try:
            structured = speaking.parsed(text)
        except speaking.TooMany:
            return outputs.made(text, said, wrong=True) if wrong else outputs.many(text)
        except ValueError:
            structured = None  # it is told as the text that it is
    return outputs.made(text, said, structured=structured, wrong=wrong)


def _binary(came: Came, kind: str, url: str, said: list[str], wrong: bool) -> Outcome:
    data = base64.b64encode(came.body).decode()
    block: dict[str, Any] = {"type": "resource", "resource": {"uri": url, "mimeType": kind, "blob": data}}
    if kind.startswith("image/"):
        block = {"type": "image", "data": data, "mimeType": kind}
    return Outcome((*({"type": "text", "text": one} for one in said), block), None, wrong)


def _address(template: templates.Template, given: Given) -> str:
    made = ""
    for part in template:
        if isinstance(part, str):
            made += part
            continue
        if part.when_true is None and given.get(part.name) is None:
            raise _refused(part.name, "is part of the address, and not given")
        value = given.get(part.name)
        text = _shown(part, given) if not isinstance(value, list) else ",".join(_scalar(part.name, value))
        if any(step in (".", "..") for step in text.replace("\\", "/").split("/")) or "\0" in text:
            raise _refused(part.name, "would lead to another address")
        made += parse.quote(text, safe="")
    return made


def _query(name: str, text: str, given: Given) -> list[tuple[str, str]]:
    template = templates.parse(text)
    if templates.lacks(template, given):
        return []
    whole = templates.whole(template)
    if whole and isinstance(given.get(whole), list):
        return [(name, one) for one in _scalar(whole, given[whole])]
    return [(name, argvs.filled(template, given))]


def _scalar(name: str, values: Sequence[Any]) -> list[str]:
    return [argvs.text(name, one) for one in values]


def _shown(hole: templates.Hole, given: Given) -> str:
    return argvs.filled((hole,), given)


def _line(header: Header, given: Given) -> str | None:
    template = templates.parse(header.value)
    if templates.lacks(template, given):
        return None
    text = argvs.filled(template, given)
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        name = next(iter(sorted(templates.names(template))), header.name)
        raise _refused(name, "holds a control character, which no header can")
    return text


def _body(template: templates.Template, given: Given) -> bytes:
    made = ""
    for part in template:
        if isinstance(part, str):
            made += part
        elif part.name == templates.ALL:
            made += _json(dict(given))
        elif part.when_true is not None:
            made += part.when_true if given.get(part.name) is True else ""
        else:
            made += _json(given.get(part.name))
    return made.encode()


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _refused(name: str, why: str) -> errors.BadRequest:
    return errors.BadRequest(f"{name} {why}", field=f"params.arguments.{name}")
