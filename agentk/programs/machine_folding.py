"""Keeps what a frame of a machine shows its model within a budget: the oldest part becomes an episode note in M.

The note is written by the model, or quoted without one; the frame keeps a line of it, which tells by which name it is
recalled. Lines are made of notes and notes of messages, never of notes: nothing nests. A fold that fails leaves the
frame as it was: then its model is shown less, and the frame keeps all.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Tuple

from agentk.programs import machine_window
from agentk.programs.machine_window import TooLarge, tokens

SHARE = 0.5  # of the budget, which the newest messages keep
RECAP_LETTERS = 2000
LINE_LETTERS = 200
READ_BYTES = 24_000  # of what the model is given to fold
_MESSAGE_LETTERS = 1500
_QUOTE_LETTERS = 160
_NOTE_LETTERS = 8000
_LEAST_TOKENS = 24  # of an answer that is cut, or it says nothing
_ARGUMENT_LETTERS = 400

Message = Dict[str, Any]
Recap = List[Tuple[str, str]]  # id of an episode, its line


def cut(messages: List[Message], budget: int) -> int:
    """Where the part ends that can be folded; 1 or less when there is none. The first message stays, and so does the
    newest turn; a call and its answers are not parted."""
    last = next((at for at in range(len(messages) - 1, 0, -1) if messages[at].get("role") == "assistant"), 1)
    kept, at, best = 0, len(messages), last
    while at > 1:
        at -= 1
        kept += tokens(messages[at])
        if kept > budget * SHARE:
            break
        if messages[at].get("role") != "tool":
            best = min(best, at)
    return best


def fold(
    messages: List[Message],
    budget: int,
    write: Callable[[str], str],
    keep: Callable[[str], str],
) -> Tuple[str, str, List[Message]]:
    """Id of the note, its line, and the messages that are left; the id is "" when nothing can be folded.

    `write` makes a note of a text, or "" when it cannot; `keep` answers its id, and what it raises changes nothing.
    """
    end = cut(messages, budget)
    old = messages[1:end]
    if not old:
        return "", "", messages
    text = rendered(old, min(READ_BYTES, budget * machine_window.BYTES_A_TOKEN * 3 // 4))
    note = write(text).strip()[:_NOTE_LETTERS] or quoted(old)
    name = keep(note)
    line = " ".join(note.split())
    line = line if len(line) <= LINE_LETTERS else f"{line[: LINE_LETTERS - 1]}…"
    return name, line, [messages[0], *messages[end:]]


def recapped(opening: str, recap: Recap, budget: int) -> str:
    """The first message with what was folded, in a quarter of the budget at most; of many notes the newest lines."""
    if not recap:
        return opening
    lines: List[str] = []
    letters, room = RECAP_LETTERS, budget // 4
    for name, line in reversed(recap):
        told = f"- {name}: {line}"
        letters -= len(told) + 1
        room -= tokens(told)
        if letters < 0 or room < 0:
            lines.append(f"- and {len(recap) - len(lines)} earlier: search finds them")
            break
        lines.append(told)
    return "\n".join([opening, "", "What happened before, in short; recall tells more:", *reversed(lines)])


def view(messages: List[Message], budget: int) -> List[Message]:
    """What of them is shown: all, when they fit; else what can be left out is, and what is left is cut. Nothing is
    taken from the messages themselves. Raises TooLarge."""
    if tokens(messages) <= budget:
        return messages
    end = max(1, cut(messages, budget))
    kept = [dict(messages[0]), *messages[end:]]
    if end > 1:
        kept[0]["content"] = f"{kept[0]['content']}\n\n[{end - 1} messages after this are not shown.]"
    if tokens(kept) > budget:
        kept = _with_short_answers([_with_short_calls(one) for one in kept], budget)
    needed = tokens(kept)
    if needed > budget:
        raise TooLarge(
            f"what must be shown to the model has about {needed} tokens, and there is room for {max(0, budget)}"
        )
    return kept


def _with_short_answers(messages: List[Message], budget: int) -> List[Message]:
    """The long answers share what the rest leaves."""
    answers = sorted((one for one in messages if one.get("role") == "tool"), key=tokens)
    left = budget - tokens([one for one in messages if one.get("role") != "tool"]) - len(answers)
    most: Dict[int, int] = {}
    for at, one in enumerate(answers):
        most[id(one)] = max(_LEAST_TOKENS, left // (len(answers) - at))
        left -= min(tokens(one), most[id(one)])
    return [_within(one, most[id(one)]) if id(one) in most else one for one in messages]


def _within(message: Message, budget: int) -> Message:
    text = str(message.get("content", ""))
    most = machine_window.size(text)
    made = message
    while tokens(made) > budget and most > 0:  # JSON writes some letters longer than they are
        most = min(most - 1, most * budget // (tokens(made) + 1))
        made = {**message, "content": machine_window.short(text, most)}
    return made


def _with_short_calls(message: Message) -> Message:
    """What was asked for is done already: of long arguments the beginning tells enough."""
    made = dict(message)
    if made.get("role") == "assistant" and isinstance(made.get("content"), str):
        made["content"] = _begun(made["content"])
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        made["tool_calls"] = [_with_short_arguments(one) for one in calls]
    return made


def _with_short_arguments(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    given = function.get("arguments")
    if not isinstance(given, str) or len(given) <= _ARGUMENT_LETTERS:
        return call
    return {**call, "function": {**function, "arguments": json.dumps({"cut": _begun(given)})}}


def _begun(text: str) -> str:
    if len(text) <= _ARGUMENT_LETTERS:
        return text
    return f"{text[: _ARGUMENT_LETTERS // 2]}… [it had {len(text)} letters]"


def rendered(messages: List[Message], most_bytes: int = READ_BYTES) -> str:
    """As the model reads it to write a note: bounded, the beginning and the end when it is too much."""
    text = "\n".join(f"{one.get('role', '')}: {said(one)[:_MESSAGE_LETTERS]}" for one in messages)
    if machine_window.size(text) <= most_bytes:
        return text
    half = most_bytes // 2
    end = text.encode("utf-8", "replace")[-half:].decode("utf-8", "ignore")
    return f"{machine_window.begin(text, half)}\n[…]\n{end}"


def quoted(messages: List[Message]) -> str:
    """A note without a model: how each message begins."""
    lines = [f"{one.get('role', '')}: {' '.join(said(one).split())[:_QUOTE_LETTERS]}" for one in messages]
    return "\n".join(lines)[:_NOTE_LETTERS]


def said(message: Message) -> str:
    content = message.get("content")
    parts = (
        [content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)] if content else []
    )
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            parts.append(f"{function.get('name', '')}({function.get('arguments', '')})")
    return " ".join(parts)
