"""A policy as a program of the kernel's, for processes that we put into a box ourselves. Pure: data in, bytes out.

It looks at the machine first, so that no call of another numbering (32-bit calls, x32) is judged by these numbers:
those are killed. Then it halves the numbers until one range with one answer is left.
"""

import struct
from collections.abc import Sequence

from agentk.runtime.seccomp import kafel

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000  # in the number of a call
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_LOAD, _AND = 0x20, 0x54  # a word of it, absolute; with a constant
_IF_EQUAL, _IF_AT_LEAST, _GO, _ANSWER = 0x15, 0x35, 0x05, 0x06
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_FAR = 255  # instructions that a condition can skip
_LOW = (1 << 32) - 1
_INSTRUCTION = struct.Struct("<HBBI")
_MAX = 4096  # of the kernel's
Code = tuple[tuple[int, int, int, int], ...]  # operation, to skip when true, to skip when not, constant


def compiled(policy: kafel.Policy) -> bytes:
    """An array of struct sock_filter. Raises ValueError for a machine that is not known."""
    if policy.machine not in _AUDIT:
        raise ValueError(f"there is no seccomp filter for {policy.machine}")
    killed = _answer(_KILL)
    code = _judged(policy)
    if policy.machine == "x86_64":
        code = _when(_IF_AT_LEAST, _X32, killed, code)
    code = ((_LOAD, 0, 0, _NUMBER), *code)
    code = ((_LOAD, 0, 0, _MACHINE), *_when(_IF_EQUAL, _AUDIT[policy.machine], code, killed))
    if len(code) > _MAX:
        raise ValueError(f"a filter of {len(code)} instructions is too long")
    return b"".join(_INSTRUCTION.pack(*one) for one in code)


def _judged(policy: kafel.Policy) -> Code:
    """With the call's number at hand."""
    default = _acted(policy.default)
    ranges: list[tuple[int, Code]] = [(0, default)]  # from this number on
    for number in sorted(policy.rules):
        code = _ruled(policy.rules[number], default)
        if ranges[-1][0] == number:
            ranges.pop()
        ranges += [(number, code), (number + 1, default)]
    merged = [ranges[0]]
    for start, code in ranges[1:]:
        if code != merged[-1][1]:
            merged.append((start, code))
    return _halved(merged)


def _halved(ranges: Sequence[tuple[int, Code]]) -> Code:
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    return _when(_IF_AT_LEAST, ranges[middle][0], _halved(ranges[middle:]), _halved(ranges[:middle]))


def _ruled(rules: Sequence[kafel.Rule], default: Code) -> Code:
    code = default
    for rule in reversed(rules):
        acted = _acted(rule.action)
        code = acted if rule.condition is None else _chosen(rule.condition, acted, code)
    return code


def _chosen(condition: kafel.Condition, yes: Code, no: Code) -> Code:
    if isinstance(condition, kafel.AnyOf):
        for part in reversed(condition.parts):
            no = _chosen(part, yes, no)
        return no
    if isinstance(condition, kafel.AllOf):
        for part in reversed(condition.parts):
            yes = _chosen(part, yes, no)
        return yes
    if not condition.equal:
        yes, no = no, yes
    at = _ARGUMENTS + 8 * condition.argument
    low = _word(at, condition.mask & _LOW, condition.value & _LOW, yes, no)
    return _word(at + 4, condition.mask >> 32, condition.value >> 32, low, no)


def _word(at: int, mask: int, value: int, yes: Code, no: Code) -> Code:
    """Whether 32 bits of the call are so."""
    if value & ~mask:
        return no
    if not mask:
        return yes
    masked = () if mask == _LOW else ((_AND, 0, 0, mask),)
    return ((_LOAD, 0, 0, at), *masked, *_when(_IF_EQUAL, value, yes, no))


def _when(operation: int, constant: int, yes: Code, no: Code) -> Code:
    if len(yes) <= _FAR:
        return ((operation, 0, len(yes), constant), *yes, *no)
    return ((operation, 1, 0, constant), (_GO, 0, 0, len(yes)), *yes, *no)


def _acted(action: kafel.Action) -> Code:
    return _answer(_ERRNO | action.error if action.error else _ALLOW)


def _answer(value: int) -> Code:
    return ((_ANSWER, 0, 0, value),)
