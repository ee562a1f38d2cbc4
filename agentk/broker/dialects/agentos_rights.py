"""What SET_PERMS took away from agents, for this dialect. It only ever takes away.

A Policy says what an agent may do; this is what it (or who spawned it) gave up on top, for its attempt. Every request
adds a cut, and a call must pass all of them: there is no way to put anything back, and what an agent spawns is cut as
it is itself. Other dialects do not ask here: it is no replacement for a Policy.
"""

import posixpath
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from agentk.api import errors
from agentk.broker import policy_globs as globbing
from agentk.broker import policy_rules
from agentk.broker.dialects.agentos_words import Asked, Json, Op
from agentk.broker.words import Guest

FLAGS = ("can_exec", "can_read", "can_write", "can_think", "can_spawn", "can_http")
CUTS_MAX = 32  # of one agent
_LISTED_MAX = 200  # texts, in all cuts of an agent: each is matched, letter by letter, on the gate's loop
_TEXT_MAX = 500
_MATCHED_MAX = 1024  # letters of a path or command that is matched
_LEVELS: dict[str, frozenset[str]] = {
    "unrestricted": frozenset(FLAGS),
    "standard": frozenset(FLAGS),
    "sandboxed": frozenset({"can_exec", "can_read", "can_write", "can_think"}),
    "readonly": frozenset({"can_read", "can_think"}),
    "minimal": frozenset({"can_think"}),
}
_METHODS = {
    "can_exec": "exec",
    "can_read": "exec",  # in a jail of its own, as is all file work
    "can_write": "exec",
    "can_think": "think",
    "can_spawn": "agent.spawn",
    "can_http": "http.request",
}
_NEEDS = {
    Op.EXEC: "can_exec",
    Op.READ: "can_read",
    Op.WRITE: "can_write",
    Op.THINK: "can_think",
    Op.SPAWN: "can_spawn",
    Op.HTTP: "can_http",
}


@dataclass(frozen=True)
class Cut:
    """One request to lower rights. None: says nothing about it; an empty list: nothing is left of it."""

    flags: frozenset[str]  # what is left
    read: tuple[str, ...] | None = None
    write: tuple[str, ...] | None = None
    blocked: tuple[str, ...] = ()
    exec: tuple[str, ...] | None = None
    blocked_commands: tuple[str, ...] = ()
    network: tuple[str, ...] | None = None
    http_methods: tuple[str, ...] | None = None
    max_tokens: int | None = None
    max_calls: int | None = None
    max_exec_ms: int | None = None

    @property
    def texts(self) -> int:
        lists = (self.read, self.write, self.blocked, self.exec, self.blocked_commands, self.network)
        return sum(len(one or ()) for one in (*lists, self.http_methods))

    def miss(self, op: int, asked: Asked) -> str:
        """What of this cut forbids the call; "" when nothing does."""
        if op == Op.READ:
            return self._path_miss("read", self.read, asked.text("path"))
        if op == Op.WRITE:
            return self._path_miss("write", self.write, asked.text("path"))
        if op == Op.EXEC:
            return self._command_miss(asked.text("command"))
        if op == Op.HTTP:
            host = (_host(asked.text("url")) or "").lower()
            if self.network is not None and not any(_is_host(host, one) for one in self.network):
                return "network"
            method = asked.text("method", default="GET").upper()
            if self.http_methods is not None and method not in self.http_methods:
                return "http_methods"
        return ""

    def _path_miss(self, name: str, listed: tuple[str, ...] | None, path: str) -> str:
        if len(path) > _MATCHED_MAX:
            return f"filesystem.{name}"
        whole = posixpath.normpath(posixpath.join("/workspace", path))
        if any(_is_path(whole, one) for one in self.blocked):
            return "filesystem.blocked"
        if listed is not None and not any(_is_path(whole, one) for one in listed):
            return f"filesystem.{name}"
        return ""

    def _command_miss(self, command: str) -> str:
        if any(one in command for one in self.blocked_commands):
            return "blocked_commands"
        if self.exec is not None:
            if len(command) > _MATCHED_MAX:
                return "exec"
            try:
                words = shlex.split(command, comments=False)
            except ValueError:
                return "exec"
            # A list of programs means these alone: nothing that a shell could make another of it.
            if not words or words[0] not in self.exec or any(sign in command for sign in ";&|<>`$()\n"):
                return "exec"
        return ""


