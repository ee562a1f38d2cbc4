"""Which hosts an agent reaches, and how: names are resolved outside the jail, once, every answer is looked at, and the
connection goes to the address that was looked at.

It must never connect to what a second lookup says (rebinding), to an address of this machine or its networks that no
rule opens, or to a host spelled so that the check and the resolver could read it differently.
"""

import asyncio
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from agentk.api.errors import BadRequest, Denied, Invalid, UpstreamError
from agentk.broker import policy_hosts
from agentk.broker.egress_addresses import refusal


class Unreached(UpstreamError):
    """Nothing was sent: there is nobody whom it could have been sent to."""


Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_TLS = (443,)
_MOST_ANSWERS = 16
_OPENING = "privateAddresses: true, beside the host or url in the manifest, opens such addresses"


@dataclass(frozen=True)
class HostRule:
    """One entry of `spec.network.egress.allow`. `host` is canonical, or "*." and a canonical name."""

    host: str
    ports: tuple[int, ...] = _TLS
    methods: frozenset[str] = frozenset()  # empty: any
    private: bool = False

    def matches(self, host: str, port: int) -> bool:
        return port in self.ports and host_matches(self.host, host)


@dataclass(frozen=True)
class Egress:
    default_allow: bool = False
    rules: tuple[HostRule, ...] = ()


@dataclass(frozen=True)
class Target:
    """A host and port that may be reached, by which rule, and whether its address may be a private one."""

    host: str
    port: int
    rule: str  # for the journal and for people
    private: bool = False
    methods: frozenset[str] = frozenset()  # not empty: a tunnel would hide the method


def parse(spec: Mapping[str, Any]) -> Egress:
    """`spec.network.egress` of an Agent. Raises Invalid with the field for what means nothing."""
    told = (spec.get("network") or {}).get("egress") or {}
    rules = []
    for index, entry in enumerate(told.get("allow") or ()):
        try:
            host = pattern(str(entry["host"]))
        except Invalid as error:
            raise Invalid(
                error.message, field=f"spec.network.egress.allow[{index}].host", hint=error.hint
            ) from None
        methods = frozenset(str(method).upper() for method in entry.get("methods") or ())
        ports = tuple(entry.get("ports") or _TLS)
        rules.append(HostRule(host, ports, methods, bool(entry.get("privateAddresses"))))
    return Egress(told.get("default") == "Allow", tuple(rules))


def read_along(spec: Mapping[str, Any]) -> bool:
    """Whether some host of this agent is one where the gate has to see requests: for secrets, or for methods."""
    allowed = ((spec.get("network") or {}).get("egress") or {}).get("allow") or ()
    return any(one.get("inject") for one in spec.get("secrets") or ()) or any(
        entry.get("methods") for entry in allowed
    )


def pattern(text: str) -> str:
    """A host, or "*." before one: any name below it, at any depth, but not itself."""
    if text.startswith("*."):
        name = policy_hosts.canonical(text[2:])
        if _is_address(name):
            raise Invalid(f'host "{text[:64]}": an address has nothing below it')
        return f"*.{name}"
    return policy_hosts.canonical(text)


def host_matches(rule: str, host: str) -> bool:
    """Both canonical."""
    if rule.startswith("*."):
        return host.endswith(rule[1:]) and not _is_address(host)
    return rule == host


def authority(text: str, default_port: int = 0) -> tuple[str, int]:
    """Host and port of "host:port", the host canonical. Raises BadRequest for what is not one host to everybody."""
    host, colon, digits = text.rpartition(":")
    if not colon or (text.startswith("[") and text.endswith("]")):
        host, digits = text, str(default_port)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and 0 < int(digits) < 65536):
        raise BadRequest(f"no port in {text[:64]!r}", hint="write host:port", field="host")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise BadRequest("an IPv6 address is written in brackets", field="host")
    try:
        return policy_hosts.canonical(host), int(digits)
    except Invalid as error:
        raise BadRequest(error.message, hint=error.hint, field="host") from None


