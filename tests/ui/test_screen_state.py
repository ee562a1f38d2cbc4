"""The screen without a terminal: what it makes of logs, calls and memories, hostile ones among them."""

from typing import Any

import pytest
from rich.cells import cell_len

from agentk.ui import actions, orders, pictures, plain, wrapping
from agentk.ui import conversation as words
from agentk.ui.state import State

NOW = 1_800_000_000.0


def machine(*lines: str) -> State:
    seen = State("clerk")
    seen.saw_agent(
        {"spec": {"program": "machine", "memory": {}, "stdin": True}, "status": {"phase": "Running"}}
    )
    for line in lines:
        seen.heard(line.encode())
    return seen


def call(number: int, method: str = "think", parent: str = "", **more: Any) -> dict[str, Any]:
    told = {"effect": f"e{number}", "parent": parent, "record": number, "method": method, "status": "ok"}
    return (
        told | {"time": f"2026-11-21T10:00:{number % 60:02}.5Z", "durationSeconds": 0.25, "used": {}} | more
    )


def test_a_log_becomes_a_conversation_and_a_tree_of_frames() -> None:
    seen = machine(
        "begins: M holds 3 cells.",
        "step 1 in main: 900 of 8000 tokens: tools 500, system 100, recap 0, work 300",
        "thinks: I need a card.",
        '  > card({"to": "Ada"})',
        "step 2 in card: 1000 of 8000 tokens: tools 500, system 100, recap 150, work 250",
        '    > greet("Ada")',
        "    < greet: Dear Ada,",
        "    > sign(null)",
        "    < sign failed: there is no routine 'sign'",
        "Good morning! > not a frame",
        'act {"channel": "terminal", "content": "Good morning!"} -> Done.',
    )
    kinds = [one.kind for one in seen.conversation.entries]
    assert kinds == [
        *(words.TELLS, words.THINKS, words.INTO, words.INTO, words.BACK, words.INTO, words.FAILED),
        *(words.SAID, words.DOES),
    ]
    frames = [(one.depth, one.name, one.state, one.steps) for one in seen.conversation.frames]
    assert frames == [(1, "card", "", 1), (2, "greet", words.BACK, 0), (2, "sign", words.FAILED, 0)]
    drawn = pictures.plainly(pictures.tree(seen, NOW)).splitlines()
    assert drawn[1] == '  card({"to": "Ada"})  1 step  runs' and drawn[2] == '    greet("Ada")  = Dear Ada,'
    context = seen.context()
    assert context is not None and (context.used, context.budget) == (1000, 8000)
    assert "".join(text for text, _ in pictures.bar(context, 40)) == f"[{'T' * 2}{'S'}{'R'}{'W'}{'.' * 35}]"


def test_another_attempt_closes_the_frames_of_the_one_before() -> None:
    seen = machine("> card(1)", "step 1 in card: 5 of 9 tokens: tools 1, system 2, recap 0, work 2")
    seen.begins(2)
    assert [one.state for one in seen.conversation.frames] == [words.FAILED] and seen.context() is None


@pytest.mark.parametrize("program", ("machine", "react", "code", ""))
def test_hostile_lines_neither_obey_nor_grow(program: str) -> None:
    seen = State("clerk")
    seen.saw_agent({"spec": {"program": program}})
    hostile = "\x1b]0;owned\x07\x1b[2J\u202e[bold red]no[/]\u200b\x9b31m\r\ttab\ud800"
    for number in range(words.LINES + 10):
        seen.heard(f"{'  ' * number}> f{number}({hostile})".encode("utf-8", "surrogatepass"))
    seen.heard(b"\xff\xfe" + b"x" * 5_000_000)
    seen.heard(b"> (" + b"(" * 200_000)
    seen.heard(b"step 1 in a: " + b"9" * 4000)
    seen.heard(b"< " + b": " * 100_000)
    told = seen.conversation
    assert len(told.entries) == words.LINES and len(told.frames) <= words.FRAMES and told.left_out == 14
    assert len(told._open) <= words.DEPTH + 1
    for text in (pictures.plainly(pictures.conversation(seen)), pictures.plainly(pictures.tree(seen, NOW))):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
        assert max(map(len, text.splitlines())) < 1000
        assert "\\x1b[2J" in text or program not in ("machine", "") or "f9" not in text


