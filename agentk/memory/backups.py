"""Copies of memory.db (`Database.copy`), looked at before they take its place.

They are copied block by block and never rebuilt: sqlite-vec finds its vectors by the numbers of their rows, which a
rebuilt database gives anew. So what is free in the copy is what is free in the database: zeros, since what is deleted
there is overwritten. The log is folded in; a copy is one file.
"""

from contextlib import closing
from pathlib import Path

from agentk.memory import driver, tables

# What a database does by itself when somebody reads it or writes to it.
_ACTS = "SELECT type, name, sql FROM sqlite_master WHERE type IN ('trigger', 'view')"


def wrong(file: Path) -> str:
    """Why a file from anywhere is no memory of ours; "" when it is. Nothing in it is run."""
    try:
        with closing(driver.plain(file, reading=True)) as conn:
            conn.execute("PRAGMA trusted_schema = OFF").fetchall()
            found = conn.execute("PRAGMA quick_check(1)").fetchone()
            if found[0] != "ok":
                return f"is damaged: {str(found[0]).splitlines()[-1]}"
            had = {str(name) for (name,) in conn.execute("SELECT name FROM migrations").fetchall()}
            acts = set(conn.execute(_ACTS).fetchall())
    except driver.error_types() as error:
        return f"is damaged: {error}"
    unknown = sorted(had - {one.__name__ for one in tables.MIGRATIONS})
    if unknown:
        return f"was written by a newer agentk: it has the migration {unknown[0]}"
    if not acts <= _ours():
        return "has triggers or views that no memory of ours has"
    return ""


def _ours() -> set[tuple[str, str, str]]:
    with closing(driver.plain(None)) as conn:
        tables.migrate(conn)
        return set(conn.execute(_ACTS).fetchall())
