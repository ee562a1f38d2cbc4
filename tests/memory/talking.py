"""Conversations of any kind, turn by turn, in three dialects, and what was sent of them instead."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from agentk.memory import folding, layout, messages, turning
from agentk.memory.layout import Prompt
from agentk.memory.messages import Request
from agentk.memory.turning import Settings, Turn
from agentk.memory.window import Bounds, Window, counted

DIALECTS = ("openai.chat", "openai.responses", "anthropic.messages")


@dataclass
class Talk:
    """One client that only appends, and the gate's side of it, with pages kept in memory."""

    dialect: str
    settings: Settings
    system: str = "You help."
    items: list[Any] = field(default_factory=list)
    window: Window = field(default_factory=Window)
    kept: dict[str, bytes] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    now: float = 1_000.0
    folds: bool = True
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def new_id(self) -> str:
        return f"p{next(self.numbers):016x}"

    def body(self) -> dict[str, Any]:
        if self.dialect == "openai.chat":
            return {"model": "m", "messages": [{"role": "system", "content": self.system}, *self.items]}
        if self.dialect == "openai.responses":
            return {"model": "m", "instructions": self.system, "input": list(self.items)}
        return {"model": "m", "system": self.system, "messages": list(self.items), "max_tokens": 100}

    def say(self, *items: Any) -> None:
        self.items += items

    def send(self, also: Mapping[str, float] | None = None) -> tuple[Prompt, Turn, Request]:
        request = messages.read(self.dialect, self.body())
        assert request is not None
        self.now += 1.0
        same = turning.repeated(self.window, request.said)
        if same < len(self.window.slots):
            self.window = turning.parted(self.window, same)
        fresh = len(request.said) - same
        grown = turning.grown(self.window, request.said, self.settings.bounds, self.now, self.new_id)
        for slot, told in list(zip(grown.slots, request.said, strict=True))[same:]:
            self.kept[slot.id] = told.content
        turn = turning.turned(grown, request, fresh, self.settings, self.now, also or {})
        after = turn.window
        episode = folding.due(after, turning.texts(after, request))
        if episode and self.folds:
            text = folding.extract(episode, self.settings.bounds.note)
            note = self.new_id()
            self.notes[note] = text
            after = turning.noted(after, episode, text, self.settings, request.fixed, self.now, note)
        prompt = layout.arranged(after, request, self.notes)
        after = counted(after, prompts=1, prompt_tokens=prompt.tokens, prefix_tokens=prompt.prefix)
        self.window = layout.remembered(after, prompt)
        return prompt, turn, request

    def shown(self, prompt: Prompt) -> list[Any]:
        """What of the client's own messages was sent."""
        ours = (layout.RECAP, layout.QUOTE)
        return [item for item in prompt.items if not str(item.get("content")).startswith(ours)]


def user(dialect: str, text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def answer(dialect: str, text: str) -> list[Any]:
    if dialect == "openai.responses":
        part = {"type": "output_text", "text": text, "annotations": []}
        return [{"type": "message", "role": "assistant", "content": [part]}]
    return [{"role": "assistant", "content": text}]


def tools(dialect: str, texts: Sequence[str], number: int) -> list[Any]:
    """A call of several tools at once, and their results."""
    ids = [f"call_{number}_{n}" for n in range(len(texts))]
    if dialect == "openai.chat":
        calls = [
            {"id": id, "type": "function", "function": {"name": "look", "arguments": json.dumps({"n": id})}}
            for id in ids
        ]
        results = [
            {"role": "tool", "tool_call_id": id, "content": t} for id, t in zip(ids, texts, strict=True)
        ]
        return [{"role": "assistant", "content": None, "tool_calls": calls}, *results]
    if dialect == "openai.responses":
        thought = {"type": "reasoning", "id": f"rs_{number}", "summary": []}
        asked = [{"type": "function_call", "call_id": id, "name": "look", "arguments": "{}"} for id in ids]
        told = [
            {"type": "function_call_output", "call_id": id, "output": t}
            for id, t in zip(ids, texts, strict=True)
        ]
        return [thought, *asked, *told]
    uses = [{"type": "tool_use", "id": id, "name": "look", "input": {"n": id}} for id in ids]
    results = [
        {"type": "tool_result", "tool_use_id": id, "content": t} for id, t in zip(ids, texts, strict=True)
    ]
    return [{"role": "assistant", "content": uses}, {"role": "user", "content": results}]


WORDS = st.text(st.sampled_from('abcdefghij é\n"\\日🦊'), min_size=1, max_size=80)
STEPS = st.lists(
    st.tuples(WORDS, st.lists(st.lists(WORDS, min_size=1, max_size=3), max_size=2), WORDS),
    min_size=1,
    max_size=12,
)


def calls_of(items: Sequence[Any]) -> list[str]:
    """Ids of the calls in messages, in their order."""
    return [found for item in items for found in _ids(item, ("tool_calls",), ("tool_use", "function_call"))]


def results_of(items: Sequence[Any]) -> list[str]:
    found: list[str] = []
    for item in items:
        if item.get("role") == "tool":
            found.append(item["tool_call_id"])
        elif item.get("type") == "function_call_output":
            found.append(item["call_id"])
        elif isinstance(item.get("content"), list):
            found += [b["tool_use_id"] for b in item["content"] if b.get("type") == "tool_result"]
    return found


def _ids(item: Any, fields: Sequence[str], types: Sequence[str]) -> Iterator[str]:
    for name in fields:
        yield from (call["id"] for call in item.get(name) or ())
    if item.get("type") in types:
        yield item["call_id"]
    if isinstance(item.get("content"), list):
        yield from (b["id"] for b in item["content"] if b.get("type") in types)


def settings(tokens: int, **more: Any) -> Settings:
    return Settings(Bounds(tokens, **more))
