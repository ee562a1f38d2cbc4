"""What the screen shows, as lines of words with styles: drawn from its state, pure, and without a terminal.

Nothing is told by colour alone. Texts come escaped and bounded from the state; here they are only put in their places.
"""

from collections.abc import Iterator

from agentk.ui import conversation as words
from agentk.ui.actions import Call
from agentk.ui.conversation import Context
from agentk.ui.state import State

Line = tuple[tuple[str, str], ...]  # words and how they look

BAR = 40  # columns of a bar
_TREE = 200  # lines of it: the newest
_SIGNS = {
    words.YOU: ("you  ", "bold cyan"),
    words.SAID: ("     ", "bold"),
    words.THINKS: ("  ~  ", "dim italic"),
    words.DOES: ("  ·  ", "dim"),
    words.INTO: ("  >  ", "green"),
    words.BACK: ("  <  ", "green"),
    words.FAILED: ("  <! ", "red"),
    words.TELLS: ("  -  ", "yellow"),
    words.WRONG: ("  !  ", "red"),
}
_STATUS = {"ok": "green", "error": "red", "denied": "red", "cancelled": "yellow", "unknown": "yellow"}
_PARTS = {  # of C: the letter of its bar, and its colour
    "tools": ("T", "magenta"),
    "system": ("S", "blue"),
    "fixed": ("F", "blue"),
    "recap": ("R", "cyan"),
    "notes": ("N", "cyan"),
    "recalled": ("B", "yellow"),
    "work": ("W", "green"),
    "messages": ("M", "green"),
}


def conversation(state: State) -> Iterator[Line]:
    told = state.conversation
    if told.left_out:
        yield ((f"{told.left_out:,} earlier lines are not kept here: agentk logs {state.name}", "dim"),)
    for entry in told.entries:
        sign, style = _SIGNS[entry.kind]
        yield ((sign + "  " * entry.depth, style), (entry.text, style))
    if not told.entries:
        yield (("Nothing was said yet.", "dim"),)


def tree(state: State, now: float) -> Iterator[Line]:
    """Frames of a machine; else calls, each below the one it was part of."""
    if state.conversation.program == "machine":
        yield from _frames(state)
        return
    drawn = list[Line]()
    for depth, call in state.actions.tree():
        name = f"{'  ' * depth}{call.name}  "
        drawn.append(((name, ""), _status(call), (f"  {took(call, now)}", "dim")))
    yield from drawn[-_TREE:] or [(("No calls yet.", "dim"),)]


def _frames(state: State) -> Iterator[Line]:
    yield (("main", "bold"),)
    for frame in list(state.conversation.frames)[-_TREE:]:
        steps = f"  {frame.steps} step{'' if frame.steps == 1 else 's'}" if frame.steps else ""
        name = ("  " * max(1, frame.depth) + f"{frame.name}({frame.given})", "")
        if not frame.state:
            yield (name, (f"{steps}  runs", "yellow"))
        elif frame.state == words.FAILED:
            yield (name, (f"{steps}  failed: {frame.value}", "red"))
        else:
            yield (name, (f"{steps}  ", "dim"), (f"= {frame.value}", "green"))


def actions(state: State, now: float) -> Iterator[Line]:
    calls = state.actions.stream()
    for call in calls:
        used = [f"{call.tokens:,} tokens"] if call.tokens else []
        used += [f"${call.cost}"] if call.cost else []
        yield (
            (f"{call.clock} ", "dim"),
            (f"{call.name}  ", ""),
            _status(call),
            (f"  {took(call, now):>8}  {'  '.join(used)}", "dim"),
            (f"  {call.why}" if call.why else "", "red"),
        )
    if not calls:
        yield (("No calls yet.", "dim"),)


