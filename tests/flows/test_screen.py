"""The split screen of `agentk attach`, on a real machine in its jail: seen, typed to, wiped and left."""

import asyncio
import fcntl
import os
import re
import struct
import subprocess
import termios
from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from agentk.ui import main
from agentk.ui.screen import Pane, Screen
from tests.flows import household
from tests.flows.household import Space, python
from tests.flows.test_approvals import pending, policy
from tests.flows.test_hands import Terminal
from tests.flows.test_machine import back, machine
from tests.flows.test_react import calls, react, route, says

pytestmark = household.needs

HOSTILE = "[bold red]wiped[/] \x1b[2J\x1b]0;owned\x07"


def clerk(space: Space) -> None:
    """It keeps a routine, invokes it, and waits for what is typed."""
    space.apply(
        route(
            calls(("remember", {"name": "card", "value": "Greet and sign."}), turn=1),
            calls(
                ("remember", {"name": "hi", "value": "exec: (a) => `Hi ${a}`"}),
                ("invoke", {"name": "hi", "args": "Ada"}),
                ("act", {"channel": "terminal", "content": f"I wait. {HOSTILE}"}),
                turn=2,
            ),
            calls(back("{{toolResult}}"), toolResult={"name": "wait", "contains": "[terminal]"}),
            calls(("wait", {})),
        ),
        machine("clerk", task="Wait.", stdin=True),
    )


async def until(pilot: Pilot[int], what: str, true: Callable[[], bool]) -> None:
    for _ in range(int(household.SECONDS * 20)):
        if true():
            return
        await pilot.pause(0.05)
    pytest.fail(f"never: {what}\n{shown(pilot)}")


def text(pilot: Pilot[int], pane: str) -> str:
    return pilot.app.query_one(f"#{pane}", Pane).text


def shown(pilot: Pilot[int]) -> str:
    return "\n".join(text(pilot, pane) for pane in ("conversation", "tree", "actions", "state"))


def thought(stream: str) -> bool:
    """Whether one is there with its time and its tokens."""
    return any(re.search(r"think .* ok +[0-9.]+m?s  [0-9,]+ tokens", line) for line in stream.splitlines())


async def typed(pilot: Pilot[int], words: str) -> None:
    pilot.app.query_one(Input).value = words
    pilot.app.query_one(Input).focus()
    await pilot.press("enter")


def test_a_machine_is_watched_typed_to_and_wiped(space: Space) -> None:
    clerk(space)

    async def story(screen: Screen) -> None:
        async with screen.run_test(size=(150, 50)) as pilot:
            await until(pilot, "it waits", lambda: "I wait." in text(pilot, "conversation"))
            await until(pilot, "M is seen", lambda: "M  2 of" in text(pilot, "state"))
            said = text(pilot, "conversation")
            assert "[bold red]wiped[/]" in said and "\x1b" not in said and '>    hi("Ada")' in said
            assert text(pilot, "tree").splitlines() == ["main", '  hi("Ada")  = Hi Ada']
            await until(pilot, "a thought is told", lambda: thought(text(pilot, "actions")))
            state = text(pilot, "state")
            assert all(one in state for one in ("Running", "card  note", "hi  skill", "T tools", "W work"))
            await keys(pilot)
            await typed(pilot, "/mem greet")
            await until(pilot, "it is found", lambda: "Greet and sign." in text(pilot, "conversation"))
            await typed(pilot, "/drop")
            await until(pilot, "it is no order", lambda: "/drop is no order" in text(pilot, "conversation"))
            await typed(pilot, "/wipe")
            await until(pilot, "it asks", lambda: "type /wipe yes" in text(pilot, "conversation"))
            assert "hi" in space.agentk("memory", "ls", "clerk").out
            await typed(pilot, "/wipe yes")
            await until(pilot, "M is empty", lambda: "M  0 of" in text(pilot, "state"))
            await typed(pilot, "go on [red]")
            await until(pilot, "it has ended", lambda: "Succeeded" in text(pilot, "state"))
            assert "you  go on [red]" in text(pilot, "conversation")
            await typed(pilot, "/quit")
        assert screen.return_value == 0

    asyncio.run(story(main.screen(space.home.places.socket, space.name, "clerk")))
    assert space.phase("clerk", "Succeeded", "Failed")["result"] == '"[terminal] go on [red]"'
    assert "No pages" in space.agentk("memory", "ls", "clerk").err


