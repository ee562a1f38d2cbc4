"""Without a seccomp policy a program may become root of a user namespace of its own. That must gain it nothing."""

import os

from attempts import answer, read, report, syscall, text, write

SPACES = 0x10000000 | 0x20000 | 0x20000000 | 0x40000000 | 0x8000000 | 0x4000000


def become_root():
    uid, gid = os.getuid(), os.getgid()
    syscall("unshare", SPACES)
    texts = (("setgroups", b"deny"), ("uid_map", b"0 %d 1" % uid), ("gid_map", b"0 %d 1" % gid))
    return {name: answer(write, "/proc/self/" + name, text) for name, text in texts}


def mount(source, target, kind, flags):
    return syscall("mount", source, target, kind, flags, 0)


def as_root():
    found = {
        "capabilities": next(
            line.split()[1] for line in text("/proc/self/status").splitlines() if line.startswith("CapEff")
        ),
        "tmpfs of its own": answer(mount, b"none", b"/tmp/m", b"tmpfs", 0),
        "proc anew": answer(mount, b"none", b"/tmp/m", b"proc", 0),
        "sysfs": answer(mount, b"none", b"/tmp/m", b"sysfs", 0),
        "devtmpfs": answer(mount, b"none", b"/tmp/m", b"devtmpfs", 0),
        "cgroup": answer(mount, b"none", b"/tmp/m", b"cgroup", 0),
        "ext4": answer(mount, b"/dev/vda", b"/tmp/m", b"ext4", 0),
        "usr rw": answer(mount, b"none", b"/usr", b"", 0x1020),
        "usr suid": answer(mount, b"none", b"/usr", b"", 0x1021),
        "proc rw": answer(mount, b"none", b"/proc", b"", 0x1020),
        "door rw": answer(mount, b"none", b"/run/agentk", b"", 0x1020),
        "part of a tree": answer(mount, b"/proc", b"/tmp/m", b"", 0x1000),
        "node": answer(os.mknod, "/tmp/m/mem", 0o020666, os.makedev(1, 1)),
        "shadow": answer(read, "/etc/shadow"),
        "usr": answer(write, "/usr/.escape"),
        "sysctl": answer(write, "/proc/sys/kernel/core_pattern"),
        "sysrq": answer(write, "/proc/sysrq-trigger"),
        "oom shield": answer(write, "/proc/self/oom_score_adj", b"-1000"),
        "module": answer(syscall, "finit_module", 0, b"", 0),
        "swap": answer(syscall, "swapon", b"/tmp/m", 0),
        "clock": answer(syscall, "settimeofday", bytes(16), 0),
        "setns": answer(setns_of_init),
    }
    for point in ("/proc/keys", "/proc/kcore", "/usr", "/etc", "/workspace", "/run/agentk"):
        if os.path.exists(point):
            found["umount " + point] = answer(syscall, "umount2", point.encode(), 2)
    return found


def setns_of_init():
    fd = os.open("/proc/1/ns/mnt", os.O_RDONLY)
    return syscall("setns", fd, 0)


if __name__ == "__main__":
    os.mkdir("/tmp/m")
    maps = become_root()
    child = os.fork()  # the first of its process namespace
    if child == 0:
        report(maps=maps, found=as_root())
        os._exit(0)
    os.waitpid(child, 0)