def standing(state: State, width: int) -> Iterator[Line]:
    told = state.standing
    cost = f", ${told.cost}" if told.cost not in ("", "0.00") else ""
    yield (
        (f"agent/{state.name} ", "bold"),
        (told.phase or "…", "green" if told.phase == "Running" else "yellow"),
        (f"  attempt {told.attempt}, {told.tokens:,} tokens{cost}", ""),
    )
    if told.reason:
        yield ((told.reason, "dim"),)
    if state.trouble:
        yield ((state.trouble, "red"),)
    yield from waiting(state)
    if told.result:
        yield (("result ", "dim"), (told.result, ""))
    yield (("", ""),)
    yield from context(state, max(10, min(BAR, width - 6)))
    yield (("", ""),)
    yield from memory(state)


def waiting(state: State) -> Iterator[Line]:
    """Calls that a person is to answer, with what to type; above all else, for nothing goes on until then."""
    for one in state.waiting:
        yield (
            (f"waits for a person until {one.until}: ", "bold yellow"),
            (f"{one.method} {one.summary}", "yellow"),
        )
        answer = f"/answer {one.name} TEXT" if one.asks else f"/approve {one.name}"
        yield ((f"   {answer}   /deny {one.name} [WHY]", "yellow"),)


def context(state: State, width: int = BAR) -> Iterator[Line]:
    """C against its budget."""
    seen = state.context()
    if seen is None:
        yield (("C  its size is not told", "dim"),)
        return
    share = f" ({seen.used / seen.budget:.0%})" if seen.budget else ""
    yield (("C  ", "bold"), (f"{seen.used:,} of {seen.budget:,} tokens{share}  {seen.where}", ""))
    yield (("   ", ""), *bar(seen, width))
    named = [(_PARTS.get(name, ("?", "")), f"{name} {tokens:,}  ") for name, tokens in seen.parts.items()]
    yield (
        ("   ", ""),
        *(part for (letter, style), told in named for part in ((f"{letter} ", style), (told, ""))),
    )


def bar(seen: Context, width: int) -> Line:
    """Parts as long as they are of the budget; letters tell them apart, too. What is over it is not drawn."""
    whole = max(seen.budget, seen.used, 1)
    drawn, used, tokens = list[tuple[str, str]](), 0, 0
    for name, count in seen.parts.items():
        tokens += count
        end = min(width, round(tokens * width / whole))
        letter, style = _PARTS.get(name, ("?", ""))
        drawn.append((letter * (end - used), style))
        used = max(used, end)
    return (("[", ""), *drawn, ("." * (width - used), "dim"), ("]", ""))


def memory(state: State) -> Iterator[Line]:
    """M: how much there is, and its newest cells with their sizes."""
    told = state.memory
    if not state.standing.remembers:
        yield (("M  it has no memory", "dim"),)
        return
    most = f" of {told.most:,}" if told.most else ""
    yield (("M  ", "bold"), (f"{told.pages:,}{most} cells, {size(told.bytes)}", ""))
    for cell in told.cells:
        name = (f"   {cell.name}  ", "cyan")
        yield (name, (f"{cell.kind}, {cell.tokens:,} tokens  ", "dim"), (cell.snippet, ""))
    if told.pages > len(told.cells):
        yield ((f"   and {told.pages - len(told.cells):,} older: /mem WORDS finds them", "dim"),)


def plainly(lines: Iterator[Line]) -> str:
    return "\n".join("".join(text for text, _ in line) for line in lines)


def took(call: Call, now: float) -> str:
    seconds = call.took(now)
    if seconds is None:
        return "-"
    shown = (
        f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.1f}s" if seconds < 600 else _long(seconds)
    )
    return f"{shown}…" if call.goes_on else shown


def size(count: int) -> str:
    return f"{count:,} bytes" if count < 10_000 else f"{count / 1024:,.0f} KiB"


def _long(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes}m" if minutes < 600 else f"{minutes // 60}h"


def _status(call: Call) -> tuple[str, str]:
    return (call.status or "?", _STATUS.get(call.status, "yellow"))
