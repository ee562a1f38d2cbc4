"""memory.db: pages come back as they were, are found by words and by nearness, and are gone when they are forgotten."""

import asyncio
import contextlib
import math
import secrets
import threading
from array import array
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.memory import (
    checkpoints,
    database,
    driver,
    embedding,
    forgetting,
    keeping,
    moving,
    pages,
    search,
    tables,
    vectors,
)
from tests.memory import rooms
from tests.memory.rooms import WIDE, ask, opened, say


def test_what_is_kept_comes_back_byte_for_byte_and_in_order(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        contents = [b"", b"\xff\x00\xfe", "ä\r\n".encode(), secrets.token_bytes(100_000)]
        for content in contents:
            keeping.put(conn, room, keeping.fresh("tool", "words", 3, content=content, tags=("t",)), WIDE)
    with opened(tmp_path) as conn:
        told = keeping.conversation(conn, room.id)
        assert [page.content for page in told] == contents
        assert [page.seq for page in told] == [1, 2, 3, 4]


def test_no_room_sees_another_by_id_by_name_by_words_or_by_nearness(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        mine, other = (keeping.room(conn, "m", owner, owner) for owner in ("mine", "other"))
        there = say(conn, other, "the launch code is kumquat", name="code")
        say(conn, mine, "nothing to see")
        assert keeping.get(conn, [mine.id], [there]) == []
        assert keeping.named(conn, [mine.id], ["code"]) == []
        assert ask(conn, [mine], "launch code kumquat", at_least=0.3) == []
        assert forgetting.forget(conn, [mine.id], [there], ["code"]) == forgetting.NOTHING
        assert ask(conn, [mine, other], "kumquat")[0] == "the launch code is kumquat"


def test_words_and_nearness_are_fused(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        for text in ("deploying fails on Tuesdays", "the cat sat", "invoices are due on Monday", "x y z"):
            say(conn, room, text)
        hits = search.search(
            conn,
            [room.id],
            search.Asked("why did the deploy fail", near={embedding.name(): embedding.hashed("deploy fail")}),
        )
        assert hits[0].page.text == "deploying fails on Tuesdays"
        assert hits[0].by == ("vector", "words")


@pytest.mark.parametrize(
    "query",
    [
        '"',
        'a" OR stem:"room2x',
        "NEAR(a b)",
        "text:secret*",
        "-x ^y (",
        "AND OR NOT",
        "\x00",
        "{stem}:",
        "\ud800",
        "'--",
    ],
)
def test_a_query_is_text_and_never_syntax(tmp_path: Path, query: str) -> None:
    with opened(tmp_path) as conn:
        mine, other = (keeping.room(conn, "m", owner, owner) for owner in ("mine", "other"))
        say(conn, other, "secret a b x y stem room2x")
        say(conn, mine, "plain")
        assert set(ask(conn, [mine], query)) <= {"plain"}
        long = search.Asked(query * 100_000, limit=10**9)
        assert len(search.search(conn, [mine.id], long)) <= 1


def test_words_that_all_pages_have_stand_in_front_of_no_other(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        say(conn, room, "kumquats are orange")
        for number in range(30):
            say(conn, room, f"the thing of the day is number {number}")
        assert search.by_words(conn, [room.id], "what of the kumquats", 5) == [1]
        assert len(search.by_words(conn, [room.id], "the", 5)) == 5
        assert search.by_words(conn, [room.id], "the", 5, common=False) == []


def test_filters_hold_for_words_and_for_nearness(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        say(conn, room, "red apple", tags=("fruit", "red"), created=10.0)
        say(conn, room, "green apple", tags=("fruit",), created=20.0)
        say(conn, room, "apple computer", created=30.0)
        assert set(ask(conn, [room], "apple", only=keeping.Filter(tags=("fruit",)))) == {
            "red apple",
            "green apple",
        }
        assert ask(conn, [room], "apple", only=keeping.Filter(tags=("fruit", "red"))) == ["red apple"]
        assert ask(conn, [room], "apple", only=keeping.Filter(since=15, until=25)) == ["green apple"]
        assert ask(conn, [room], "apple", only=keeping.Filter(kinds=("episode",))) == []


def test_forgetting_leaves_no_byte_of_it_in_any_file(tmp_path: Path) -> None:
    secret = "xylophone" + secrets.token_hex(12)
    text = f"the password is {secret}, says {secret * 300}"
    vector = embedding.hashed(text)
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        for number in range(200):
            say(conn, room, f"filler {number} {'lorem ipsum ' * 40}")
        said = say(conn, room, text, name=secret, tags=(secret,))
        there = rooms.bytes_of(tmp_path)
        pieces = [vector[at : at + 32] for at in range(0, len(vector), 32) if any(vector[at : at + 32])]
        assert secret.encode() in there and sum(piece in there for piece in pieces) > len(pieces) / 2
        assert forgetting.forget(conn, [room.id], [said]).ids == (said,)
        assert database.checkpoint(conn)
        left = rooms.bytes_of(tmp_path)
        assert secret.encode() not in left and secret[9:].encode() not in left
        assert not any(piece in left for piece in pieces)
        assert len(keeping.conversation(conn, room.id)) == 200


def test_with_a_page_go_records_of_who_kept_it_told_it_or_replaced_it(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        for number in range(2):
            page = keeping.fresh("note", f"the door is {number}", 1, name="door")
            keeping.put(conn, room, page, WIDE, keeping.Told(f"kept {number}"))
            forgetting.mention(conn, [page.id], f"told {number}", 1.0)
        forgetting.mention(conn, [say(conn, room, "stays")], "told of another", 1.0)
        gone = forgetting.forget(conn, [room.id], [page.id])
        assert gone.effects == ("kept 0", "kept 1", "told 0", "told 1")
        assert forgetting.pending(conn, 0.0) == [*gone.effects]


def test_what_replaces_a_name_is_what_it_means(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        old = say(conn, room, "blue", name="colour")
        new = keeping.put(conn, room, keeping.fresh("note", "red", 1, name="colour"), WIDE)
        assert new.replaced == old
        assert [page.text for page in keeping.named(conn, [room.id], ["colour"])] == ["red"]
        assert ask(conn, [room], "blue", at_least=0.5) == []


def test_the_same_id_again_is_kept_once_and_is_nobody_elses(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        mine, other = (keeping.room(conn, "m", owner, owner) for owner in ("mine", "other"))
        page = keeping.fresh("note", "once", 1)
        for _ in range(2):
            keeping.put(conn, mine, page, WIDE)
        with pytest.raises(pages.Unusable):
            keeping.put(conn, other, page, WIDE)
        assert [one.text for one in keeping.conversation(conn, mine.id)] == ["once"]


def test_limits_hold_for_a_family_and_for_a_memory(tmp_path: Path) -> None:
    tight = keeping.Limits(pages=3, bytes=100, total_pages=4, total_bytes=1000)
    with opened(tmp_path) as conn:
        parent, child = keeping.room(conn, "m", "a", "a"), keeping.room(conn, "m", "a.1", "a")
        for room in (parent, child, child):
            say(conn, room, "x", tight)
        for room in (parent, child):
            with pytest.raises(keeping.Full):
                say(conn, room, "one more", tight)
        stranger = keeping.room(conn, "m", "b", "b")
        with pytest.raises(keeping.Full):
            say(conn, stranger, "y" * 101, tight)
        say(conn, stranger, "fits", tight)
        with pytest.raises(keeping.Full):
            say(conn, stranger, "too many altogether", tight)


def test_a_unit_is_forgotten_as_one(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        unit = pages.new_id()
        call = say(conn, room, "call", unit=unit)
        say(conn, room, "result", unit=unit)
        say(conn, room, "alone")
        assert len(forgetting.forget(conn, [room.id], [call]).ids) == 2
        assert [page.text for page in keeping.conversation(conn, room.id)] == ["alone"]


@pytest.mark.parametrize("values", [[math.nan, 1.0], [math.inf], [], [1.0] * 9000, ["x"], [1e400]])
def test_what_is_no_vector_gets_in_nowhere(values: list[float]) -> None:
    with pytest.raises(pages.Unusable):
        vectors.packed(values)


def test_a_vector_has_length_one_however_large_or_small_it_came() -> None:
    for scale in (1e-300, 1.0, 1e300):
        assert list(array("f", vectors.packed([3 * scale, 4 * scale]))) == pytest.approx([0.6, 0.8])
    assert vectors.packed([0.0, 0.0]) == b""
    assert embedding.hashed("?!") == b""


def test_while_a_room_is_embedded_anew_both_shelves_are_searched(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        for text in ("violins and cellos", "trumpets and horns"):
            say(conn, room, text)
        new = embedding.name(64)
        number, text = vectors.behind(conn, room.id, new, 1)[0]
        vectors.shelve(conn, room.id, number, new, embedding.hashed(text, 64))
        assert vectors.progress(conn, [room.id], new) == (1, 2)
        near = {embedding.name(): embedding.hashed("horns"), new: embedding.hashed("violin", 64)}
        hits = search.search(conn, [room.id], search.Asked("?", near=near))
        assert {hit.page.text for hit in hits} == {"violins and cellos", "trumpets and horns"}
        with pytest.raises(pages.Unusable, match="64 before"):
            vectors.shelve(conn, room.id, number, new, embedding.hashed(text, 32))


def test_pages_move_as_lines_with_where_they_came_from(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        old = keeping.room(conn, "m", "a", "a")
        unit = pages.new_id()
        say(conn, old, "first", name="n", tags=("t",), unit=unit)
        say(conn, old, "second", unit=unit, content=b"\xff\xfe")
        lines = [moving.line(page, {"by": "uid 7"}) for page in keeping.conversation(conn, old.id)]
        to = moving.Place("m2", "b")
        new = keeping.room(conn, to.memory, to.owner, "b")
        for _ in range(2):  # taken in twice, kept once
            for line in lines:
                page, origin = moving.parsed(line, "default/a", to)
                keeping.put(conn, new, page, WIDE, keeping.Told(origin=origin))
        there = keeping.conversation(conn, new.id)
        assert [(page.content, page.name, page.tags) for page in there] == [
            (b"first", "n", ("t",)),
            (b"\xff\xfe", "", ()),
        ]
        assert there[0].unit == there[1].unit != unit
        told = keeping.origin(conn, there[0].id)
        assert told == {"from": "default/a", "page": lines[0]["id"], "by": "uid 7"}


def test_a_page_that_nobody_used_for_long_goes_and_a_pinned_one_stays(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        say(conn, room, "old", used=1.0)
        say(conn, room, "old but pinned", used=1.0, pinned=True)
        say(conn, room, "new", used=100.0)
        forgetting.old(conn, room.id, 50.0)
        assert [page.text for page in keeping.conversation(conn, room.id)] == ["old but pinned", "new"]


def test_a_damaged_file_is_set_aside_and_a_newer_one_refused(tmp_path: Path) -> None:
    (tmp_path / database.DATABASE).write_bytes(b"no database at all" * 1000)
    opened_again = database.open_file(tmp_path)
    assert "set aside" in opened_again.notices[0] and list(tmp_path.glob("*.damaged-*"))
    opened_again.conn.execute("INSERT INTO migrations VALUES ('from_the_future', 0)")
    opened_again.conn.close()
    with pytest.raises(errors.Unavailable, match="newer agentk"):
        database.open_file(tmp_path)


def test_a_file_of_an_earlier_version_is_brought_up_to_date_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(conn: driver.Conn) -> None:
        conn.execute("CREATE TABLE half (a)")
        raise pages.Unusable("it dies")

    conn = driver.connect(tmp_path / database.DATABASE)
    monkeypatch.setattr(tables, "MIGRATIONS", (tables.pages, tables.windows, breaks))
    with pytest.raises(pages.Unusable):
        tables.migrate(conn)
    assert not conn.execute("SELECT 1 FROM sqlite_schema WHERE name = 'half'").fetchall()
    conn.execute("INSERT INTO rooms (memory, owner, account) VALUES ('m', 'a', 'a')")
    conn.execute(
        "INSERT INTO pages (id, room, kind, tokens, importance, accesses, created, used, seq, unit, pinned, name,"
        " tags, bytes, stem, text) VALUES ('p0123456789abcdef', 1, 'note', 1, 0.5, 0, 1, 1, 1, 'p0123456789abcdef',"
        " 0, '', '[]', 9, 'room1x', 'the red door')"
    )
    conn.close()
    monkeypatch.undo()
    with opened(tmp_path) as conn:
        had = {name for (name,) in conn.execute("SELECT name FROM migrations").fetchall()}
        assert had == {one.__name__ for one in tables.MIGRATIONS}
        room = keeping.room(conn, "m", "a", "a")
        assert ask(conn, [room], "red door") == ["the red door"] and room.pages == 1
        assert checkpoints.take(conn, room, "c", 1.0, WIDE) == checkpoints.Taken(1, 9)


async def _both(folder: Path) -> tuple[object, list[str]]:
    there = database.Database(folder)
    try:
        room = await there.write(lambda conn: keeping.room(conn, "m", "a", "a"))

        def fails(conn: driver.Conn) -> None:
            say(conn, room, "half")
            raise pages.Unusable("no")

        told = await asyncio.gather(
            *(there.write(lambda conn, n=n: say(conn, room, f"page {n}")) for n in range(100)),
            there.write(fails),
            return_exceptions=True,
        )
        assert await there.truncate()
        found = await there.read(lambda conn: [page.text for page in keeping.conversation(conn, room.id)])
        return told[-1], found
    finally:
        there.close()


def test_a_write_that_fails_undoes_itself_alone(tmp_path: Path) -> None:
    failed, found = asyncio.run(_both(tmp_path))
    assert isinstance(failed, pages.Unusable)
    assert found == [f"page {n}" for n in range(100)]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("memory.db*")} == {0o600}


def test_what_was_told_of_a_page_that_went_meanwhile_is_erased(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        kept, gone = (say(conn, room, text) for text in ("kept", "gone"))
        forgetting.forget(conn, [room.id], [gone])
        forgetting.mention(conn, [kept], "tells of what is there", 1.0)
        assert forgetting.pending(conn, 0.0) == []
        forgetting.mention(conn, [kept, gone], "tells of both", 1.0)
        assert forgetting.pending(conn, 0.0) == ["tells of both"]


def test_who_writes_little_waits_for_one_piece_of_who_writes_much(tmp_path: Path) -> None:
    began, goes_on, order = threading.Event(), threading.Event(), list[str]()

    def holds(conn: driver.Conn) -> None:
        began.set()
        assert goes_on.wait(60)

    async def act() -> None:
        with contextlib.closing(database.Database(tmp_path)) as db:
            first = asyncio.ensure_future(db.write(holds, "much"))
            await asyncio.to_thread(began.wait, 60)
            rest = [
                asyncio.ensure_future(
                    db.write(lambda conn, name=name, n=n: order.append(f"{name} {n}"), name)
                )
                for name, many in (("much", 5), ("little", 2), ("", 1))
                for n in range(many)
            ]
            await asyncio.sleep(0)
            goes_on.set()
            await asyncio.gather(first, *rest)

    asyncio.run(act())
    assert order == ["much 0", "little 0", " 0", "much 1", "little 1", "much 2", "much 3", "much 4"]


def test_only_who_looks_at_many_vectors_has_the_file_mapped(tmp_path: Path) -> None:
    """One page that is looked up in a mapped file reads ahead as far as the disk is set to."""

    def look(conn: driver.Conn) -> tuple[bool, int]:
        mapped = conn.execute("PRAGMA mmap_size").fetchone()[0] > 0
        return mapped, conn.execute("SELECT count(*) FROM pages").fetchone()[0]

    async def act() -> None:
        with opened(tmp_path) as conn:
            say(conn, keeping.room(conn, "m", "a", "a"), "kumquat")
        db = database.Database(tmp_path)
        try:
            told = [await db.read(look, scan=scan) for scan in (False, True, False)]
            assert told == [(False, 1), (True, 1), (False, 1)]
        finally:
            db.close()

    asyncio.run(act())
