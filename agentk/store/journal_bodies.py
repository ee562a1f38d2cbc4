"""Bodies: kept apart from the records, which hold only a salted digest of each.

The salt is random and lives beside the body. Erasing both leaves a digest that says nothing: not even who guesses
the body can tell that it was this one. Nothing is stored that was not redacted first; that is the caller's part.
"""

import hashlib
import os
import sqlite3
import zlib
from typing import NamedTuple

PLAIN, DEFLATED, ERASED = 0, 1, 2

# Below it zlib saves less than it costs on the way to the disk.
_DEFLATE_BYTES = 16 * 1024
# From here on equal bodies of a run (a retried prompt, say) are worth looking for.
_SHARE_BYTES = 1024
_SALT_BYTES = 16


class Body(NamedTuple):
    """Bytes ready to be stored."""

    codec: int
    data: bytes
    content: bytes  # what equal bodies of one run share; empty: not worth sharing


def prepare(data: bytes, owner: str) -> Body | None:
    """None for no bytes. Takes milliseconds from a megabyte on: call it in a thread then."""
    if not data:
        return None
    codec, stored = PLAIN, data
    if len(data) >= _DEFLATE_BYTES:
        deflated = zlib.compress(data, 1)
        if len(deflated) < len(data):
            codec, stored = DEFLATED, deflated
    share = hashlib.sha256(owner.encode() + b"\0" + data).digest() if len(data) >= _SHARE_BYTES else b""
    return Body(codec, stored, share)


class Salts:
    """Random bytes, drawn many at a time: each call to the system would hand the interpreter to another thread.

    For one thread only.
    """

    def __init__(self) -> None:
        self._drawn, self._at = b"", 0

    def next(self) -> bytes:
        if self._at == len(self._drawn):
            self._drawn, self._at = os.urandom(_SALT_BYTES * 256), 0
        self._at += _SALT_BYTES
        return self._drawn[self._at - _SALT_BYTES : self._at]


def digest(codec: int, salt: bytes, data: bytes) -> bytes:
    """Of the bytes as stored: a change that zlib would not notice is one all the same."""
    return hashlib.sha256(b"%d " % codec + salt + data).digest()


def load(conn: sqlite3.Connection, number: int | None) -> bytes | None:
    """The bytes of a body; None when there is none, or it is gone."""
    if number is None:
        return None
    row = conn.execute("SELECT codec, data FROM bodies WHERE id = ?", (number,)).fetchone()
    if row is None or row[0] == ERASED:
        return None
    return zlib.decompress(row[1]) if row[0] == DEFLATED else bytes(row[1])


def erase(conn: sqlite3.Connection, number: int) -> bool:
    """Leave a tombstone; False when there is nothing left to erase. The pages are overwritten (secure_delete)."""
    done = conn.execute(
        "UPDATE bodies SET codec = ?, salt = x'', data = x'' WHERE id = ? AND codec <> ?",
        (ERASED, number, ERASED),
    )
    return bool(done.rowcount)
