"""Whatever agents keep, replace, forget and ask: nobody is told of a page of another's."""

import contextlib
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agentk.memory import embedding, forgetting, keeping, pages, search
from tests.memory.rooms import opened, say

WORDS = st.lists(
    st.sampled_from(["red", "apple", "code", "4711", "\u00e4", '"', "OR", "room1x", "*"]),
    min_size=1,
    max_size=4,
)
OWNERS = ("a", "b", "c")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["say", "name", "forget", "ask", "get"]),
        st.sampled_from(OWNERS),
        WORDS,
        st.integers(0, 9),
    ),
    max_size=30,
)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_rooms_are_apart_whatever_happens(steps: list[tuple[str, str, list[str], int]]) -> None:
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as conn:
        rooms = {owner: keeping.room(conn, "m", owner, owner) for owner in OWNERS}
        held: dict[str, dict[str, str]] = {owner: {} for owner in OWNERS}  # id to text
        ids: list[str] = []
        for what, owner, words, number in steps:
            room, text = rooms[owner], " ".join(words)
            if what in ("say", "name"):
                name = f"n{number % 3}" if what == "name" else ""
                for page in keeping.named(conn, [room.id], [name] if name else []):
                    del held[owner][page.id]
                made = say(conn, room, text, name=name)
                held[owner][made] = text
                ids.append(made)
            elif what == "forget" and ids:
                one = ids[number % len(ids)]
                gone = forgetting.forget(conn, [room.id], [one]).ids
                assert gone == ((one,) if one in held[owner] else ())
                held[owner].pop(one, None)
            elif what == "ask":
                near = {embedding.name(): embedding.hashed(text)}
                hits = search.search(conn, [room.id], search.Asked(text, near=near))
                assert {hit.page.id for hit in hits} <= set(held[owner])
            elif what == "get":
                told = keeping.get(conn, [room.id], ids)
                assert {page.id: page.text for page in told} == held[owner]
        for owner, room in rooms.items():
            there = keeping.find(conn, "m", owner)
            assert there is not None and there.pages == len(held[owner])
            assert [page.text for page in keeping.conversation(conn, room.id)] == list(held[owner].values())


def test_a_flood_ends_at_the_limit_and_not_before(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        tight = keeping.Limits(pages=50, bytes=10_000, total_pages=60, total_bytes=20_000)
        kept = 0
        for number in range(200):
            with contextlib.suppress(keeping.Full, pages.Unusable):
                say(conn, room, "x" * (number % 40 * 10), tight)
                kept += 1
        there = keeping.find(conn, "m", "a")
        assert there is not None and there.pages == kept == 50 and there.bytes <= 10_000