async def keys(pilot: Pilot[int]) -> None:
    """Tab goes round; a pane that somebody scrolled stays there until G."""
    for pane in ("conversation", "tree", "actions", "state"):
        await pilot.press("tab")
        assert pilot.app.focused is pilot.app.query_one(f"#{pane}")
    pane = pilot.app.query_one("#conversation", Pane)
    screen = pilot.app
    assert isinstance(screen, Screen)
    screen._seen.tell("tells", "\n".join(f"line {number}" for number in range(150)))
    await until(
        pilot, "it is at its end", lambda: pane.max_scroll_y > 50 and pane.scroll_y == pane.max_scroll_y
    )
    pane.focus()
    await pilot.press("pageup", "up")
    await until(pilot, "it scrolled", lambda: pane.scroll_y < pane.max_scroll_y - 10)
    before = pane.scroll_y
    screen._seen.tell("tells", "one more")
    await until(pilot, "it is drawn", lambda: "one more" in text(pilot, "conversation"))
    assert pane.scroll_y <= before < pane.max_scroll_y
    await pilot.press("G")
    await until(pilot, "it is at its end again", lambda: pane.scroll_y == pane.max_scroll_y)


def test_on_a_terminal_it_opens_and_plain_or_a_pipe_is_as_ever(space: Space) -> None:
    space.apply(
        route(calls(("nothing", {}), turn=1), says("Done.", turn=2)),
        react("triage", task="Go."),
    )
    space.phase("triage", "Succeeded", "Failed")
    fd, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    before = termios.tcgetattr(slave)
    told = space.home.environment | {"AGENTK_NAMESPACE": space.name, "TERM": "xterm-256color"}
    command = [*household.AGENTK, "attach", "triage"]
    with subprocess.Popen(command, env=told, preexec_fn=lambda: os.login_tty(os.dup(slave))) as process:
        drawn = b""
        while b"Conversation" not in drawn or b"answer after" not in drawn:
            drawn += os.read(fd, 65536)
        os.write(fd, b"/quit\r")
        os.set_blocking(fd, False)
        household.until("it is left", lambda: _drained(fd) and process.poll() is not None)
    assert process.returncode == 0 and termios.tcgetattr(slave) == before
    plainly = subprocess.run(
        [*command, "--plain"], env=told, stdin=slave, stdout=slave, stderr=subprocess.PIPE
    )
    assert plainly.returncode == 125 and b"not running" in plainly.stderr
    os.close(slave)
    os.close(fd)
    piped = space.agentk("attach", "triage", code=None)
    assert piped.code == 125 and "not running" in piped.err and "\x1b" not in piped.out


ECHOES = """
import sys
for line in sys.stdin:
    sys.stdout.buffer.write(line.strip().encode().decode("unicode_escape").encode("latin-1") + b"\\r\\n")
    sys.stdout.flush()
"""


