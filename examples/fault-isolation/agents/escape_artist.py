"""Tries the well-known ways out of a box and prints what the kernel answered to each."""

import ctypes
import errno
import glob
import json
import os
import platform
import signal
import socket

libc = ctypes.CDLL(None, use_errno=True)


def call(function, *arguments):
    if getattr(libc, function)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def attempt(name, act):
    """`act` returns a word when it got out, None when it found nothing, and raises what the kernel said."""
    try:
        got = act()
        escaped = got is not None
        answer = got or "nothing there"
    except OSError as error:
        escaped, answer = False, errno.errorcode.get(error.errno or 0, type(error).__name__)
    print(json.dumps({"attempt": name, "got": answer, "escaped": escaped}), flush=True)


def in_child(act):
    """Run `act` in a child, since success or a seccomp kill would end us. Raises what the child raised."""

    def run():
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(write, ("+" + str(act() or "")).encode())
            except OSError as error:
                os.write(write, str(error.errno).encode())
            os._exit(0)
        os.close(write)
        said = os.read(read, 1000).decode()
        os.close(read)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            raise OSError(errno.EPERM, "killed by " + signal.Signals(os.WTERMSIG(status)).name)
        if said.startswith("+"):
            return said[1:] or None
        raise OSError(int(said or 0), "refused")

    return run


def wrote(path):
    def act():
        with open(path, "w") as file:
            file.write("x")
        return "wrote " + path

    return act


def host_secret():
    with open("/etc/shadow") as file:
        return file.read(40) or "empty file"


def homes():
    seen = os.listdir("/home") if os.path.isdir("/home") else []
    seen += os.listdir("/root") if os.path.isdir("/root") else []
    return ", ".join(seen) or None


def other_processes():
    mine = {os.getpid(), os.getppid(), 1}
    others = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) not in mine]
    names = []
    for pid in others:
        with open("/proc/" + pid + "/comm") as file:
            names.append(file.read().strip())
    return ", ".join(names) or None


def devices():
    return (
        ", ".join(sorted(set(glob.glob("/dev/sd*") + glob.glob("/dev/vd*") + glob.glob("/dev/mem")))) or None
    )


def through_symlink():
    link = "/workspace/out"
    if not os.path.islink(link):
        os.symlink("/proc/1/root/../../etc/shadow", link)
    with open(link) as file:
        return file.read(40)


def raw_socket():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return "a raw socket"


def packet_socket():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    return "a packet socket"


def become_root():
    os.setuid(0)
    return "uid 0"


def new_user_namespace():
    call("unshare", 0x10000000)
    return "a user namespace of its own"


def mount_tmpfs():
    call("mount", b"none", b"/tmp", b"tmpfs", 0, None)
    return "a mount"


def make_device():
    os.mknod("/workspace/disk", 0o60600, os.makedev(254, 0))
    return "a device node"


def trace_init():
    call("ptrace", 16, 1, None, None)
    return "traces PID 1"


def keyring():
    keyctl = 219 if platform.machine() == "aarch64" else 250
    if libc.syscall(keyctl, 0, -4, 1) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return "the session keyring"


def change_root():
    os.chroot("/workspace")
    return "a root of its own"


attempt("read /etc/shadow of the host", host_secret)
attempt("list the homes of the host", homes)
attempt("see processes of others", other_processes)
attempt("write under /usr", wrote("/usr/owned"))
attempt("write under /etc", wrote("/etc/owned"))
attempt("write a kernel setting", wrote("/proc/sys/kernel/core_pattern"))
attempt("write into its door", wrote("/run/agentk/owned"))
attempt("find disks or memory in /dev", devices)
attempt("follow a symlink out of the workspace", through_symlink)
attempt("become root", become_root)
attempt("make a user namespace", in_child(new_user_namespace))
attempt("mount a file system", in_child(mount_tmpfs))
attempt("make a device node", in_child(make_device))
attempt("change its root", in_child(change_root))
attempt("trace PID 1", in_child(trace_init))
attempt("open a raw socket", in_child(raw_socket))
attempt("open a packet socket", in_child(packet_socket))
attempt("join a keyring", in_child(keyring))
