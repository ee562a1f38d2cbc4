"""Takes from this process what it needs no more once its sockets are open: dialling, and becoming another program.

A worker that reads what strangers say should have nothing to give them. What it may still ask of the kernel is bounded
by one filter, for itself and all it could ever start; it cannot be taken off again.
"""

import ctypes
import os
import platform
import struct

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _ANSWER = 0x20, 0x15, 0x35, 0x06
_KILL, _ALLOW, _EPERM = 0x80000000, 0x7FFF0000, 0x00050001
_NUMBER, _MACHINE, _X32 = 0, 4, 0x40000000
_INSTRUCTION = struct.Struct("<HBBI")

# socket connect bind listen accept accept4 sendto(2)'s addresses need a socket first · execve execveat ptrace
# process_vm_readv process_vm_writev io_uring_setup pidfd_getfd kill tkill tgkill
_REFUSED = {
    "x86_64": (0xC000003E, (41, 42, 49, 50, 43, 288, 59, 322, 101, 310, 311, 425, 438, 62, 200, 234)),
    "aarch64": (0xC00000B7, (198, 203, 200, 201, 202, 242, 221, 281, 117, 270, 271, 425, 438, 129, 130, 131)),
}


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def confine() -> None:
    """Raises OSError when the kernel does not do it: then nothing may be read from a stranger here."""
    code = _filter(platform.machine())
    program = _Program(len(code) // _INSTRUCTION.size, code)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for call in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if prctl(*call):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _filter(machine: str) -> bytes:
    if machine not in _REFUSED:
        raise OSError(f"there is no filter of system calls for {machine}")
    name, refused = _REFUSED[machine]
    last = len(refused)
    code = [
        (_LOAD, 0, 0, _MACHINE),
        (_IF_EQUAL, 1, 0, name),
        (_ANSWER, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, last + 1, 0, _X32),  # of another numbering
        *((_IF_EQUAL, last - at, 0, number) for at, number in enumerate(refused)),
        (_ANSWER, 0, 0, _ALLOW),
        (_ANSWER, 0, 0, _EPERM),
    ]
    return b"".join(_INSTRUCTION.pack(*one) for one in code)
