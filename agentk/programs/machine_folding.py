"""Keeps what a frame of a machine shows its model within a budget: the oldest part becomes an episode note in M.

The note is written by the model, or quoted without one; the frame keeps a line of it, which tells by which name it is
recalled. Lines are made of notes and notes of messages, never of notes: nothing nests. A fold that fails leaves the
frame as it was.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Tuple

SHARE = 0.5  # of the budget, which the newest messages keep
RECAP_LETTERS = 2000
LINE_LETTERS = 200
READ_LETTERS = 24_000  # of what the model is given to fold
_MESSAGE_LETTERS = 1500
_QUOTE_LETTERS = 160
_NOTE_LETTERS = 8000
_LETTERS_A_TOKEN = 4

Message = Dict[str, Any]
Recap = List[Tuple[str, str]]  # id of an episode, its line


def tokens(messages: List[Message]) -> int:
    """An estimate, from letters."""
    return sum(len(json.dumps(one, ensure_ascii=False)) for one in messages) // _LETTERS_A_TOKEN


def cut(messages: List[Message], budget: int) -> int:
    """Where the part ends that can be folded; 1 or less when there is none. The first message stays, and so does the
    newest turn; a call and its answers are not parted."""
    last = next((at for at in range(len(messages) - 1, 0, -1) if messages[at].get("role") == "assistant"), 1)
    kept, at, best = 0, len(messages), last
    while at > 1:
        at -= 1
        kept += tokens([messages[at]])
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
    text = rendered(old)
    note = write(text).strip()[:_NOTE_LETTERS] or quoted(old)
    name = keep(note)
    line = " ".join(note.split())
    line = line if len(line) <= LINE_LETTERS else f"{line[: LINE_LETTERS - 1]}…"
    return name, line, [messages[0], *messages[end:]]


def recapped(opening: str, recap: Recap) -> str:
    """The first message with what was folded; of many notes the newest lines."""
    if not recap:
        return opening
    lines: List[str] = []
    room = RECAP_LETTERS
    for name, line in reversed(recap):
        told = f"- {name}: {line}"
        room -= len(told) + 1
        if room < 0:
            lines.append(f"- and {len(recap) - len(lines)} earlier: search finds them")
            break
        lines.append(told)
    return "\n".join([opening, "", "What happened before, in short; recall tells more:", *reversed(lines)])


def rendered(messages: List[Message]) -> str:
    """As the model reads it to write a note: bounded, the beginning and the end when it is too much."""
    text = "\n".join(f"{one.get('role', '')}: {said(one)[:_MESSAGE_LETTERS]}" for one in messages)
    half = READ_LETTERS // 2
    return text if len(text) <= READ_LETTERS else f"{text[:half]}\n[…]\n{text[-half:]}"


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
