"""What is done about what was found: tokens for personal data, marks for secrets, a refusal for code.

Everything that is looked for is looked for by `lookouts`, in a process of its own; here it is only put together again.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from agentk.api import errors
from agentk.broker import exec_orders
from agentk.broker.guarding import values
from agentk.broker.guarding.lookouts import Lookouts
from agentk.broker.guarding.rails import Code, Rails, Surface
from agentk.broker.guarding.tokens import Vault

REMOVED = "[secret removed]"
_IN_BASE64 = ("stdout", "stderr", "body")
_ANY = "surrogateescape"
# What is read one after the other, as if it were one text.
_SAID = frozenset(
    {"content", "text", "prompt", "system", "instructions", "output", "thinking", "stdout", "stderr"}
)


async def check_code(
    uid: str, rails: Code, params: Mapping[str, Any], lookouts: Lookouts, earlier: Sequence[str] = ()
) -> None:
    """Raises Denied, saying what and where. `earlier`: what ran before it in the same interpreter."""
    refuse(await problems(uid, rails, params, lookouts, earlier))


async def problems(
    uid: str, rails: Code, params: Mapping[str, Any], lookouts: Lookouts, earlier: Sequence[str] = ()
) -> list[str]:
    language, python = exec_orders.language(dict(params)), rails.python
    rules = {
        "bytes": rails.most_bytes,
        "patterns": rails.patterns,
        "python": None
        if python is None
        else {
            "imports": python.imports,
            "calls": python.calls,
            "attributes": python.attributes,
            "unparsable": python.unparsable,
            "dynamic": python.dynamic,
        },
    }
    stdin = str(params.get("stdin") or "")
    if params.get("encoding") == "base64":
        stdin = _decoded(stdin) or ""
    code = str(params.get("code") or "")
    return await lookouts.code(uid, language, code, params.get("argv") or (), stdin, rules, earlier)


def refuse(found: Sequence[str]) -> None:
    """Raises Denied when there are some."""
    if found:
        raise errors.Denied(
            f"guardrails: {found[0]}",
            causes=[errors.Cause("params.code", f"guardrails: {one}") for one in found],
            hint="code that its Policy does not let run; spec.guardrails.code says what",
        )


class Masking:
    """Of one agent."""

    def __init__(
        self, uid: str, rails: Rails, lookouts: Lookouts, vault: Vault, redact: Callable[[bytes], bytes]
    ) -> None:
        self._uid, self._rails, self._lookouts, self._vault = uid, rails, lookouts, vault
        self._redact = redact

    async def whole(self, value: Any, across: bool = False) -> Any:
        """With tokens in place of personal data. Raises Denied."""
        pii = self._rails.pii
        if pii is None:
            return value
        fields = values.fields(value)
        texts = [text for text, _ in fields]
        joined = _said(fields) if across else []
        how = {"for": "pii", "detect": pii.detect, "patterns": pii.patterns, "across": joined}
        found = await self._found(texts, how)
        named = {
            (kind, text[start:end])
            for text, spans in zip(texts, found, strict=True)
            for start, end, kind in spans
        }
        if not named:
            return value
        tokens = await self._vault.stand_ins(self._uid, sorted(named))
        told = [_put(text, spans, tokens) for text, spans in zip(texts, found, strict=True)]
        return values.replaced(value, told)

    async def recorded(self, value: Any) -> Any:
        """The same, without values of Secrets: a token in the midst of one would hide it from who looks for it."""
        if self._rails.pii is None:
            return value
        return await self.whole(values.changed(value, lambda text, field: self._without(text)))

    def _without(self, text: str) -> str:
        data = text.encode("utf-8", "surrogatepass")
        told = self._redact(data)
        return text if told == data else told.decode("utf-8", "replace")

    async def sent(self, surface: Surface, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """What goes to a model, a tool, a host or another agent."""
        if surface == "model":
            said = {
                key: one
                for key, one in params.items()
                if key != "model" and isinstance(one, str | list | Mapping)
            }
            return {**params, **await self.whole(said, across=True)}
        if surface == "tool":
            return {**params, "arguments": await self.whole(params["arguments"])}
        if surface == "message":
            return {**params, "body": await self.whole(params["body"])}
        return await self._request(params)

    async def _request(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        told = dict(params)
        if told.get("encoding") == "base64" and (text := _decoded(str(told["body"]))) is not None:
            told["body"], told["encoding"] = text, "utf-8"
        scheme, slashes, rest = str(told.get("url", "")).partition("://")
        host, slash, path = rest.partition("/")
        parts = {"path": path, "headers": told.get("headers") or {}, "body": told.get("body", "")}
        masked = await self.whole(parts)
        if masked["path"] != path:
            path = quote(masked["path"], safe="%/:@!$&'()*+,;=~-._[]|^?")
        return {
            **told,
            "url": scheme + slashes + host + slash + path,
            **{key: masked[key] for key in ("headers", "body")},
        }

    async def searched(
        self, surface: Surface, value: Any, *, block: bool | None = None, in_base64: bool = False
    ) -> Any:
        """Without secrets. Raises Denied when there are some, and they are to be blocked."""
        secrets = self._rails.secrets
        if secrets is None or surface not in secrets.where:
            return value
        plain, coded = _opened(value, in_base64)
        fields = values.fields(plain)
        texts = [text for text, _ in fields]
        how = {
            "for": "secrets",
            "entropy": secrets.entropy,
            "patterns": secrets.patterns,
            "across": _said(fields),
        }
        found = await self._found(texts, how)
        if not any(found):
            return value
        if secrets.block if block is None else block:
            raise errors.Denied(
                "guardrails: there is what looks like a secret in it",
                hint="take it out; spec.guardrails.secrets of its Policy says what is looked for",
            )
        told = [_put(text, spans, {}) for text, spans in zip(texts, found, strict=True)]
        return _closed(values.replaced(plain, told), coded)

    async def _found(self, texts: Sequence[str], how: Mapping[str, Any]) -> list[list[tuple[int, int, str]]]:
        return await self._lookouts.look(self._uid, texts, how) if any(texts) else [[] for _ in texts]


def _said(fields: Sequence[tuple[str, str]]) -> list[int]:
    return [at for at, (text, field) in enumerate(fields) if text and field in _SAID]


def _put(text: str, spans: Sequence[tuple[int, int, str]], tokens: Mapping[str, str]) -> str:
    told: list[str] = []
    done = 0
    for start, end, _ in spans:
        told += (text[done:start], tokens.get(text[start:end], REMOVED))
        done = end
    return "".join((*told, text[done:]))


def _opened(value: Any, in_base64: bool) -> tuple[Any, list[str]]:
    """With what is base64 by its own word decoded, and which fields that are."""
    if not isinstance(value, Mapping) or not (in_base64 or value.get("encoding") == "base64"):
        return value, []
    told, coded = dict(value), []
    for field in _IN_BASE64:
        if isinstance(told.get(field), str):
            try:
                told[field] = base64.b64decode(told[field], validate=True).decode("utf-8", _ANY)
            except (binascii.Error, ValueError):
                continue
            coded.append(field)
    return told, coded


def _closed(value: Any, coded: Sequence[str]) -> Any:
    for field in coded:
        value[field] = base64.b64encode(value[field].encode("utf-8", _ANY)).decode()
    return value


def _decoded(text: str) -> str | None:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