def permitted(egress: Egress, host: str, port: int, method: str = "") -> Target:
    """The target, `host` being canonical. Without a method (a tunnel) rules for methods are kept in `Target.methods`.

    Raises Denied, naming what would have to be written.
    """
    found = [rule for rule in egress.rules if rule.matches(host, port)]
    fitting = [rule for rule in found if not rule.methods or not method or method.upper() in rule.methods]
    if fitting:
        # The most open rule counts, as in a list of alternatives; but never a method that no rule names.
        rule = min(fitting, key=lambda one: (bool(one.methods), not one.private))
        return Target(host, port, f"spec.network.egress.allow: {rule.host}", rule.private, rule.methods)
    if found:
        allowed = ", ".join(sorted(set().union(*(rule.methods for rule in found))))
        raise Denied(
            f"{method} is not allowed on {host}:{port}", hint=f"spec.network.egress allows {allowed}"
        )
    if egress.default_allow and not any(host_matches(rule.host, host) for rule in egress.rules):
        return Target(host, port, "spec.network.egress.default")
    raise Denied(
        f"no rule of spec.network.egress allows {host}:{port}",
        hint=f'add {{host: "{host}", ports: [{port}]}} to spec.network.egress.allow',
    )


def vetted(target: Target, addresses: Sequence[str]) -> tuple[str, ...]:
    """The addresses, each looked at. One bad answer refuses all: a name that points at both is a trick.

    Raises Denied without the address: names of the host's networks are nothing for the guest to learn.
    """
    if not addresses:
        raise Unreached(f"{target.host} has no address")
    if len(addresses) > _MOST_ANSWERS:
        addresses = addresses[:_MOST_ANSWERS]
    for text in addresses:
        why = refusal(text, private=target.private, named=text == target.host)
        if why:
            raise Denied(
                f"{target.host} resolves to {why}",
                hint="" if target.private else _OPENING,
            )
    return tuple(dict.fromkeys(addresses))


class Dialer:
    """Resolves and connects. Owns the threads that wait for name servers, so that slow names delay only egress."""

    def __init__(
        self,
        resolve: Resolve | None = None,
        *,
        threads: int = 8,
        resolve_seconds: float = 10,
        connect_seconds: float = 10,
    ) -> None:
        self._resolve = resolve or self._ask
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolve")
        self._resolve_seconds = resolve_seconds
        self._connect_seconds = connect_seconds

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def connect(self, target: Target) -> socket.socket:
        """A connected, non-blocking socket to an address that was vetted. The caller closes it."""
        problem = "no address answered"
        for address in await self.look_up(target):
            try:
                return await self._dial(address, target.port)
            except TimeoutError:
                problem = "it did not answer in time"
            except OSError as error:
                problem = os.strerror(error.errno) if error.errno else type(error).__name__
        raise UpstreamError(f"connecting to {target.host}:{target.port} failed: {problem}")

    async def look_up(self, target: Target) -> tuple[str, ...]:
        """The addresses to connect to, vetted. They are the answer to one question: it is never asked again."""
        return vetted(target, await self._addresses(target))

    async def _addresses(self, target: Target) -> Sequence[str]:
        if _is_address(target.host):
            return [target.host]
        try:
            async with asyncio.timeout(self._resolve_seconds):
                return await self._resolve(target.host, target.port)
        except TimeoutError:
            raise Unreached(f"resolving {target.host} took over {self._resolve_seconds:g} s") from None
        except (OSError, UnicodeError):
            raise Unreached(f"{target.host} does not resolve") from None

    async def _ask(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(place[4][0]) for place in found]

    async def _dial(self, address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        outside = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            outside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(self._connect_seconds):
                await asyncio.get_running_loop().sock_connect(outside, (address, port))
        except BaseException:  # cancelled too: the descriptor has no other owner yet
            outside.close()
            raise
        return outside


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
