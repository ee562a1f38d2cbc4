"""How a record becomes a hash, and what is keyed. Pure; the one place that knows the encoding.

A record's hash covers the hash before it in its run's chain, the hash of the record before it in the file, and all
its own columns, encoded so that no two rows read the same: types count, and nothing is left out. So the newest hash
vouches for every record of the file. Changing anything here makes every journal unverifiable: don't.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# In the order they are hashed. `hash` comes last and is what they make.
COLUMNS = (
    "id", "before", "seq", "at", "kind", "uid", "run", "attempt", "namespace", "agent", "method", "effect", "of",
    "parent", "key", "slot", "trace", "status", "amounts", "meta", "asked", "asked_digest", "answer", "answer_digest",
)  # fmt: skip
SELECT = f"SELECT {', '.join(COLUMNS)}, hash FROM records"
INSERT = f"INSERT INTO records ({', '.join(COLUMNS)}, hash) VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"
BEGINNING = bytes(32)

_EFFECT_CHARACTERS = 32
_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, default=lambda digest: [digest.hex()])
_sorting = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, sort_keys=True)


class Head(NamedTuple):
    """Where a chain has got to."""

    number: int
    hash: bytes


def stored(number: int, digest: object) -> Head:
    """A head as the database has it. One that was tampered with goes on as something that cannot be verified."""
    return Head(number, digest if isinstance(digest, bytes) else str(digest).encode("utf-8", "replace"))


def genesis(journal: str) -> Head:
    """Before the first record of a file: no two files begin alike."""
    return Head(0, hashlib.sha256(f"agentk journal {journal}".encode("utf-8", "surrogateescape")).digest())


def link(run: bytes, before: bytes, columns: Sequence[Any]) -> bytes:
    """The hash of a record, from the hashes before it and its columns. A digest in a list is no text of the same."""
    return hashlib.sha256(run + before + _encoder.encode(columns).encode()).digest()


def effect_id(key: bytes, uid: str, run: str, method: str, digest: bytes | None, ordinal: int) -> str:
    """Names one effect. `digest` is the salted one, so that an erased body cannot be guessed from the id either."""
    said = digest.hex() if digest else ""
    told = f"{len(uid)} {len(run)} {len(method)} {uid}{run}{method}{said} {ordinal}"
    return hmac.digest(key, told.encode(), "sha256").hex()[:_EFFECT_CHARACTERS]


def slot(key: bytes, uid: str, attempt: int, name: str) -> int | None:
    """A short stand-in for an idempotency key; None without one. Two keys with one slot: once in 2**32 million."""
    if not name:
        return None
    told = f"{len(uid)} {attempt} {uid}{name}"
    return int.from_bytes(hmac.digest(key, told.encode(), "sha256")[:8], "big", signed=True)


def stand_in(key: bytes, parts: Sequence[bytes]) -> str:
    """The same for the same parts, and nothing to find them out by."""
    told = b"".join(b"%d %s" % (len(part), part) for part in parts)
    return hmac.digest(key, told, "sha256").hex()


def head_mac(key: bytes, journal: str, head: Head) -> bytes:
    told = b"%s %d %s" % (journal.encode("utf-8", "surrogateescape"), head.number, head.hash)
    return hmac.digest(key, told, "sha256")


def meta_mac(key: bytes, meta: Mapping[str, Any]) -> bytes:
    """Of what a checkpoint says, without `mac`: a walk that begins with it must know that it was said."""
    told = text({name: value for name, value in meta.items() if name != "mac"})
    return hmac.digest(key, told.encode(), "sha256")


def text(value: Mapping[str, Any]) -> str:
    """A JSON object as it is stored: the same for the same content."""
    return _sorting.encode(value) if value else "{}"
