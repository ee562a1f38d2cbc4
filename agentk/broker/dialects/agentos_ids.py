"""The numbers and names by which AgentOS programs know agents: one id space and one list of names for a gate.

An id is made from the agent's uid, so it stays the same over connections and restarts of the daemon, and tells
nothing of how many agents others have. Whether a guest may know of an agent at all is not decided here.
"""

import hashlib
from collections.abc import Callable

KEPT = 50_000  # beyond, those of agents that are gone are forgotten
NAMES_EACH = 16  # of one agent: a program registers one
NAME_CHARS = 200


class Ids:
    def __init__(self, alive: Callable[[str], bool], kept: int = KEPT) -> None:
        """`alive`: whether there is an agent with this uid."""
        self._alive, self._kept = alive, kept
        self._by_uid: dict[str, int] = {}
        self._by_id: dict[int, str] = {}

    def of(self, uid: str) -> int:
        """Never 0, which means nobody."""
        known = self._by_uid.get(uid)
        if known is not None:
            return known
        if len(self._by_uid) >= self._kept:
            self._forget()
        found = int.from_bytes(hashlib.blake2b(uid.encode(), digest_size=4).digest()) & 0x7FFFFFFF
        while found == 0 or found in self._by_id:
            found = (found + 1) & 0x7FFFFFFF
        self._by_uid[uid], self._by_id[found] = found, uid
        return found

    def uid(self, number: int) -> str:
        """ "" for a number that was never told to anybody."""
        return self._by_id.get(number, "")

    def _forget(self) -> None:
        for uid in [uid for uid in self._by_uid if not self._alive(uid)]:
            del self._by_id[self._by_uid.pop(uid)]


class Names:
    """What programs call themselves, or what their parents called them: a list for each. Never durable."""

    def __init__(self, alive: Callable[[str], bool]) -> None:
        self._alive = alive
        self._by_name: dict[tuple[str, str], str] = {}  # (namespace, name) → uid
        self._by_uid: dict[str, list[tuple[str, str]]] = {}

    def register(self, namespace: str, name: str, uid: str) -> bool:
        """False when another that is alive has it. An agent's oldest name goes when it has too many."""
        key = (namespace, name)
        holder = self._by_name.get(key)
        if holder == uid:
            return True
        if holder is not None and self._alive(holder):
            return False
        if holder is not None or len(self._by_uid) >= KEPT:
            self._forget_gone()
        own = self._by_uid.setdefault(uid, [])
        if len(own) >= NAMES_EACH:
            del self._by_name[own.pop(0)]
        own.append(key)
        self._by_name[key] = uid
        return True

    def uid(self, namespace: str, name: str) -> str:
        """Of an agent that is alive; else "" ."""
        found = self._by_name.get((namespace, name), "")
        if found and not self._alive(found):
            self.forget(found)
            return ""
        return found

    def of(self, uid: str) -> str:
        """What it is called: its last name, else "" ."""
        own = self._by_uid.get(uid)
        return own[-1][1] if own else ""

    def registered(self, namespace: str) -> list[str]:
        """The uids of all that have a name there and are alive."""
        self._forget_gone()
        return list(dict.fromkeys(uid for (where, _), uid in self._by_name.items() if where == namespace))

    def _forget_gone(self) -> None:
        for uid in [uid for uid in self._by_uid if not self._alive(uid)]:
            self.forget(uid)

    def forget(self, uid: str) -> None:
        for key in self._by_uid.pop(uid, ()):
            del self._by_name[key]
