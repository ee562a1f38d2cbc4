"""The scripted provider: answers from rules in YAML, in every dialect, without key or network, the same every time.

For demos, tests and people's CI. What it says has the exact shape of the provider's own answers, so that unmodified
clients read it; ids and times come from the request and never from a clock or a die.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentk.llm import asking, scriptedanthropic, scriptedopenai, scriptedresponses, scriptedrules, tokens
from agentk.llm.scriptedrules import Answer
from agentk.llm.scriptedsaying import Saying

# Of a request without a bound of its own, on a route without a default.
OUTPUT_TOKENS_MAX = 4_096


class Scripted:
    """All scripted routes. `send` is what a provider does."""

    def __init__(self) -> None:
        self._scripts: dict[str, scriptedrules.Script] = {}

    def set_script(self, key: str, scripted: Mapping[str, Any]) -> None:
        """Rules of a route; how often each has answered starts again."""
        self._scripts[key] = scriptedrules.Script(scripted)

    def drop_script(self, key: str) -> None:
        self._scripts.pop(key, None)

    def most_input(self, key: str) -> int:
        script = self._scripts.get(key)
        return script.most_input() if script else 0

    async def send(self, key: str, ask: asking.Ask, deployment: str) -> asking.Reply:
        """The answer of the first rule that matches; raises Refused when that rule is an error."""
        talk = scriptedrules.conversation(ask)
        answer = self._scripts.setdefault(key, scriptedrules.Script({})).answer(talk)
        if answer.delay_seconds:
            await asyncio.sleep(answer.delay_seconds)
        if answer.error is not None:
            raise _refused(answer.error)
        saying = _saying(ask, answer)
        pieces = _pieces(ask, saying)
        return _Reply(pieces, ask, saying, deployment)


def _pieces(ask: asking.Ask, saying: Saying) -> Sequence[bytes]:
    if ask.dialect == "openai.embeddings":
        return [_dump(scriptedopenai.embeddings(ask.body, saying))]
    if ask.dialect == "anthropic.count_tokens":
        return [_dump({"input_tokens": saying.input_tokens})]
    said = {
        "openai.chat": scriptedopenai,
        "openai.responses": scriptedresponses,
        "anthropic.messages": scriptedanthropic,
    }[ask.dialect]
    if ask.stream:
        return list(said.stream(ask.body, saying))
    return [_dump(said.document(ask.body, saying))]


def _saying(ask: asking.Ask, answer: Answer) -> Saying:
    """Cut to the bound of the request, with its tokens counted."""
    most = tokens.most_output(ask.dialect, {**ask.body, "n": 1}) or OUTPUT_TOKENS_MAX
    text = answer.text.encode("utf-8", "replace")
    cut = len(text) > most * tokens.BYTES_A_TOKEN
    if cut:
        text = text[: most * tokens.BYTES_A_TOKEN]
    calls = () if cut else tuple((name, _dump(arguments).decode()) for name, arguments in answer.tool_calls)
    said = text.decode("utf-8", "ignore")
    written = sum(tokens.count_text(name + arguments) for name, arguments in calls) + tokens.count_text(said)
    body = {key: value for key, value in ask.body.items() if key not in ("model", "stream", "stream_options")}
    read = tokens.count_text(json.dumps(body, ensure_ascii=False, default=str))
    digest = hashlib.sha256(
        json.dumps([ask.dialect, ask.body, said, calls], sort_keys=True, default=str).encode()
    ).hexdigest()
    return Saying(
        id=digest[:24],
        model=str(ask.body.get("model", "scripted")),
        text=said,
        tool_calls=calls,
        cut=cut,
        input_tokens=read if answer.input_tokens is None else answer.input_tokens,
        output_tokens=min(most, written if answer.output_tokens is None else answer.output_tokens),
    )


def _refused(error: Mapping[str, Any]) -> asking.Refused:
    status = int(error.get("status", 500))
    return asking.Refused(
        str(error.get("message", "the script says that this call fails")),
        upstream_status=status,
        type=str(error.get("type", "")),
        code=str(error.get("code", "")),
        retry_after_seconds=error.get("retryAfterSeconds"),
    )


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str).encode(
        "utf-8", "replace"
    )


class _Reply(asking.Reply):
    def __init__(self, pieces: Sequence[bytes], ask: asking.Ask, saying: Saying, deployment: str) -> None:
        self._pieces = pieces
        self._closed = False
        self.headers = {"content-type": "text/event-stream" if ask.stream else "application/json"}
        self.deployment = deployment
        free = ask.dialect == "anthropic.count_tokens"
        wordless = free or ask.dialect == "openai.embeddings"
        choices = ask.body.get("n", 1) if ask.dialect == "openai.chat" else 1
        self._output = 0 if wordless else saying.output_tokens * (choices if isinstance(choices, int) else 1)
        self.usage = asking.Usage(
            input_tokens=0 if free else saying.input_tokens, model=saying.model, counted=True
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        for n, piece in enumerate(self._pieces):
            if self._closed:
                return
            # Told in proportion to what has been said, so that a guest that hangs up pays for what it heard.
            share = -(-self._output * (n + 1) // len(self._pieces))
            self.usage = replace(self.usage, output_tokens=share, counted=n + 1 < len(self._pieces))
            yield piece

    async def aclose(self) -> None:
        self._closed = True