@dataclass
class Used:
    """What an attempt of an agent asked of models through this dialect, over all its connections."""

    attempt: int
    tokens: int = 0
    calls: int = 0


@dataclass
class _Given:
    attempt: int
    cuts: list[Cut]


class Rights:
    """Of all agents of a gate."""

    def __init__(self, rules: Callable[[Guest], policy_rules.Rules], alive: Callable[[str], bool]) -> None:
        self._rules, self._alive = rules, alive
        self._given: dict[str, _Given] = {}
        self._used: dict[str, Used] = {}

    def cuts(self, guest: Guest) -> list[Cut]:
        """The guest's own of this attempt, and those of all that spawned it."""
        found: list[Cut] = []
        for uid in (guest.uid, *guest.parents):
            given = self._given.get(uid)
            if given is not None and (uid != guest.uid or given.attempt == guest.attempt):
                found += given.cuts
        return found

    def check(self, guest: Guest, op: int, asked: Asked) -> None:
        """Raises Denied for what was given up."""
        flag = _NEEDS.get(Op(op))
        if flag is None:
            return
        for cut in self.cuts(guest):
            miss = flag if flag not in cut.flags else cut.miss(op, asked)
            if miss:
                raise errors.Denied(f"permission denied: {Op(op).name} ({miss})", hint="SET_PERMS gave it up")

    def left(self, guest: Guest) -> frozenset[str]:
        """The flags that the Policy and all cuts leave."""
        left = {flag for flag in FLAGS if _allows(self._rules(guest), _METHODS[flag])}
        for cut in self.cuts(guest):
            left &= cut.flags
        return frozenset(left)

    def lower(self, guest: Guest, asked: Asked) -> None:
        """Raises Denied when it asks for more than there is, and BadRequest for what it cannot mean."""
        level, told = asked.get("level"), asked.part("permissions")
        if level is None and not told.fields:
            raise errors.BadRequest("permissions or level required")
        left = self.left(guest)
        wanted = set(left)
        if level is not None:
            if not isinstance(level, str) or level not in _LEVELS:
                raise errors.BadRequest(f"unknown level: use one of {', '.join(_LEVELS)}")
            wanted &= _LEVELS[level]
            _no_more(_LEVELS[level] - left)
        given = {flag: told.flag(flag) for flag in FLAGS if told.get(flag) is not None}
        _no_more({flag for flag, on in given.items() if on} - left)
        wanted -= {flag for flag, on in given.items() if not on}
        self._add(guest, _cut(frozenset(wanted), told))

    def _add(self, guest: Guest, cut: Cut) -> None:
        given = self._given.get(guest.uid)
        if given is None or given.attempt != guest.attempt:
            for uid in [uid for uid in self._given if not self._alive(uid)]:
                del self._given[uid]
            given = self._given[guest.uid] = _Given(guest.attempt, [])
        if cut in given.cuts:
            return
        if len(given.cuts) >= CUTS_MAX or cut.texts + sum(one.texts for one in given.cuts) > _LISTED_MAX:
            raise errors.TooManyRequests(
                f"rights are lowered at most {CUTS_MAX} times, with {_LISTED_MAX} texts in lists together"
            )
        given.cuts.append(cut)

    def limits(self, guest: Guest) -> tuple[int | None, int | None, int | None]:
        """The smallest max_tokens, max_calls and max_exec_time_ms of all cuts."""
        cuts = self.cuts(guest)
        return (
            _least(cut.max_tokens for cut in cuts),
            _least(cut.max_calls for cut in cuts),
            _least(cut.max_exec_ms for cut in cuts),
        )

    def used(self, guest: Guest) -> Used:
        """To be counted up by who asks a model."""
        known = self._used.get(guest.uid)
        if known is None or known.attempt != guest.attempt:
            for uid in [uid for uid in self._used if not self._alive(uid)]:
                del self._used[uid]
            known = self._used[guest.uid] = Used(guest.attempt)
        return known

    def shown(self, guest: Guest) -> Json:
        """As GET_PERMS tells it. Lists are those of the last cut that had one; all of them count."""
        left, cuts = self.left(guest), self.cuts(guest)
        tokens, calls, exec_ms = self.limits(guest)

        def listed(read: Callable[[Cut], tuple[str, ...] | None], otherwise: list[str]) -> list[str]:
            found = [list(value) for cut in cuts if (value := read(cut)) is not None]
            return found[-1] if found else otherwise

        def joined(read: Callable[[Cut], tuple[str, ...]]) -> list[str]:
            return list(dict.fromkeys(one for cut in cuts for one in read(cut)))

        egress = (guest.spec.get("network") or {}).get("egress") or {}
        hosts = [str(one.get("host")) for one in egress.get("allow") or () if isinstance(one, Mapping)]
        return {
            **{flag: flag in left for flag in FLAGS},
            "filesystem": {
                "read": listed(lambda cut: cut.read, ["/workspace/*", "/app/*", "/usr/*"]),
                "write": listed(lambda cut: cut.write, ["/workspace/*"]),
                "blocked": joined(lambda cut: cut.blocked),
            },
            "exec": listed(lambda cut: cut.exec, ["*"] if "can_exec" in left else []),
            "blocked_commands": joined(lambda cut: cut.blocked_commands),
            "network": listed(lambda cut: cut.network, hosts),
            "http_methods": listed(lambda cut: cut.http_methods, ["*"] if "can_http" in left else []),
            "llm": {
                "max_tokens": tokens or 0,
                "max_calls": calls or 0,
                "tokens_used": self.used(guest).tokens,
                "calls_made": self.used(guest).calls,
            },
            "max_exec_time_ms": exec_ms or 0,
        }


