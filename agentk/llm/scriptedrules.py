"""Rules of the scripted provider: what a request says, which rule answers it, and with what. Pure.

Matching never takes more than linear time in what a guest sends: substrings, prefixes and globs, no regular
expression of anybody's. A guest's text is put into a reply as it is and never read as a template again.
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentk.api import problems, quantities
from agentk.api.errors import AgentkError
from agentk.api.problems import Path, Problem
from agentk.llm import asking

TEXT_MATCHED_MAX = (
    65_536  # characters of a message that a glob is tried on: the end of a message is its newest part
)
_TEMPLATE = re.compile(r"\{\{\s*(last|toolResult|model|turn|system)\s*\}\}")
_HOW = ("equals", "prefix", "contains", "glob")


@dataclass(frozen=True)
class Conversation:
    """What rules can see of a request, in whichever dialect it came."""

    model: str = ""
    system: str = ""
    last: str = ""  # the newest message of the user
    turn: int = 1  # 1 for the model's first answer
    tool_name: str = ""  # of the newest tool result, when that is what is to be answered
    tool_result: str | None = None
    said: tuple[str, ...] = ()  # all messages, as the model is shown them


@dataclass(frozen=True)
class Answer:
    """What a rule says, its templates filled in."""

    text: str = ""
    tool_calls: tuple[tuple[str, Any], ...] = ()  # name, arguments
    delay_seconds: float = 0.0
    error: Mapping[str, Any] | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


class Script:
    """The rules of one route, and how often each has answered. Rules are tried in order; without any, it echoes."""

    def __init__(self, scripted: Mapping[str, Any]) -> None:
        self._rules: Sequence[Mapping[str, Any]] = scripted.get("rules") or ()
        self._answered = [0] * len(self._rules)

    def answer(self, talk: Conversation) -> Answer:
        for n, rule in enumerate(self._rules):
            most = rule.get("repeat", 0)
            if (not most or self._answered[n] < most) and matches(rule.get("match") or {}, talk):
                self._answered[n] += 1
                return answered(rule, talk)
        return Answer(text=talk.last if talk.tool_result is None else talk.tool_result)

    def most_input(self) -> int:
        """The largest input any rule claims to have read."""
        return max(((rule.get("usage") or {}).get("inputTokens", 0) for rule in self._rules), default=0)


def matches(match: Mapping[str, Any], talk: Conversation) -> bool:
    """Whether every matcher that is given matches. An empty one matches everything."""
    if "model" in match and not fnmatch.fnmatchcase(talk.model[:1000], match["model"]):
        return False
    if "turn" in match and match["turn"] != talk.turn:
        return False
    if "lastMessage" in match and (
        talk.tool_result is not None or not _fits(match["lastMessage"], talk.last)
    ):
        return False
    if "anyMessage" in match and not any(_fits(match["anyMessage"], text) for text in talk.said):
        return False
    if "system" in match and not _fits(match["system"], talk.system):
        return False
    if "toolResult" in match:
        told = match["toolResult"]
        if talk.tool_result is None or not _fits(told, talk.tool_result):
            return False
        return fnmatch.fnmatchcase(talk.tool_name[:1000], told.get("name", "*"))
    return True


def answered(rule: Mapping[str, Any], talk: Conversation) -> Answer:
    """The rule's reply, filled in."""
    reply, usage = rule.get("reply") or {}, rule.get("usage") or {}
    calls = reply.get("toolCalls") or ()
    text = reply.get("text", "" if calls else "{{last}}")
    return Answer(
        text=_filled(text, talk),
        tool_calls=tuple((call["name"], _filled(call.get("arguments") or {}, talk)) for call in calls),
        delay_seconds=quantities.parse_duration(rule.get("delay", "0")),
        error=rule.get("error"),
        input_tokens=usage.get("inputTokens"),
        output_tokens=usage.get("outputTokens"),
    )


def conversation(ask: asking.Ask) -> Conversation:
    """What a request says. Anything odd in it is read as nothing, never an error."""
    body = ask.body
    shown = body.get("messages") or body.get("input")
    texts = (text_of(m.get("content", m.get("output"))) for m in _list(shown) if isinstance(m, Mapping))
    return replace(_conversation(ask, body), said=tuple(texts))


def _conversation(ask: asking.Ask, body: Mapping[str, Any]) -> Conversation:
    model = str(body.get("model", ""))
    if ask.dialect == "openai.responses":
        return _of_responses(body, model)
    if ask.dialect == "openai.embeddings":
        return Conversation(model, last=text_of(body.get("input")))
    messages = [m for m in _list(body.get("messages")) if isinstance(m, Mapping)]
    if ask.dialect == "openai.chat":
        return _of_chat(messages, model)
    return _of_anthropic(messages, text_of(body.get("system")), model)


