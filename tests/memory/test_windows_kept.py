"""Windows on the disk: found again by what was said, shared by none, and gone with what they were made of."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.memory import contexts, driver, forgetting, keeping, tables, turning
from agentk.memory.driver import Conn
from agentk.memory.keeping import Limits, Room
from agentk.memory.pages import Page
from tests.memory import talking
from tests.memory.talking import Talk

LIMITS = Limits(10_000, 10**8, 10_000, 10**8)


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Conn]:
    made = driver.connect(tmp_path / "memory.db")
    tables.migrate(made)
    yield made
    made.close()


def spoken(turns: int = 40, size: int = 1_000) -> Talk:
    talk = Talk("openai.chat", talking.settings(size))
    for n in range(turns):
        talk.say({"role": "user", "content": f"Number {n}: what of it? {'x' * 40}"})
        talk.send()
        talk.say({"role": "assistant", "content": f"It is number {n}. {'y' * 40}"})
    return talk


def keep(conn: Conn, room: Room, talk: Talk, before: contexts.Known | None = None) -> int:
    """As the gate does it."""
    for slot in talk.window.slots:
        content = talk.kept[slot.id]
        page = Page(
            slot.id,
            slot.kind,
            content,
            content.decode(),
            slot.tokens,
            slot.importance,
            0,
            1.0,
            1.0,
            0,
            slot.unit,
            slot.pinned,
            "",
            (),
        )
        keeping.put(conn, room, page, LIMITS)
    for note in talk.window.notes:
        keeping.put(
            conn, room, keeping.fresh("episode", talk.notes[note.id], 1, id=note.id, unit=note.id), LIMITS
        )
    return contexts.save(conn, room.id, before, talk.window, talk.now, budget=1_000, fixed=20)


def test_a_window_comes_back_as_it_was(conn: Conn) -> None:
    room, talk = keeping.room(conn, "m", "a", "a"), spoken()
    number = keep(conn, room, talk)
    chains = [slot.chain for slot in talk.window.slots]
    found = contexts.find(conn, room.id, [*chains, b"new"])
    assert found is not None and found.window == talk.window
    assert (found.id, found.budget, found.fixed) == (number, 1_000, 20)
    assert any(not slot.resident for slot in found.window.slots) and found.window.notes
    assert contexts.find(conn, keeping.room(conn, "m", "b", "b").id, chains) is None, "another agent's"


def test_what_a_turn_changed_is_written_over_what_was(conn: Conn) -> None:
    room, talk = keeping.room(conn, "m", "a", "a"), spoken(20)
    keep(conn, room, talk)
    for _ in range(20):
        before = contexts.find(conn, room.id, [slot.chain for slot in talk.window.slots])
        assert before is not None and before.window == talk.window
        talk.say({"role": "user", "content": "and more " * 9})
        talk.send()
        keep(conn, room, talk, before)
    assert len(contexts.newest(conn, [room.id])) == 1


def test_the_longest_beginning_is_found_and_a_branch_leaves_the_other_alone(conn: Conn) -> None:
    room, talk = keeping.room(conn, "m", "a", "a"), spoken(30)
    keep(conn, room, talk)
    whole = talk.window
    other = turning.parted(whole, 11)
    contexts.save(conn, room.id, None, other, 2_000.0)
    found = contexts.find(conn, room.id, [slot.chain for slot in whole.slots[:11]])
    assert found and found.window == other
    found = contexts.find(conn, room.id, [slot.chain for slot in whole.slots[:12]])
    assert found and found.window == whole


def test_a_window_goes_with_a_page_of_it_that_is_forgotten(conn: Conn) -> None:
    room, talk = keeping.room(conn, "m", "a", "a"), spoken(5)
    keep(conn, room, talk)
    forgetting.forget(conn, [room.id], [talk.window.slots[3].id])
    assert contexts.newest(conn, [room.id]) == []
    assert conn.execute("SELECT count(*) FROM window_pages").fetchone() == (0,)


def test_with_a_page_go_the_note_that_quotes_it_and_what_the_journal_has_of_its_window(conn: Conn) -> None:
    room, talk = keeping.room(conn, "m", "a", "a"), spoken(40)
    number = keep(conn, room, talk)
    contexts.used(conn, number, "effect-1", 100, 0, 1.0)
    left = next(slot for slot in talk.window.slots if slot.note)
    gone = forgetting.forget(conn, [room.id], [left.id])
    assert left.note in gone.ids and gone.effects == ("effect-1",)
    assert keeping.get(conn, [room.id], [left.id, left.note]) == []
    assert forgetting.pending(conn, 0.0) == ["effect-1"]


def test_old_windows_go_with_the_pages_that_only_they_had(conn: Conn) -> None:
    room, talk = keeping.room(conn, "m", "a", "a"), spoken(10)
    keep(conn, room, talk)
    branch = turning.parted(talk.window, 4)
    number = contexts.save(conn, room.id, None, branch, 2_000.0)
    assert contexts.let_go(conn, room.id, 1, but=number)
    left = conn.execute("SELECT id FROM pages ORDER BY seq").fetchall()
    assert [one for (one,) in left] == [slot.id for slot in branch.slots]
    assert not contexts.let_go(conn, room.id, 1, but=number)


def test_a_page_that_is_kept_is_byte_for_byte_what_was_said(conn: Conn) -> None:
    room, talk = keeping.room(conn, "m", "a", "a"), Talk("openai.chat", talking.settings(2_000))
    talk.say(*talking.user("", 'é\u2028"\\ 🦊 \ud83d'.encode("utf-8", "replace").decode()))
    talk.say(*talking.tools("openai.chat", ["x\n", "y"], 1))
    talk.send()
    keep(conn, room, talk)
    ids = [slot.id for slot in talk.window.slots]
    assert [page.content for page in keeping.get(conn, [room.id], ids)] == [talk.kept[one] for one in ids]
