"""What stands for values that tell of persons: `<EMAIL_1_4f09ac>`, the same for the same value as long as the agent is.

Kept in the journal's storage, with the agent's other things, so that a token that is out there can be read again after
a restart; gone with the agent. The last part is keyed by the journal: no other agent can name a token of this one, and
one that it hears of means nothing to it.
"""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agentk.api import errors
from agentk.store import guest_keys, guest_rooms, writer
from agentk.store.journal import Journal

VALUES_MAX = 10_000  # of one agent
_VALUE_BYTES = 16 * 1024
_BOUND = guest_rooms.Bound(VALUES_MAX, 8 * 1024 * 1024)
_RESTORED_MAX = 16 * 1024 * 1024  # letters of one answer: a model that repeats a token a million times
# As a model, a browser or a JSON writer may write the brackets.
_OPENS, _CLOSES = (
    ("<", "%3C", "%3c", "&lt;", "\\u003c", "\\u003C"),
    (">", "%3E", "%3e", "&gt;", "\\u003e", "\\u003E"),
)
_INNER_MAX = 48  # letters between the brackets
_PARTIAL = re.compile(
    r"(?:<|%3[Cc]|&lt;|\\u003[cC])(?:[A-Z][A-Z0-9_a-f]{0,47}(?:%(?:3)?|&(?:g(?:t)?)?|\\(?:u(?:0(?:0(?:3)?)?)?)?)?)?"
    r"|%(?:3)?|&(?:l(?:t)?)?|\\(?:u(?:0(?:0(?:3)?)?)?)?"
)


def scope(uid: str) -> str:
    return f"tokens/{uid}"


@dataclass
class Tokens:
    """Those of one agent."""

    nonce: str
    pattern: "re.Pattern[str]"
    values: dict[str, str] = field(default_factory=dict)  # by what is between the brackets
    names: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def restored(self, text: str, escape: bool = False) -> str:
        """With the values in place of tokens; as they stand within a JSON string, if that is what the text is."""
        if self.nonce not in text:
            return text
        left = _RESTORED_MAX

        def put(found: "re.Match[str]") -> str:
            nonlocal left
            value = self.values.get(found[1])
            if value is None or left < len(value):
                return found[0]
            left -= len(value)
            return _escaped(value) if escape else value

        return self.pattern.sub(put, text)

    def unfinished(self, text: str) -> int:
        """How many letters at the end may be the beginning of a token."""
        for size in range(min(len(text), _INNER_MAX + 12), 0, -1):
            if _PARTIAL.fullmatch(text, len(text) - size):
                return size
        return 0


class Vault:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._held: dict[str, Tokens] = {}

    def of(self, uid: str) -> Tokens:
        held = self._held.get(uid)
        if held is None:
            held = self._held[uid] = self._load(uid)
        return held

    def keep(self, uids: Sequence[str]) -> None:
        """Forget the others."""
        there = set(uids)
        self._held = {uid: held for uid, held in self._held.items() if uid in there}

    async def stand_ins(self, uid: str, values: Sequence[tuple[str, str]]) -> dict[str, str]:
        """A token for each (kind, value), on the disk when it returns. Raises Denied when there is no room."""
        held = self.of(uid)
        if all(value in held.names for _, value in values):
            return {value: f"<{held.names[value]}>" for _, value in values}
        async with held.lock:
            new: dict[str, str] = {}
            counts = dict(held.counts)
            for kind, value in values:
                if value not in held.names and value not in new:
                    counts[kind] = counts.get(kind, 0) + 1
                    new[value] = f"{kind}_{counts[kind]}_{held.nonce}"
            if any(len(value.encode("utf-8", "surrogatepass")) > _VALUE_BYTES for value in new):
                raise errors.Denied(f"guardrails: encoded personal data of more than {_VALUE_BYTES} bytes")
            await self._write(uid, new)
            held.counts = counts
            held.names.update(new)
            held.values.update({name: value for value, name in new.items()})
        return {value: f"<{held.names[value]}>" for _, value in values}

    async def _write(self, uid: str, new: dict[str, str]) -> None:
        def work(tx: writer.Tx) -> None:
            for value, name in new.items():
                data = value.encode("utf-8", "surrogatepass")
                guest_keys.put(tx.conn, guest_keys.Write(scope(uid), name, data, 0.0), _BOUND)

        try:
            await self._journal.write(work)
        except errors.TooManyRequests:
            told = (
                f"guardrails: this agent has more than {VALUES_MAX} pieces of personal data, or 8 MiB of them"
            )
            raise errors.Denied(told, hint="a new agent begins anew") from None

    def _load(self, uid: str) -> Tokens:
        nonce = self._journal.stand_in(b"tokens", uid.encode())[:6]
        closes, opens = "|".join(map(re.escape, _CLOSES)), "|".join(map(re.escape, _OPENS))
        made = Tokens(
            nonce, re.compile(rf"(?:{opens})([A-Z][A-Z0-9_]{{0,30}}_[0-9]{{1,6}}_{nonce})(?:{closes})")
        )

        def rows(conn: Any) -> list[tuple[str, bytes]]:
            return list(conn.execute("SELECT key, value FROM kv WHERE scope = ?", (scope(uid),)))

        for name, data in self._journal.read(rows):
            value = bytes(data).decode("utf-8", "surrogatepass")
            made.values[name], made.names[value] = value, name
            kind, number = name.rsplit("_", 2)[:2]
            made.counts[kind] = max(made.counts.get(kind, 0), int(number))
        return made


def _escaped(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]
