"""The screen on terminals of every size, fed without a daemon: nothing crashes it, and nothing hostile reaches it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from agentk.ui import doing, reading, waiting
from agentk.ui.screen import Pane, Screen
from agentk.ui.state import State

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e[bold]no[/]\u200b\x9b31m\r\t\x00\ufeff"
APPROVAL: dict[str, Any] = {
    "metadata": {"name": "clerk-3f9c1d20aa", "creationTimestamp": "1"},
    "spec": {
        "method": f"exec{HOSTILE}",
        "summary": f"python: {HOSTILE}",
        "deadline": "2026-11-21T12:00:00Z",
        "arguments": {"code": f"a\n{HOSTILE}", HOSTILE: [HOSTILE]},
        "hiddenBytes": 7,
    },
}


def fed(tmp_path: Path) -> Screen:
    seen = State("clerk")
    where = tmp_path / "nobody.sock"
    screen = Screen(seen, reading.Reading(where, "d", "clerk", seen), doing.Doing(where, "d", "clerk", seen))
    spec = {"program": "machine", "memory": {}, "stdin": True}
    seen.saw_agent(
        {"metadata": {"uid": "u"}, "spec": spec, "status": {"phase": "Running", "message": HOSTILE}}
    )
    for number in range(120):
        seen.heard(f"  > routine{number}({HOSTILE})".encode())
        seen.heard(f"  < routine{number}: {HOSTILE * 9}".encode())
    seen.heard(b"step 9 in main: 900 of 1000 tokens: tools 500, system 100, recap 0, work 300")
    seen.saw_calls(
        [{"effect": "e", "record": 1, "method": HOSTILE, "about": HOSTILE, "status": HOSTILE, "why": HOSTILE}]
    )
    seen.saw_memory({"pages": 1}, [{"name": HOSTILE, "kind": HOSTILE, "tokens": 5, "snippet": HOSTILE}])
    seen.saw_approvals([APPROVAL])
    return screen


def drawn(pilot: Pilot[int]) -> str:
    """What the terminal is given, row by row."""
    rows = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in row) for row in rows)


def test_it_fits_terminals_of_every_size_and_turns_with_them(tmp_path: Path) -> None:
    async def story(screen: Screen) -> None:
        async with screen.run_test(size=(150, 50)) as pilot:
            for size in ((80, 24), (40, 10), (2, 1), (150, 50)):
                await pilot.resize_terminal(*size)
                await pilot.pause()
                screen.draw()
                await pilot.press("tab", "pageup", "down", "G", "tab", "tab", "tab", "tab")
                text = drawn(pilot)
                assert all(one.isprintable() or one == "\n" for one in text), repr(text)
                shown = [pane for pane in screen.query(Pane) if pane.size.width]
                if size[0] > 2:
                    assert len(shown) == (4 if size[0] >= 60 and size[1] >= 16 else 1), size
            await pilot.resize_terminal(80, 24)
            await pilot.pause()
            screen.draw()
            assert "/approve clerk-3f9c1d20aa" in screen.query_one("#state", Pane).text
            assert "waits for a person" in screen.query_one("#conversation", Pane).text
            screen.query_one(Input).focus()
            await pilot.press("x")
            assert screen.query_one(Input).value == "x"

    asyncio.run(story(fed(tmp_path)))


def test_what_is_approved_is_named_and_what_is_not_shown_is_told() -> None:
    other = {**APPROVAL, "metadata": {"name": "clerk-3f0000000a", "creationTimestamp": "2"}}
    long = {**APPROVAL["spec"], "arguments": {"code": "\n".join(["true"] * 200)}, "hiddenBytes": 0}
    answered = {"metadata": {"name": "x"}, "spec": long, "status": {"phase": "Denied"}}
    seen = waiting.read([other, APPROVAL, answered, {**APPROVAL, "metadata": {"name": "z"}, "spec": long}])
    assert [one.name for one in seen] == ["z", "clerk-3f9c1d20aa", "clerk-3f0000000a"]
    assert waiting.meant(seen, "3f9c not  today") == (seen[1], "not  today")
    for words in ("", "3f", "nobody"):
        with pytest.raises(ValueError, match="say which one"):
            waiting.meant(seen, words)
    with pytest.raises(ValueError, match="nothing waits"):
        waiting.meant((), "x")
    assert len(seen[0].details) == 81 and seen[0].details[-1].startswith(
        "(120 lines and 0 bytes more: agentk"
    )
    assert "7 bytes more" in seen[1].details[-1]
    assert all(
        one.isprintable() for each in seen for one in "".join((*each.details, each.summary, each.method))
    )