def test_a_terminal_is_shown_what_is_hostile_and_a_pipe_is_told_it(space: Space) -> None:
    space.create(python("a", ECHOES, stdin=True))
    space.running("a")
    with Terminal(space, "attach", "-i", "a") as shown:
        shown.type("\\x1b]0;owned\\x07\\x9b31m\\x1b[2J then\\xc3\\xa9\r")
        shown.until("\\x1b[2J then\u00e9")
        # What was typed is echoed by the terminal itself, with its backslashes.
        assert not {0x1B, 0x07, 0x9B} & {*shown.said}, shown.said
    command = [*household.AGENTK, "attach", "-i", "a", "-n", space.name]
    with subprocess.Popen(
        command, env=space.home.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as piped:
        assert piped.stdin is not None and piped.stdout is not None
        piped.stdin.write(b"\\x1b[2J\n")
        piped.stdin.flush()
        assert piped.stdout.readline() == b"\x1b[2J\r\n"
        piped.kill()
    with Terminal(space, "attach", "a") as shown:
        shown.until("Conversation")
        shown.resize(40, 10)
        shown.until("a line for the agent")
        shown.type("/quit\r")
        assert shown.process.wait(household.SECONDS) == 0
    assert space.status("a")["phase"] == "Running"


def test_calls_that_wait_for_a_person_are_seen_and_answered(space: Space) -> None:
    def runs(code: str, turn: int) -> Any:
        return calls(("exec", {"code": code}), turn=turn)

    space.apply(
        policy(space.name),
        route(runs("print(6 * 7)", 1), runs("print('no')", 2), calls(back("{{toolResult}}"))),
        machine("clerk", task="Ask.", policyRef={"name": space.name}),
    )

    async def story(screen: Screen) -> None:
        async with screen.run_test(size=(150, 50)) as pilot:
            await until(pilot, "it is asked", lambda: "/approve clerk-" in text(pilot, "state"))
            first = pending(space)[0]
            await typed(pilot, "/approve")
            await until(pilot, "it is shown", lambda: "code: print(6 * 7)" in text(pilot, "conversation"))
            assert pending(space) == [first] and f"say which one: {first}" in text(pilot, "conversation")
            await typed(pilot, f"/approve {first[-6:]}")
            await until(pilot, "it is approved", lambda: f"{first}: approved" in text(pilot, "conversation"))
            await until(
                pilot,
                "it asks again",
                lambda: first not in text(pilot, "state") and "/approve" in text(pilot, "state"),
            )
            second = pending(space)[0]
            await typed(pilot, f"/deny {second} not today")
            await until(pilot, "it is over", lambda: "Succeeded" in text(pilot, "state"))
            assert "/approve" not in text(pilot, "state")

    asyncio.run(story(main.screen(space.home.places.socket, space.name, "clerk")))
    assert "not today" in (space.phase("clerk", "Succeeded")["result"] or "")
    assert any(line.endswith("-> 42") for line in space.log("clerk"))
    space.agentk("delete", "policy", space.name)


def _drained(fd: int) -> bool:
    try:
        while os.read(fd, 65536):
            pass
    except OSError:
        pass
    return True


def test_the_daemon_dies_while_somebody_looks_on(alone: Space) -> None:
    clerk(alone)

    async def story(screen: Screen) -> None:
        async with screen.run_test(size=(150, 50)) as pilot:
            await until(pilot, "it waits", lambda: "I wait." in text(pilot, "conversation"))
            said = text(pilot, "conversation").count("I wait.")
            alone.home.kill("daemon")
            alone.home.answers()
            await until(pilot, "it is seen again", lambda: not screen._seen.trouble)
            for tried in range(2000):
                if "Succeeded" in text(pilot, "state"):
                    break
                if tried % 100 == 0:  # again: the box may not have been found again
                    await typed(pilot, "go on")
                await pilot.pause(0.05)
            await until(pilot, "its log says so", lambda: "has ended" in text(pilot, "conversation"))
            assert "answer after" in text(pilot, "conversation")
            assert text(pilot, "conversation").count("I wait.") == said

    asyncio.run(story(main.screen(alone.home.places.socket, alone.name, "clerk")))


def test_nothing_is_drawn_of_a_screen_that_is_taken_down(space: Space) -> None:
    space.apply(route(calls(back("done"))), machine("clerk", task="Ask."))
    space.phase("clerk", "Succeeded")

    async def story(screen: Screen) -> None:
        async with screen.run_test(size=(150, 50)) as pilot:
            await until(pilot, "it is drawn", lambda: "Succeeded" in text(pilot, "state"))
            await screen.query(Pane).remove()
            screen.draw()

    asyncio.run(story(main.screen(space.home.places.socket, space.name, "clerk")))
