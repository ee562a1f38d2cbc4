"""What hostile programs share: try something, say what the kernel answered, report. Runs in the jail, Python 3.9."""

import ctypes
import errno
import json
import platform
import sys

FACTS = json.loads(sys.argv[1]) if len(sys.argv) > 1 else None
_LIBC = ctypes.CDLL(None, use_errno=True)
_X86 = (
    "ptrace=101 syslog=103 personality=135 vhangup=153 modify_ldt=154 pivot_root=155 adjtimex=159 chroot=161 acct=163 "
    "settimeofday=164 mount=165 umount2=166 swapon=167 swapoff=168 reboot=169 sethostname=170 setdomainname=171 "
    "iopl=172 ioperm=173 init_module=175 delete_module=176 quotactl=179 ioctl=16 clock_settime=227 kexec_load=246 "
    "add_key=248 request_key=249 keyctl=250 migrate_pages=256 unshare=272 move_pages=279 perf_event_open=298 "
    "fanotify_init=300 name_to_handle_at=303 open_by_handle_at=304 clock_adjtime=305 setns=308 process_vm_readv=310 "
    "process_vm_writev=311 kcmp=312 finit_module=313 kexec_file_load=320 bpf=321 userfaultfd=323 clone=56 getpid=39"
)
_ARM = (
    "ptrace=117 syslog=116 personality=92 vhangup=58 pivot_root=41 adjtimex=171 chroot=51 acct=89 settimeofday=170 "
    "mount=40 umount2=39 swapon=224 swapoff=225 reboot=142 sethostname=161 setdomainname=162 init_module=105 "
    "delete_module=106 quotactl=60 ioctl=29 clock_settime=112 kexec_load=104 add_key=217 request_key=218 keyctl=219 "
    "migrate_pages=238 unshare=97 move_pages=239 perf_event_open=241 fanotify_init=262 name_to_handle_at=264 "
    "open_by_handle_at=265 clock_adjtime=266 setns=268 process_vm_readv=270 process_vm_writev=271 kcmp=272 "
    "finit_module=273 kexec_file_load=294 bpf=280 userfaultfd=282 clone=220 getpid=172"
)
_BOTH = (
    "io_uring_setup=425 io_uring_enter=426 io_uring_register=427 open_tree=428 move_mount=429 fsopen=430 "
    "fsconfig=431 fsmount=432 fspick=433 clone3=435 pidfd_getfd=438 process_madvise=440 mount_setattr=442 "
    "quotactl_fd=443"
)
NUMBERS = {
    name: int(number)
    for name, _, number in (
        pair.partition("=")
        for pair in ((_X86 if platform.machine() == "x86_64" else _ARM) + " " + _BOTH).split()
    )
}


def syscall(name, *arguments):
    """A raw system call; raises OSError."""
    number = NUMBERS[name] if isinstance(name, str) else name
    ctypes.set_errno(0)
    _LIBC.syscall.restype = ctypes.c_long
    answer = _LIBC.syscall(ctypes.c_long(number), *[_argument(value) for value in arguments])
    if answer == -1:
        raise OSError(ctypes.get_errno(), str(name))
    return answer


def _argument(value):
    return ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_long(value)


def answer(act, *arguments):
    """The name of the errno that the kernel refused with, else "allowed: what came of it"."""
    try:
        return f"allowed: {act(*arguments)!r}"[:300]
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error)) if error.errno else str(error)


def read(path):
    with open(path, "rb") as file:
        return file.read(64)


def text(path):
    with open(path, errors="replace") as file:
        return file.read()


def write(path, data=b"x"):
    with open(path, "ab", buffering=0) as file:
        return file.write(data)


def report(**found):
    """The program's one line of JSON."""
    print("REPORT " + json.dumps(found), flush=True)
