"""A host uid for each agent, so that no two agents' files ever belong to the same user.

Given out round and round the block, so that a uid just released is the last to be given again.
"""

import sqlite3

from agentk.api import errors
from agentk.store.writer import Tx


def allocate(tx: Tx, namespace: str, agent: str, block: range) -> int:
    """The agent's uid; the same one until it is released. Raises Unavailable when the block is used up."""
    held = tx.conn.execute("SELECT host_uid FROM host_uids WHERE agent = ?", (agent,)).fetchone()
    if held:
        return int(held[0])
    found = tx.conn.execute("SELECT value FROM meta WHERE key = 'host_uid'").fetchone()
    last = int(found[0]) if found and found[0] in block else block.start - 1
    uid = _free(tx, last + 1, block.stop)
    if uid is None:
        uid = _free(tx, block.start, last + 1)
    if uid is None:
        raise errors.Unavailable(
            f"all {len(block)} host uids from {block.start} to {block.stop - 1} are in use",
            hint="delete agents that are no longer needed",
        )
    tx.conn.execute("INSERT INTO host_uids VALUES (?, ?, ?)", (uid, agent, namespace))
    tx.conn.execute("INSERT OR REPLACE INTO meta VALUES ('host_uid', ?)", (uid,))
    return uid


def hand_over(tx: Tx, giver: str, namespace: str, taker: str) -> int | None:
    """The uid of one is the other's from here on. None, and nothing is changed, when the giver has none or the taker
    one already: its files belong to that."""
    held_by = tx.conn.execute("SELECT 1 FROM host_uids WHERE agent = ?", (taker,)).fetchone()
    given = tx.conn.execute("SELECT host_uid FROM host_uids WHERE agent = ?", (giver,)).fetchone()
    if held_by or not given:
        return None
    tx.conn.execute(
        "UPDATE host_uids SET agent = ?, namespace = ? WHERE agent = ?", (taker, namespace, giver)
    )
    return int(given[0])


def release(tx: Tx, agent: str) -> None:
    """Give it back, once none of its files are left. Repeatable."""
    tx.conn.execute("DELETE FROM host_uids WHERE agent = ?", (agent,))


def held(conn: sqlite3.Connection) -> dict[str, int]:
    """Host uid by agent uid."""
    return dict(conn.execute("SELECT agent, host_uid FROM host_uids").fetchall())


def _free(tx: Tx, start: int, stop: int) -> int | None:
    """The lowest unused number of start..stop-1."""
    if start >= stop:
        return None
    taken = tx.conn.execute(
        "SELECT host_uid FROM host_uids WHERE host_uid >= ? AND host_uid < ? ORDER BY host_uid", (start, stop)
    )
    for (uid,) in taken:
        if uid != start:
            break
        start += 1
    return start if start < stop else None
