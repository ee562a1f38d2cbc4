"""Rooms for tests of the memory: a database in a folder, and pages in it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentk.memory import database, driver, embedding, keeping, search
from agentk.memory.driver import Conn

WIDE = keeping.Limits(pages=10_000, bytes=2**30, total_pages=100_000, total_bytes=2**33)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Conn]:
    conn = database.open_file(folder).conn
    try:
        yield conn
    finally:
        conn.close()


def say(conn: Conn, room: keeping.Room, text: str, limits: keeping.Limits = WIDE, **more: Any) -> str:
    """Keep a note; its id."""
    page = keeping.fresh("note", text, 1, **more)
    vector = keeping.Vector(embedding.name(), embedding.hashed(text))
    return keeping.put(conn, room, page, limits, vector=vector).page.id


def ask(conn: Conn, rooms: list[keeping.Room], query: str, **more: Any) -> list[str]:
    """Texts found, the best first."""
    near = {embedding.name(): embedding.hashed(query)}
    asked = search.Asked(query, near=near, **more)
    return [hit.page.text for hit in search.search(conn, [room.id for room in rooms], asked)]


def bytes_of(folder: Path) -> bytes:
    """All that the files of the database hold."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob(f"{database.DATABASE}*")))


__all__ = ["ask", "bytes_of", "driver", "opened", "say"]