def _of_chat(messages: Sequence[Mapping[str, Any]], model: str) -> Conversation:
    system = "\n".join(
        text_of(m.get("content")) for m in messages if m.get("role") in ("system", "developer")
    )
    last = next((text_of(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), "")
    turn = 1 + sum(m.get("role") == "assistant" for m in messages)
    if not messages or messages[-1].get("role") not in ("tool", "function"):
        return Conversation(model, system, last, turn)
    newest = messages[-1]
    names = {
        str(call.get("id")): call["function"].get("name")
        for m in messages
        for call in _list(m.get("tool_calls"))
        if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping)
    }
    name = str(names.get(str(newest.get("tool_call_id"))) or newest.get("name") or "")
    return Conversation(model, system, last, turn, name, text_of(newest.get("content")))


def _of_responses(body: Mapping[str, Any], model: str) -> Conversation:
    system, told = text_of(body.get("instructions")), body.get("input")
    if not isinstance(told, list):
        return Conversation(model, system, text_of(told))
    items = [item for item in told if isinstance(item, Mapping)]
    last = next((text_of(i.get("content")) for i in reversed(items) if i.get("role") == "user"), "")
    asked = [i for i in items if i.get("type") == "function_call"]
    turn = 1 + sum(i.get("role") == "assistant" for i in items) + len(asked)
    if not items or items[-1].get("type") != "function_call_output":
        return Conversation(model, system, last, turn)
    names = {str(i.get("call_id")): str(i.get("name", "")) for i in asked}
    name = names.get(str(items[-1].get("call_id")), "")
    return Conversation(model, system, last, turn, name, text_of(items[-1].get("output")))


def _of_anthropic(messages: Sequence[Mapping[str, Any]], system: str, model: str) -> Conversation:
    blocks = [
        (str(m.get("role")), block)
        for m in messages
        for block in _blocks(m.get("content"))
        if isinstance(block, Mapping)
    ]
    words = [text_of(m.get("content")) for m in messages if m.get("role") == "user"]
    last = next((word for word in reversed(words) if word), "")
    turn = 1 + sum(m.get("role") == "assistant" for m in messages)
    if not blocks or blocks[-1][1].get("type") != "tool_result":
        return Conversation(model, system, last, turn)
    names = {str(b.get("id")): str(b.get("name", "")) for _, b in blocks if b.get("type") == "tool_use"}
    newest = blocks[-1][1]
    name = names.get(str(newest.get("tool_use_id")), "")
    return Conversation(model, system, last, turn, name, text_of(newest.get("content")))


def text_of(content: Any) -> str:
    """The text of a message: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    parts = [
        part if isinstance(part, str) else part["text"]
        for part in _list(content)
        if isinstance(part, str) or (isinstance(part, Mapping) and isinstance(part.get("text"), str))
    ]
    return "\n".join(parts)


def problems_of(scripted: Mapping[str, Any], path: Path = ("spec", "scripted")) -> list[Problem]:
    """What is wrong with the rules, each with its field."""
    rules = scripted.get("rules", [])
    if not isinstance(rules, list):
        return [Problem((*path, "rules"), "must be a list")]
    found: list[Problem] = []
    for n, rule in enumerate(rules):
        at = (*path, "rules", n)
        if not isinstance(rule, Mapping):
            found.append(Problem(at, f"must be an object, not {problems.shown(rule)}"))
        else:
            found += _problems_of_rule(rule, at)
    return found


def _problems_of_rule(rule: Mapping[str, Any], path: Path) -> list[Problem]:
    found: list[Problem] = []
    if "delay" in rule:
        try:
            quantities.parse_duration(rule["delay"])
        except AgentkError as wrong:
            found.append(Problem((*path, "delay"), wrong.message, wrong.hint))
    if "error" in rule and "reply" in rule:
        found.append(
            Problem((*path, "error"), "is given beside reply", "a rule answers or fails", at_key=True)
        )
    status = (rule.get("error") or {}).get("status", 500)
    if not isinstance(status, int) or not 400 <= status <= 599:
        found.append(Problem((*path, "error", "status"), "must be from 400 to 599"))
    for n, call in enumerate((rule.get("reply") or {}).get("toolCalls") or ()):
        if not isinstance(call, Mapping) or not call.get("name"):
            found.append(Problem((*path, "reply", "toolCalls", n), "needs name"))
    return found


def _fits(how: Mapping[str, Any], text: str) -> bool:
    text = text[-TEXT_MATCHED_MAX:] if "prefix" not in how else text
    return all(_fits_one(name, str(how[name]), text) for name in _HOW if name in how)


def _fits_one(how: str, wanted: str, text: str) -> bool:
    if how == "equals":
        return text == wanted
    if how == "prefix":
        return text.startswith(wanted)
    # The glob of the standard library compiles to a form that never goes back over a star.
    return wanted in text if how == "contains" else fnmatch.fnmatchcase(text, wanted)


def _filled(value: Any, talk: Conversation) -> Any:
    if isinstance(value, str):
        words = {
            "last": talk.last,
            "toolResult": talk.tool_result or "",
            "model": talk.model,
            "turn": str(talk.turn),
            "system": talk.system,
        }
        return _TEMPLATE.sub(lambda found: words[found[1]], value)
    if isinstance(value, Mapping):
        return {key: _filled(below, talk) for key, below in value.items()}
    return [_filled(below, talk) for below in value] if isinstance(value, list) else value


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _blocks(content: Any) -> Sequence[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else _list(content)
