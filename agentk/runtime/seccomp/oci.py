"""A policy as the seccomp part of an OCI runtime's configuration, which is what Podman takes. Pure.

There the order of rules means nothing and one argument can be compared once a rule, so a call's rules are taken apart
into cases of which no two meet: each says of some bits of its arguments what they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agentk.runtime.seccomp import kafel

_MACHINES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
Case = Mapping[int, tuple[int, int]]  # argument → which of its bits, and what they are


def oci_profile(name: str, machine: str) -> dict[str, Any]:
    """One of `kafel.DEFAULTS`. Raises ValueError for a policy or machine that is not known: never run without."""
    policy = kafel.load(name, machine)
    if machine not in _MACHINES:
        raise ValueError(f"there is no seccomp profile for {machine}")
    names = {number: name for name, number in policy.calls.items()}
    always: dict[kafel.Action, list[str]] = {}
    sometimes: list[dict[str, Any]] = []
    for number, rules in sorted(policy.rules.items()):
        for action, case in _cases(rules):
            if action == policy.default:
                continue
            if case:
                sometimes.append({"names": [names[number]], **_acted(action), "args": _told(case)})
            else:
                always.setdefault(action, []).append(names[number])
    default = _acted(policy.default)
    return {
        "defaultAction": default.pop("action"),
        **({"defaultErrnoRet": default["errnoRet"]} if default else {}),
        "architectures": [_MACHINES[machine]],
        "syscalls": [{"names": each, **_acted(action)} for action, each in always.items()] + sometimes,
    }


def _cases(rules: Sequence[kafel.Rule]) -> list[tuple[kafel.Action, Case]]:
    """Of several rules for one call the first that fits counts: every later one gets what is left."""
    found: list[tuple[kafel.Action, Case]] = []
    left: list[Case] = [{}]
    for rule in rules:
        if rule.condition is None:
            return found + [(rule.action, case) for case in left]
        fits, fails = _split(rule.condition, left)
        found += [(rule.action, case) for case in fits]
        left = fails
    return found


def _split(condition: kafel.Condition, cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Those that fit and those that do not, taken apart where that depends."""
    if isinstance(condition, kafel.AnyOf):
        fits: list[Case] = []
        left = list(cases)
        for part in condition.parts:
            more, left = _split(part, left)
            fits += more
        return fits, left
    if isinstance(condition, kafel.AllOf):
        fails: list[Case] = []
        left = list(cases)
        for part in condition.parts:
            left, less = _split(part, left)
            fails += less
        return left, fails
    same: list[Case] = []
    other: list[Case] = []
    for case in cases:
        more, less = _compared(condition, case)
        same += more
        other += less
    return (same, other) if condition.equal else (other, same)


def _compared(bits: kafel.Bits, case: Case) -> tuple[list[Case], list[Case]]:
    """A case as far as those bits are so (none or one), and the rest of it: a case for the first bit that differs."""
    mask, value = case.get(bits.argument, (0, 0))
    if (value ^ bits.value) & mask & bits.mask or bits.value & ~bits.mask:
        return [], [case]
    others: list[Case] = []
    open_bits = bits.mask & ~mask
    while open_bits:
        bit = 1 << (open_bits.bit_length() - 1)
        open_bits ^= bit
        others.append({**case, bits.argument: (mask | bit, value | (bit & ~bits.value))})
        mask, value = mask | bit, value | (bit & bits.value)
    return [{**case, bits.argument: (mask, value)}], others


def _told(case: Case) -> list[dict[str, Any]]:
    return [
        {"index": argument, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
        for argument, (mask, value) in sorted(case.items())
    ]


def _acted(action: kafel.Action) -> dict[str, Any]:
    return (
        {"action": "SCMP_ACT_ERRNO", "errnoRet": action.error}
        if action.error
        else {"action": "SCMP_ACT_ALLOW"}
    )
