"""Takes from this process what it needs no more once its sockets are open: dialling, becoming another program, files.

A worker that reads what strangers say should have nothing to give them. What it may still ask of the kernel is bounded
by one filter, and what it may open, where the kernel has Landlock, to the libraries it is made of: the daemon's own
files are not among them. Neither can be taken off again.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _ANSWER = 0x20, 0x15, 0x35, 0x06
_KILL, _ALLOW, _EPERM = 0x80000000, 0x7FFF0000, 0x00050001
_NUMBER, _MACHINE, _X32 = 0, 4, 0x40000000
_INSTRUCTION = struct.Struct("<HBBI")

# landlock_create_ruleset(2) and the others: the same numbers on every architecture. All of the first version's rights
# are handled; of those, reading files and folders is given back for libraries.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF, _PATH_BENEATH = 444, 445, 446, 1
_FILES, _READ = (1 << 13) - 1, (1 << 2) | (1 << 3)
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64")

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
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _keep_to_libraries(libc)
    code = _filter(platform.machine())
    program = _Program(len(code) // _INSTRUCTION.size, code)
    _checked(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0))


def _keep_to_libraries(libc: ctypes.CDLL) -> None:
    """Nothing is written, and nothing else read. A kernel without Landlock does without."""
    rights = struct.pack("<Q", _FILES)
    ruleset = libc.syscall(_CREATE_RULESET, rights, len(rights), 0)
    if ruleset < 0:
        if ctypes.get_errno() in (errno.ENOSYS, errno.EOPNOTSUPP):
            return
        _checked(ruleset)
    try:
        for path in {*sys.path, sys.prefix, sys.base_prefix, *_LIBRARIES}:
            if os.path.isdir(path):
                _allow(libc, ruleset, path)
        _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str) -> None:
    folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rule = struct.pack("<Qi", _READ, folder)
        _checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
    finally:
        os.close(folder)


def _checked(answer: int) -> None:
    if answer < 0:
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
