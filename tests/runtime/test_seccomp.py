"""The policies read, compiled and translated: every reader of them gives the same answers."""

import ctypes
import ctypes.util
import json
import os
import random
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentk.data import files
from agentk.runtime.seccomp import bpf, kafel, oci

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
KILL, ERRNO, ALLOW = 0x80000000, 0x50000, 0x7FFF0000
NAMES = ("clone", "unshare", "ioctl", "personality", "socket", "socketpair")
each = pytest.mark.parametrize(
    ("name", "machine"), [(name, one) for name in kafel.DEFAULTS for one in MACHINES]
)


def run(program: bytes, machine: int, number: int, arguments: Sequence[int]) -> int:
    """What the kernel would answer."""
    data = struct.pack("<IIQ6Q", number, machine, 0, *[*arguments, 0, 0, 0, 0, 0, 0][:6])
    code = list(struct.iter_unpack("<HBBI", program))
    held = at = 0
    while True:
        operation, yes, no, constant = code[at]
        at += 1
        if operation == 0x20:
            held = struct.unpack_from("<I", data, constant)[0]
        elif operation == 0x54:
            held &= constant
        elif operation == 0x05:
            at += constant
        elif operation in (0x15, 0x35, 0x25, 0x45):
            true = {0x15: held == constant, 0x35: held >= constant, 0x25: held > constant}.get(
                operation, bool(held & constant)
            )
            at += yes if true else no
        else:
            assert operation == 0x06
            return int(constant)


def answered(policy: kafel.Policy, number: int, arguments: Sequence[int]) -> int:
    """What the policy says, read rule by rule."""

    def holds(condition: kafel.Condition | None) -> bool:
        if condition is None:
            return True
        if isinstance(condition, kafel.Bits):
            return ((arguments[condition.argument] & condition.mask) == condition.value) == condition.equal
        return (any if isinstance(condition, kafel.AnyOf) else all)(holds(part) for part in condition.parts)

    for rule in policy.rules.get(number, ()):
        if holds(rule.condition):
            return rule.action.error
    return policy.default.error


def tried(policy: kafel.Policy) -> Iterator[tuple[int, list[int]]]:
    """Every call, and those that depend on their arguments with many."""
    chance = random.Random(1)
    numbers = {0, 999, *policy.calls.values()}
    for number in sorted(numbers | {number + 1 for number in numbers}):
        yield number, [0] * 6
    plain = [0, 1, 2, 3, 8, 10, 16, 17, 38, 0x5412, 0x541C, 0x541B, 0x20000, 0x20008, 0x40000, 0xFFFFFFFF]
    for name in NAMES:
        values = [*plain, *(1 << bit for bit in range(64)), *(value | 1 << 32 for value in plain)]
        values += [chance.getrandbits(64) for _ in range(100)] + [chance.getrandbits(32) for _ in range(100)]
        values += [value ^ 1 << bit for value in plain for bit in range(64)]
        for value in values:
            yield policy.calls[name], [value, chance.choice(values), chance.choice(plain), 0, 0, 0]
            yield policy.calls[name], [chance.choice(plain), value, 0, 0, 0, 0]


@each
def test_compiled_is_what_was_written(name: str, machine: str) -> None:
    policy = kafel.load(name, machine)
    program = bpf.compiled(policy)
    for number, arguments in tried(policy):
        said = run(program, MACHINES[machine], number, arguments)
        wanted = answered(policy, number, arguments)
        assert said == (ERRNO | wanted if wanted else ALLOW), (number, arguments)


@each
def test_other_numberings_are_killed(name: str, machine: str) -> None:
    program = bpf.compiled(kafel.load(name, machine))
    for other in (0x40000003, 0x40000028, *set(MACHINES.values()) - {MACHINES[machine]}):
        assert run(program, other, 39, [0]) == KILL
    if machine == "x86_64":
        assert run(program, MACHINES[machine], 0x40000000 | 39, [0]) == KILL


class Rule(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    ]


