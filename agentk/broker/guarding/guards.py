"""Who is guarded, and by what: the guardrails of each guest's Policy, read once until it changes.

The gate asks for every call; nearly always the answer is None, in one look.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentk.broker.guarding import rails as reading
from agentk.broker.guarding.earlier import Earlier, NoSessions, Stays
from agentk.broker.guarding.guarded import CommandOf, Guarded, Rooms, SkillOf, no_command, no_skill
from agentk.broker.guarding.limits import Rates
from agentk.broker.guarding.lookouts import Lookouts
from agentk.broker.guarding.rails import Rails
from agentk.broker.guarding.tokens import Vault
from agentk.broker.words import Call, Guest
from agentk.store.journal import Journal


def _as_it_is(data: bytes) -> bytes:
    return data


class Guards:
    def __init__(
        self,
        journal: Journal,
        redact: Callable[[bytes], bytes] = _as_it_is,
        now: Callable[[], float] = time.monotonic,
        skill: SkillOf = no_skill,
        stays: Stays | None = None,
        command: CommandOf = no_command,
    ) -> None:
        earlier = Earlier(stays or NoSessions())
        self._rooms = Rooms(Lookouts(), Vault(journal), Rates(now), redact, earlier, skill, command)
        self._read: dict[str, tuple[Mapping[str, Any], Rails | None]] = {}

    def of(self, call: Call, method: str) -> Guarded | None:
        rails = self.rails(call.guest)
        if rails is None:
            return None
        return Guarded(call, method, rails, self._rooms)

    def rails(self, guest: Guest) -> Rails | None:
        """The same object until the Policy says otherwise."""
        if "guardrails" not in guest.policy:
            return None
        known = self._read.get(guest.policy_name)
        if known is None or (known[0] is not guest.policy and known[0] != guest.policy):
            known = self._read[guest.policy_name] = (guest.policy, reading.of(guest.policy))
        return known[1]

    def keep(self, uids: Sequence[str]) -> None:
        """Forget what was of others."""
        self._rooms.vault.keep(uids)
        self._rooms.rates.keep(uids)

    async def close(self) -> None:
        await self._rooms.lookouts.close()
