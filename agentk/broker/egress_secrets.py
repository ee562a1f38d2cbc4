"""Which secrets go into a request: by host and header, as `spec.secrets` says, fetched when they are needed.

A value must never be in an error, nor reach a host that no entry names.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentk.api.errors import Invalid, Unavailable
from agentk.broker import egress, policy_hosts
from agentk.broker.egress_scrubbing import SHORTEST_BYTES, Needles
from agentk.broker.words import Guest

SecretOf = Callable[[str, str, str], Awaitable[str]]  # namespace, Secret, key → value; raises NotFound

# Headers of one hop, or ours to say: nobody else writes them.
NOT_SENT = frozenset(
    {
        "host", "content-length", "connection", "keep-alive", "proxy-connection", "proxy-authorization",
        "transfer-encoding", "te", "trailer", "upgrade", "expect", "http2-settings",
    }
)  # fmt: skip
_NO_NEEDLES = Needles(())
_NEVER = re.compile(r"[\x00-\x1f\x7f]")  # would end the header, or the request
_NEEDLES_KEPT = 256


@dataclass(frozen=True)
class Injected:
    """What is written into one request, and what is looked for in its answer."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # names in lower case
    needles: Needles = field(default=_NO_NEEDLES, repr=False)

    def __bool__(self) -> bool:
        return bool(self.headers)


class Secrets:
    def __init__(self, secret: SecretOf) -> None:
        self._secret = secret
        self._needles: dict[tuple[str, ...], Needles] = {}

    async def of(self, guest: Guest, host: str) -> Injected:
        """For a request to this host (canonical). Raises NotFound, and Unavailable for a value that cannot be used."""
        headers: dict[str, str] = {}
        values: set[str] = set()
        for entry in wanted(guest.spec, host):
            value = await self._value(guest, str(entry["name"]), str(entry["key"]))
            inject = entry["inject"]
            headers[str(inject["header"]).lower()] = str(inject.get("prefix") or "") + value
            values.add(value)
        return Injected(headers, self._needles_of(tuple(sorted(values)))) if headers else NOTHING

    async def _value(self, guest: Guest, name: str, key: str) -> str:
        value = (await self._secret(guest.namespace, name, key)).strip()  # files end with a line feed
        if len(value.encode("utf-8", "surrogateescape")) < SHORTEST_BYTES:
            raise Unavailable(
                f'key "{key}" of Secret "{name}" is under {SHORTEST_BYTES} bytes: too short to be kept from the agent',
                hint="such a value is found by trying; use a longer one",
            )
        if _NEVER.search(value):
            raise Unavailable(f'key "{key}" of Secret "{name}" cannot be a header: it has more than one line')
        return value

    def _needles_of(self, values: tuple[str, ...]) -> Needles:
        found = self._needles.get(values)
        if found is None:
            if len(self._needles) >= _NEEDLES_KEPT:
                self._needles.clear()
            found = self._needles[values] = Needles(values)
        return found


def wanted(spec: Mapping[str, Any], host: str) -> list[Mapping[str, Any]]:
    """The entries of `spec.secrets` for a host (canonical)."""
    entries = [one for one in spec.get("secrets") or () if one.get("inject")]
    return [one for one in entries if _host(one["inject"].get("host")) == host]


def check(spec: Mapping[str, Any], allowed: egress.Egress) -> None:
    """Raises Invalid for a secret that would go nowhere, or that is no header of its own."""
    taken: set[tuple[str, str]] = set()
    for index, entry in enumerate(spec.get("secrets") or ()):
        inject, at = entry.get("inject") or {}, f"spec.secrets[{index}].inject"
        try:
            host = policy_hosts.canonical(str(inject.get("host")))
        except Invalid as error:
            raise Invalid(error.message, field=f"{at}.host", hint=error.hint) from None
        if not allowed.default_allow and not any(
            egress.host_matches(one.host, host) for one in allowed.rules
        ):
            hint = f'add {{host: "{host}"}} to spec.network.egress.allow'
            raise Invalid(f"no rule of spec.network.egress allows {host}", field=f"{at}.host", hint=hint)
        header = str(inject.get("header")).lower()
        if header in NOT_SENT:
            raise Invalid(f"{header} is the gate's own", field=f"{at}.header")
        if (host, header) in taken:
            raise Invalid(f"another secret is written to {header} for {host}", field=f"{at}.header")
        taken.add((host, header))


def _host(text: Any) -> str:
    try:
        return policy_hosts.canonical(str(text))
    except Invalid:
        return ""  # nowhere: admission refuses it, and what is stored may be older


NOTHING = Injected()
