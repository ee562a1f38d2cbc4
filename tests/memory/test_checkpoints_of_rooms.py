"""Rooms taken and brought back: byte for byte, within limits, and never with what was forgotten."""

import tempfile
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentk.memory import checkpoints, database, forgetting, keeping, pages
from agentk.memory.driver import Conn
from tests.memory.rooms import WIDE, ask, bytes_of, opened, say

STEPS = st.lists(
    st.tuples(st.sampled_from(["say", "name", "use", "pin", "forget", "take", "bring"]), st.integers(0, 9)),
    max_size=40,
)


def test_a_room_comes_back_as_it_was_and_as_a_copy_elsewhere(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room, other = keeping.room(conn, "m", "a", "a"), keeping.room(conn, "m", "b", "b")
        say(conn, room, "the red door", name="door")
        kept = keeping.fresh("tool", "seen", 3, content=b"\xff\x00", tags=("x",))
        keeping.put(conn, room, kept, WIDE, keeping.Told("c" * 8, {"by": "agent"}))
        keeping.touched(conn, [kept.id], kept.used + 5)
        before = keeping.conversation(conn, room.id)
        told = checkpoints.take(conn, room, "c1", 1.0, WIDE)
        assert told == checkpoints.take(conn, room, "c1", 2.0, WIDE) and told.pages == 2
        say(conn, room, "the blue door", name="door")
        keeping.pin(conn, [room.id], kept.id, True)
        assert checkpoints.bring(conn, "c1", room, WIDE) == checkpoints.Brought(2, 1)
        assert keeping.conversation(conn, room.id) == before
        assert checkpoints.bring(conn, "c1", room, WIDE) == checkpoints.Brought(2, 0)
        assert ask(conn, [room], "red door") == ["the red door"]
        assert checkpoints.bring(conn, "c1", other, WIDE) == checkpoints.Brought(2, 0)
        assert checkpoints.bring(conn, "c1", other, WIDE) == checkpoints.Brought(2, 0)
        copied = keeping.conversation(conn, other.id)
        assert [page.content for page in copied] == [page.content for page in before]
        assert not {page.id for page in copied} & {page.id for page in before}
        assert keeping.origin(conn, copied[1].id) == {"page": kept.id, "by": "agent"}


def test_more_pages_than_a_statement_has_places_are_let_go_of(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        conn.limit(apsw.SQLITE_LIMIT_VARIABLE_NUMBER, 40)  # type: ignore[attr-defined]
        room = keeping.room(conn, "m", "a", "a")
        checkpoints.take(conn, room, "c0", 1.0, WIDE)
        unit = pages.new_id()
        many = [keeping.fresh("tool", f"zanzibar {n}", 1, unit=unit) for n in range(100)]
        for page in many:
            keeping.put(conn, room, page, WIDE, keeping.Told(f"e{page.id}"))
        checkpoints.take(conn, room, "c1", 2.0, WIDE)
        assert checkpoints.bring(conn, "c0", room, WIDE) == checkpoints.Brought(0, 100)
        assert checkpoints.bring(conn, "c1", room, WIDE) == checkpoints.Brought(100, 0)
        gone = forgetting.forget(conn, [room.id], [many[0].id])
        assert {*gone.ids} == {page.id for page in many} and len(gone.effects) == 100
        assert {*forgetting.pending(conn, 0.0)} == {*gone.effects}, "who dies now goes on with them"
        forgetting.erased(conn, gone.effects, 1.0)
        assert keeping.conversation(conn, room.id) == [] and forgetting.pending(conn, 0.5) == []
        assert checkpoints.taken(conn, "c1") == checkpoints.Taken(0, 0)


def test_what_is_forgotten_is_in_no_checkpoint_and_in_no_file(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        first = keeping.fresh("note", "zanzibar-one", 1, name="where")
        keeping.put(conn, room, first, WIDE, keeping.Told("e1"))
        checkpoints.take(conn, room, "c1", 1.0, WIDE)
        keeping.put(
            conn, room, keeping.fresh("note", "zanzibar-two", 1, name="where"), WIDE, keeping.Told("e2")
        )
        checkpoints.take(conn, room, "c2", 2.0, WIDE)
        say(conn, room, "stays")
        gone = forgetting.forget(conn, [room.id], [], ["where"])
        assert gone.checkpoints == 2 and first.id in gone.ids and {*gone.effects} == {"e1", "e2"}
        assert checkpoints.taken(conn, "c1") == checkpoints.taken(conn, "c2") == checkpoints.Taken(0, 0)
        database.checkpoint(conn)
        assert b"zanzibar" not in bytes_of(tmp_path)
        assert checkpoints.bring(conn, "c1", room, WIDE) == checkpoints.Brought(0, 1)


def test_what_only_a_checkpoint_has_is_forgotten_with_its_records(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        checkpoints.take(conn, room, "c0", 1.0, WIDE)
        page = keeping.fresh("note", "madagascar", 1)
        keeping.put(conn, room, page, WIDE, keeping.Told("e1"))
        checkpoints.take(conn, room, "c1", 1.0, WIDE)
        forgetting.mention(conn, [page.id], "e2", 1.0)
        checkpoints.bring(conn, "c0", room, WIDE)
        assert keeping.conversation(conn, room.id) == []
        gone = forgetting.forget(conn, [room.id], [page.id])
        assert (gone.ids, gone.effects, gone.checkpoints) == ((page.id,), ("e1", "e2"), 1)
        database.checkpoint(conn)
        assert b"madagascar" not in bytes_of(tmp_path)


def test_notes_that_quote_go_from_checkpoints_and_from_what_was_brought_back(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room, other = keeping.room(conn, "m", "a", "a"), keeping.room(conn, "m", "b", "b")
        said = say(conn, room, "it is zanzibar")
        note = say(conn, room, "somebody said zanzibar")
        columns = "id, room, made, used, budget, fixed, counts, last"
        conn.execute(f"INSERT INTO windows ({columns}) VALUES (1, ?, 0, 0, 0, 0, '{{}}', x'')", (room.id,))
        columns = "(1, 1, ?, 'user', x'', x'', 1, 1, 1, 1, ?, 0, 0, 0, 0, 0, ?, 0, 0, 0, 0)"
        conn.execute(f"INSERT INTO window_pages VALUES {columns}", (said, said, note))
        checkpoints.take(conn, room, "c1", 1.0, WIDE)
        conn.execute("DELETE FROM windows")
        checkpoints.bring(conn, "c1", other, WIDE)
        copied = keeping.conversation(conn, other.id)[0].id
        assert len(forgetting.forget(conn, [other.id], [copied]).ids) == 2
        assert forgetting.forget(conn, [room.id], [said]) == forgetting.Gone((said, note), (), 1)
        database.checkpoint(conn)
        assert b"zanzibar" not in bytes_of(tmp_path)


def test_copies_count_and_go_with_their_checkpoint_and_their_room(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        say(conn, room, "x" * 600)
        narrow = replace(WIDE, bytes=1000)
        conn.execute("SAVEPOINT one")
        with pytest.raises(keeping.Full, match=r"limits\.bytes"):
            checkpoints.take(conn, room, "c1", 1.0, narrow)
        conn.execute("ROLLBACK TO one")
        conn.execute("RELEASE one")
        checkpoints.take(conn, room, "c1", 1.0, WIDE)
        checkpoints.take(conn, room, "c2", 1.0, WIDE)
        assert _saved(conn, room) == 600
        checkpoints.drop(conn, "c1")
        assert _saved(conn, room) == 600 and checkpoints.all_of(conn) == ["c2"]
        checkpoints.drop(conn, "c2")
        checkpoints.drop(conn, "c2")
        assert _saved(conn, room) == 0
        checkpoints.take(conn, room, "c3", 1.0, WIDE)
        while forgetting.room(conn, room.id).ids:
            continue
        assert checkpoints.all_of(conn) == []


def test_retention_reaches_what_only_checkpoints_have(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        say(conn, room, "old", name="n", used=10.0)
        say(conn, room, "kept", pinned=True, used=10.0)
        checkpoints.take(conn, room, "c1", 1.0, WIDE)
        say(conn, room, "new", name="n", used=100.0)
        assert len(forgetting.old(conn, room.id, 50.0).ids) == 1
        assert checkpoints.taken(conn, "c1") == checkpoints.Taken(1, 4)
        assert forgetting.old(conn, room.id, 50.0).ids == ()


@settings(max_examples=30, deadline=None)
@given(STEPS)
def test_a_checkpoint_has_what_there_was_but_what_was_forgotten(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as conn:
        room = keeping.room(conn, "m", "a", "a")
        taken: list[list[keeping.Page]] = []
        for at, (what, number) in enumerate(steps):
            there = keeping.conversation(conn, room.id)
            some = there[number % len(there)] if there else None
            if what in ("say", "name"):
                say(conn, room, f"w{at}", name=f"n{number % 2}" if what == "name" else "")
            elif what == "take":
                checkpoints.take(conn, room, f"c{len(taken)}", 1.0, WIDE)
                taken.append(there)
            elif what == "bring" and taken:
                checkpoints.bring(conn, f"c{number % len(taken)}", room, WIDE)
                assert keeping.conversation(conn, room.id) == taken[number % len(taken)]
            elif some and what == "use":
                keeping.touched(conn, [some.id], 1e10 + at)
            elif some and what == "pin":
                keeping.pin(conn, [room.id], some.id, not some.pinned)
            elif some and what == "forget":
                gone = {*forgetting.forget(conn, [room.id], [some.id]).ids}
                assert some.id in gone
                taken = [[page for page in pages if page.id not in gone] for pages in taken]
        for number, pages in enumerate(taken):
            checkpoints.bring(conn, f"c{number}", room, WIDE)
            assert keeping.conversation(conn, room.id) == pages


def _saved(conn: Conn, room: keeping.Room) -> int:
    return int(conn.execute("SELECT saved FROM rooms WHERE id = ?", (room.id,)).fetchone()[0])
