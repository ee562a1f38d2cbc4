"""Calls what the kernel must refuse, by number, so that no library is in the way."""

import ctypes
import fcntl
import mmap
import os
import platform
import signal
import struct

from attempts import NUMBERS, answer, report, syscall, text

NEW = {
    "time": 0x80,
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
PLAIN = (
    "pivot_root chroot umount2 open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr quotactl quotactl_fd "
    "name_to_handle_at open_by_handle_at process_vm_readv process_vm_writev kcmp pidfd_getfd process_madvise "
    "bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register add_key request_key keyctl "
    "fanotify_init move_pages migrate_pages reboot kexec_load kexec_file_load init_module finit_module "
    "delete_module swapon swapoff acct syslog settimeofday clock_settime clock_adjtime adjtimex sethostname "
    "setdomainname vhangup"
)


def in_child(act):
    """What `act` answers in a child, which may die of it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, str(answer(act)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    status = os.waitpid(pid, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said


def clone(flags):
    pid = syscall("clone", flags | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)[0]


def clone3(flags):
    arguments = struct.pack("8Q", flags, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    pid = syscall("clone3", arguments, len(arguments))
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)[0]


def setns(name):
    fd = os.open("/proc/1/ns/" + name, os.O_RDONLY)
    try:
        return syscall("setns", fd, 0)
    finally:
        os.close(fd)


def compat(number, first):
    """A system call of 32-bit x86, whose numbers and filters differ."""
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code = b"\x53\xb8" + struct.pack("<I", number) + b"\xbb" + struct.pack("<I", first) + b"\xcd\x80\x5b\xc3"
    memory.write(code)
    call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    result = call()
    if result < 0:
        raise OSError(-result, "compat")
    return result


def foreign():
    """The other ways into a kernel for x86-64: 32-bit calls, and x32."""
    if platform.machine() != "x86_64":
        return {}
    x32 = 0x40000000
    return {
        "i386 getpid": in_child(lambda: compat(20, 0)),
        "i386 unshare": in_child(lambda: compat(310, NEW["user"])),
        "x32 getpid": in_child(lambda: syscall(x32 | 39)),
        "x32 unshare": in_child(lambda: syscall(x32 | 272, NEW["user"])),
    }


def mounts():
    found = {
        "tmpfs": answer(syscall, "mount", b"none", b"/tmp", b"tmpfs", 0, 0),
        "proc": answer(syscall, "mount", b"none", b"/tmp", b"proc", 0, 0),
        "bind": answer(syscall, "mount", b"/usr", b"/tmp", b"", 0x1000, 0),
        "remount rw": answer(syscall, "mount", b"none", b"/usr", b"", 0x1020, 0),
        "remount root rw": answer(syscall, "mount", b"none", b"/", b"", 0x1020, 0),
        "private": answer(syscall, "mount", b"none", b"/", b"", 0x40000, 0),
    }
    for point in ("/proc/keys", "/usr", "/etc", "/proc", "/run/agentk"):
        found["umount " + point] = answer(syscall, "umount2", point.encode(), 2)
    return found


def terminal():
    def typed(request):
        return syscall("ioctl", 0, request, b"x")

    return {
        "TIOCSTI": answer(typed, 0x5412),
        "TIOCLINUX": answer(typed, 0x541C),
        "TIOCSTI with high bits": answer(typed, 0x100005412),
        "FIONREAD": answer(fcntl.ioctl, 1, 0x541B, b"1234"),
    }


def prctl(option, *values):
    libc = ctypes.CDLL(None, use_errno=True)
    padded = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    result = libc.prctl(option, *padded)
    if result == -1:
        raise OSError(ctypes.get_errno(), "prctl")
    return result


if __name__ == "__main__":
    nothing = (-1, -1, -1, -1, -1, -1)
    report(
        plain={name: in_child(lambda name=name: syscall(name, *nothing)) for name in PLAIN.split()},
        unshare={name: in_child(lambda flag=flag: syscall("unshare", flag)) for name, flag in NEW.items()},
        clone={
            name: in_child(lambda flag=flag: clone(flag))
            for name, flag in NEW.items()
            if name != "time"  # its bit is a signal's in clone
        },
        clone3={name: in_child(lambda flag=flag: clone3(flag)) for name, flag in NEW.items()},
        setns={name: answer(setns, name) for name in ("mnt", "net", "pid", "user", "uts")},
        mounts=mounts(),
        ptrace={
            "attach to init": answer(syscall, "ptrace", 16, 1, 0, 0),
            "seize init": answer(syscall, "ptrace", 0x4206, 1, 0, 0),
            "traceme": in_child(lambda: syscall("ptrace", 0, 0, 0, 0)),
        },
        terminal=terminal(),
        foreign=foreign(),
        privileges={
            "unset no_new_privs": answer(prctl, 38, 0),
            "raise ambient": answer(prctl, 47, 2, 21),
            "keep caps": answer(prctl, 28, 1),
            "bounding": [
                prctl(23, number) for number in range(int(text("/proc/sys/kernel/cap_last_cap")) + 1)
            ],
            "no_new_privs": prctl(39),
        },
        x86={
            name: in_child(lambda name=name: syscall(name, 3, 0, 0, 0))
            for name in ("iopl", "ioperm", "modify_ldt")
            if name in NUMBERS
        },
        personality=answer(syscall, "personality", 0x0400000),
    )