def _cut(flags: frozenset[str], told: Asked) -> Cut:
    files, llm = told.part("filesystem"), told.part("llm")
    methods = _listed(told, "http_methods")
    return Cut(
        flags,
        read=_listed(files, "read"),
        write=_listed(files, "write"),
        blocked=_listed(files, "blocked") or (),
        exec=_without_all(_listed(told, "exec")),
        blocked_commands=_listed(told, "blocked_commands") or (),
        network=_without_all(_listed(told, "network")),
        http_methods=None if methods is None else _without_all(tuple(one.upper() for one in methods)),
        max_tokens=_positive(llm, "max_tokens"),
        max_calls=_positive(llm, "max_calls"),
        max_exec_ms=_positive(told, "max_exec_time_ms"),
    )


def _listed(told: Asked, name: str) -> tuple[str, ...] | None:
    if told.get(name) is None:
        return None
    found = told.texts(name)
    if len(found) > _LISTED_MAX or any(len(one) > _TEXT_MAX for one in found):
        raise errors.BadRequest(f"{name}: at most {_LISTED_MAX} items of {_TEXT_MAX} letters")
    return tuple(found)


def _without_all(listed: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if listed is not None and "*" in listed else listed


def _positive(told: Asked, name: str) -> int | None:
    """0 has always meant: no limit."""
    return told.whole(name, 0, 0, 2**53) or None


def _no_more(wider: set[str] | frozenset[str]) -> None:
    if wider:
        raise errors.Denied(f"rights can only be lowered: {', '.join(sorted(wider))} is not there to keep")


def _allows(rules: policy_rules.Rules, method: str) -> bool:
    """Whether some call of the method may be allowed."""

    about = [rule for rule in rules.rules if rule.methods is None or rule.methods.match(method)]
    denied = any(rule.effect == "Deny" and _always(rule) for rule in about)
    return not rules.broken and not denied and any(rule.effect == "Allow" for rule in about)


def _always(rule: policy_rules.Rule) -> bool:
    """Whether the methods alone decide whether it applies."""
    return rule == policy_rules.Rule(rule.name, rule.effect, rule.methods)


def _least(values: Any) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _is_path(path: str, pattern: str) -> bool:
    """`/a/*` and `/a/**` are all below /a; without a star, the path itself."""
    return globbing.glob(pattern).matches(path)


def _is_host(host: str, pattern: str) -> bool:
    pattern = pattern.lower()
    return host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