def test_calls_come_in_order_and_end_later() -> None:
    seen = State("clerk")
    assert seen.saw_calls(
        [call(2, "tool.call", about="files.read"), call(1, used={"tokens": 1200, "costUsd": "0.01"})]
    )
    going = call(3, "exec", parent="e2", status="running", durationSeconds=None, time="2026-11-21T10:00:03Z")
    assert seen.saw_calls([going]) and seen.actions.since == "2026-11-21T10:00:03Z"
    assert not seen.saw_calls([going])
    began = actions._call(going).took(0.0) or 0.0
    assert began == 0.0
    drawn = pictures.plainly(pictures.actions(seen, NOW)).splitlines()
    assert drawn[0].split() == ["10:00:01", "think", "ok", "250ms", "1,200", "tokens", "$0.01"]
    assert drawn[2].split()[:3] == ["10:00:03", "exec", "running"] and drawn[2].rstrip().endswith("…")
    ended = State("clerk")
    ended.saw_calls([call(1, "exit", durationSeconds=None)])
    assert " -" in pictures.plainly(pictures.actions(ended, NOW)) and ended.actions.since.startswith("2026")
    assert [(depth, one.effect) for depth, one in seen.actions.tree()] == [(0, "e1"), (0, "e2"), (1, "e3")]
    assert seen.saw_calls([call(3, "exec", parent="e2", status="error", why="\x1b[31mno")])
    assert (
        "error" in (last := pictures.plainly(pictures.actions(seen, NOW)).splitlines()[2])
        and "\x1b" not in last
    )


def test_calls_are_kept_up_to_a_bound_and_their_parents_make_no_circle() -> None:
    seen = State("clerk")
    seen.saw_calls([call(number, parent=f"e{(number + 1) % 2000}") for number in range(2000)])
    seen.saw_calls([call(5000, parent="e5000"), call(5001, parent="e5000")])
    assert len(list(seen.actions.tree())) == len(seen.actions.stream()) == actions.KEPT
    assert seen.actions.stream()[-1].record == 5001
    seen.saw_calls([{"effect": 7, "record": "x", "used": [], "durationSeconds": "long", "time": None}])
    assert pictures.plainly(pictures.actions(seen, NOW))


def test_memory_and_a_managed_window_are_shown_with_sizes() -> None:
    seen = State("clerk")
    seen.saw_agent(
        {"spec": {"memory": {"context": "managed"}}, "status": {"phase": "Running", "usage": {"tokens": 9}}}
    )
    items = [{"name": "greet\x1b[0m", "kind": "skill", "tokens": 12, "snippet": "Greet\nthem."}]
    seen.saw_memory({"pages": 70, "bytes": 20480, "limits": {"pages": 1000}}, items)
    tokens = {"total": 100, "fixed": 10, "notes": 20, "messages": 60, "recalled": 10}
    seen.saw_windows([{"tokens": tokens, "budgetTokens": 200}, {"tokens": "?"}])
    text = pictures.plainly(pictures.standing(seen, 80))
    assert "100 of 200 tokens (50%)" in text and "M  70 of 1,000 cells, 20 KiB" in text
    assert "greet\\x1b[0m  skill, 12 tokens  Greet them." in text and "and 69 older" in text
    seen.saw_windows([{"tokens": {"fixed": 1e99, "notes": -4, "messages": True}, "budgetTokens": "all"}])
    assert "0 of 0 tokens" in pictures.plainly(pictures.standing(seen, 80))


def test_lines_are_cut_and_say_so() -> None:
    assert plain.line("a\tb\nc") == "a b c"
    assert plain.line("x" * 700) == "x" * 400 + "… (700 letters)"
    assert len(plain.line("\x00" * 600)) < 440


def test_lines_are_broken_to_the_columns_there_are() -> None:
    line = (("  >  ", "green"), ("the quick brown fox \u4f60\u597d\u4f60\u597d jumps" + "o" * 30, ""))
    rows = list(wrapping.wrap(line, 12))
    assert ["".join(text for text, _ in row) for row in rows[:3]] == [
        "  >  the ",
        "quick brown ",
        "fox \u4f60\u597d\u4f60\u597d",
    ]
    assert all(sum(cell_len(text) for text, _ in row) <= 12 for row in rows)
    assert "".join(text for row in rows for text, _ in row) == pictures.plainly(iter([line]))
    assert list(wrapping.wrap((), 5)) == [()] and list(wrapping.wrap((("\u4f60", ""),), 1)) == [
        (("\u4f60", ""),)
    ]
    for width in range(1, 40):
        assert all(
            sum(cell_len(text) for text, _ in row) <= max(2, width) for row in wrapping.wrap(line, width)
        )


def test_orders_begin_with_a_slash() -> None:
    assert orders.read("/mem due  dates ") == orders.Order("/mem", "due  dates")
    assert orders.read("//quit") == orders.Order("", "/quit") and orders.read("go on") == orders.Order(
        "", "go on"
    )
    with pytest.raises(ValueError, match="/help"):
        orders.read("/drop")