def by_libseccomp(profile: dict[str, Any], token: int, path: Path) -> bytes:
    """As an OCI runtime does it."""
    library = ctypes.CDLL(ctypes.util.find_library("seccomp"))
    library.seccomp_init.restype = ctypes.c_void_p

    def number_of(told: dict[str, Any], action: str, error: str) -> int:
        return ALLOW if told[action] == "SCMP_ACT_ALLOW" else ERRNO | int(told[error])

    default = number_of(profile, "defaultAction", "defaultErrnoRet")
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    library.seccomp_arch_remove(context, ctypes.c_uint32(0))
    assert library.seccomp_arch_add(context, ctypes.c_uint32(token)) == 0
    for entry in profile["syscalls"]:
        action = number_of(entry, "action", "errnoRet")
        compared = [
            Rule(told["index"], 7, told["value"], told["valueTwo"])  # 7: SCMP_CMP_MASKED_EQ
            for told in entry.get("args", ())
        ]
        for call in entry["names"]:
            known = library.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(token), call.encode())
            native = library.seccomp_syscall_resolve_name(call.encode())
            if known < 0:
                continue  # runtimes skip what their library does not know
            array = (Rule * len(compared))(*compared)
            done = library.seccomp_rule_add_array(
                context, ctypes.c_uint32(action), native, ctypes.c_uint(len(compared)), array
            )
            assert done == 0, (call, done)
    with path.open("wb") as file:
        assert library.seccomp_export_bpf(context, file.fileno()) == 0
    library.seccomp_release(context)
    return path.read_bytes()


@pytest.mark.skipif(not ctypes.util.find_library("seccomp"), reason="no libseccomp")
@each
def test_an_oci_runtime_gives_the_same_answers(name: str, machine: str, tmp_path: Path) -> None:
    profile = json.loads(json.dumps(oci.oci_profile(name, machine)))
    policy = kafel.load(name, machine)
    program = by_libseccomp(profile, MACHINES[machine], tmp_path / "bpf")
    assert len(program) // 8 <= 4096
    for number, arguments in tried(policy):
        wanted = answered(policy, number, arguments)
        said = run(program, MACHINES[machine], number, arguments)
        assert said == (ERRNO | wanted if wanted else ALLOW), (number, arguments)


def test_an_unknown_machine_is_refused() -> None:
    for machine in ("riscv64", "../x", ""):
        with pytest.raises(ValueError, match="there is no seccomp"):
            kafel.load("baseline", machine)
        with pytest.raises(ValueError, match="there is no seccomp"):
            oci.oci_profile("restricted", machine)
    with pytest.raises(ValueError, match="there is no seccomp"):
        kafel.load("unconfined", "x86_64")


@pytest.mark.parametrize(
    "text",
    [
        "POLICY x { KILL { open } }",
        "POLICY x { ALLOW { nosuchcall } }",
        "POLICY x { ALLOW { open(a) { a > 1 } } }",
        "POLICY x { ALLOW { open(a) { b == 1 } } }",
        "POLICY x { ALLOW { open }",
        "POLICY x { ALLOW { open } } USE x DEFAULT ALLOW",
        "POLICY x { ALLOW { open; } }",
        "#define A 1",
        "USE baseline",
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    """A rule that was skipped would be a hole."""
    with pytest.raises((ValueError, KeyError)):
        kafel.read(text, {"open": 2}, {})


@pytest.mark.skipif(not os.path.exists("/usr/include/asm-generic/unistd.h"), reason="no kernel headers")
def test_numbers_are_the_kernels() -> None:
    found = [
        *sorted(Path("/usr/include").glob("*/asm/unistd_64.h")),
        Path("/usr/include/asm-generic/unistd.h"),
    ]
    for header in found:
        table = "x86_64" if header.name == "unistd_64.h" else "aarch64"
        ours = kafel.load("baseline", table).calls
        told = dict(re.findall(r"^#define __NR(?:3264)?_(\w+) (\d+)$", header.read_text(), re.M))
        common = {name: number for name, number in ours.items() if name in told}
        assert len(common) > 250
        assert common == {name: int(told[name]) for name in common}


def test_every_table_has_every_name_once() -> None:
    for file in (files.folder("runtimes") / "seccomp").iterdir():
        lines = [line.split() for line in file.read_text().splitlines()]
        assert len({name for name, _ in lines}) == len({number for _, number in lines}) == len(lines)
