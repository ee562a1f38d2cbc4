"""The seccomp policies of `runtimes/nsjail/*.kafel`, read for those boxes that nsjail does not make. Pure.

nsjail reads the same text with its own compiler, so there is one truth, and a test holds both readers to the same
answers. Of that language this knows what our own files say and nothing more; what it does not know it refuses, for a
rule that was skipped would be a hole. Of several rules for one call the first that fits counts.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentk.data import files

# What happens to a call that a policy does not name: a deny list allows it, an allow list knows it not (ENOSYS).
DEFAULTS = {"baseline": "ALLOW", "restricted": "ERRNO(38)"}
WHOLE = (1 << 64) - 1
# Kafel calls them after the functions in the kernel.
_OTHER_NAMES = {
    "umount": "umount2",
    "newstat": "stat",
    "newlstat": "lstat",
    "newfstat": "fstat",
    "newuname": "uname",
    "sendfile64": "sendfile",
}
_TOKEN = re.compile(r"//[^\n]*|(?P<word>\w+|&&|\|\||==|!=|[{}(),\[\]&])|\s+|(?P<bad>.)")


@dataclass(frozen=True)
class Action:
    """`error` 0 lets a call through; any other is what it answers."""

    error: int


@dataclass(frozen=True)
class Bits:
    """Whether the bits of `mask` of a call's argument are `value`, or are not."""

    argument: int
    mask: int
    value: int
    equal: bool


@dataclass(frozen=True)
class AnyOf:
    """At least one of them."""

    parts: "Sequence[Condition]"


@dataclass(frozen=True)
class AllOf:
    """Every one of them."""

    parts: "Sequence[Condition]"


Condition = Bits | AnyOf | AllOf


@dataclass(frozen=True)
class Rule:
    action: Action
    condition: Condition | None = None  # None: always


@dataclass(frozen=True)
class Policy:
    """What every call is answered, by its number."""

    machine: str
    default: Action
    calls: Mapping[str, int]  # every call that this machine has
    rules: Mapping[int, Sequence[Rule]] = field(default_factory=dict)


def load(name: str, machine: str) -> Policy:
    """One of DEFAULTS for a machine as uname calls it. Raises ValueError for one that is not known."""
    data = files.folder("runtimes")
    table = data / "seccomp" / f"syscalls.{machine}"
    if name not in DEFAULTS or not re.fullmatch(r"\w+", machine) or not table.is_file():
        raise ValueError(f"there is no seccomp policy {name} for {machine}")
    calls = _numbers(table)
    rules: dict[int, list[Rule]] = {}
    for part in (f"seccomp-{name}.kafel", f"seccomp-{name}.{machine}.kafel"):
        if (data / "nsjail" / part).is_file():
            read((data / "nsjail" / part).read_text(), calls, rules)
    return Policy(machine, _Reader(DEFAULTS[name], calls, {}).action(), calls, rules)


def read(text: str, calls: Mapping[str, int], rules: dict[int, list[Rule]]) -> None:
    """Add the rules of one text. Raises ValueError or KeyError (a call's name) for what this does not know."""
    _Reader(text, calls, rules).policy()


def _numbers(table: Path) -> dict[str, int]:
    return {name: int(number) for name, number in map(str.split, table.read_text().splitlines())}


class _Reader:
    """One text, from its beginning to its end."""

    def __init__(self, text: str, calls: Mapping[str, int], rules: dict[int, list[Rule]]) -> None:
        self._words = []
        for found in _TOKEN.finditer(text):
            if found["bad"]:
                raise ValueError(f"a policy cannot hold {found['bad']!r}")
            if found["word"]:
                self._words.append(found["word"])
        self._at, self._calls, self._rules = 0, calls, rules

    def policy(self) -> None:
        self._take("POLICY")
        self._next()
        self._take("{")
        self._list(self._block, "}")
        if self._at != len(self._words):
            raise ValueError(f"after the policy comes {self._words[self._at]!r}")

    def action(self) -> Action:
        word = self._next()
        if word == "ALLOW":
            return Action(0)
        if word != "ERRNO":
            raise ValueError(f"{word!r} is no action")
        self._take("(")
        error = self._number()
        self._take(")")
        return Action(error)

    def _block(self) -> None:
        action = self.action()
        self._take("{")
        self._list(lambda: self._call(action), "}")

    def _call(self, action: Action) -> None:
        name = self._next()
        if name == "SYSCALL":
            self._take("[")
            number = self._number()
            self._take("]")
        else:
            number = self._calls[_OTHER_NAMES.get(name, name)]
        arguments: list[str] = []
        condition = None
        if self._peek() == "(":
            self._next()
            self._list(lambda: arguments.append(self._next()), ")")
        if self._peek() == "{":
            self._next()
            condition = self._any(arguments)  # of names that the call was given
            self._take("}")
        self._rules.setdefault(number, []).append(Rule(action, condition))

    def _any(self, arguments: Sequence[str]) -> Condition:
        parts = [self._all(arguments)]
        while self._peek() == "||":
            self._next()
            parts.append(self._all(arguments))
        return parts[0] if len(parts) == 1 else AnyOf(parts)

    def _all(self, arguments: Sequence[str]) -> Condition:
        parts = [self._one(arguments)]
        while self._peek() == "&&":
            self._next()
            parts.append(self._one(arguments))
        return parts[0] if len(parts) == 1 else AllOf(parts)

    def _one(self, arguments: Sequence[str]) -> Condition:
        if self._peek() != "(":
            return self._compared(arguments.index(self._next()), WHOLE)
        self._next()
        if self._words[self._at + 1] == "&":
            argument = arguments.index(self._next())
            self._take("&")
            mask = self._number()
            self._take(")")
            return self._compared(argument, mask)
        inner = self._any(arguments)
        self._take(")")
        return inner

    def _compared(self, argument: int, mask: int) -> Bits:
        sign = self._next()
        if sign not in ("==", "!="):
            raise ValueError(f"{sign!r} compares nothing")
        return Bits(argument, mask, self._number(), sign == "==")

    def _list(self, each: Callable[[], object], end: str) -> None:
        while self._peek() != end:
            each()
            if self._peek() != ",":
                break
            self._next()
        self._take(end)

    def _number(self) -> int:
        return int(self._next(), 0)

    def _peek(self) -> str:
        return self._words[self._at] if self._at < len(self._words) else ""

    def _next(self) -> str:
        word = self._peek()
        if not word:
            raise ValueError("a policy ends too early")
        self._at += 1
        return word

    def _take(self, word: str) -> None:
        found = self._next()
        if found != word:
            raise ValueError(f"{found!r} stands where {word!r} must")
