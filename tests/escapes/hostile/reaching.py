"""Reaches for other processes, other agents and the network."""

import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess

from attempts import FACTS, answer, read, report, text

AF_VSOCK, AF_ALG, AF_PACKET, AF_KEY, AF_TIPC, AF_BLUETOOTH, AF_RDS, AF_CAN = 40, 38, 17, 15, 30, 31, 21, 29


def opened(*arguments):
    socket.socket(*arguments).close()


def connected(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as reaching:
        reaching.settimeout(20)
        reaching.connect(tuple(address) if isinstance(address, list) else address)


def sent(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as reaching:
        return reaching.sendto(b"x", tuple(address))


def families():
    found = {
        "raw": answer(opened, socket.AF_INET, socket.SOCK_RAW, 1),
        "raw6": answer(opened, socket.AF_INET6, socket.SOCK_RAW, 58),
        "packet": answer(opened, AF_PACKET, socket.SOCK_RAW, 0x300),
        "vsock": answer(opened, AF_VSOCK, socket.SOCK_STREAM),
        "alg": answer(opened, AF_ALG, socket.SOCK_SEQPACKET),
        "key": answer(opened, AF_KEY, socket.SOCK_RAW, 2),
        "tipc": answer(opened, AF_TIPC, socket.SOCK_STREAM),
        "bluetooth": answer(opened, AF_BLUETOOTH, socket.SOCK_RAW, 1),
        "rds": answer(opened, AF_RDS, socket.SOCK_SEQPACKET),
        "can": answer(opened, AF_CAN, socket.SOCK_RAW, 1),
        "pair of packets": answer(socket.socketpair, AF_PACKET, socket.SOCK_STREAM),
    }
    for name, protocol in (
        ("sock_diag", 4),
        ("xfrm", 6),
        ("audit", 9),
        ("netfilter", 12),
        ("uevent", 15),
        ("generic", 16),
    ):
        found["netlink " + name] = answer(opened, socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    return found


def interface_down():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as using:
        fcntl.ioctl(using, 0x8914, struct.pack("16sH22x", b"lo", 0))


def shared_memory(key):
    libc = ctypes.CDLL(None, use_errno=True)
    got = libc.shmget(ctypes.c_int(key), ctypes.c_size_t(0), 0)
    if got == -1:
        raise OSError(ctypes.get_errno(), "shmget")
    return got


def signals():
    """To everybody it can name."""
    child = subprocess.Popen(["sleep", "1000"])
    found = {
        "init": answer(os.kill, 1, signal.SIGKILL),
        "host": {str(pid): answer(os.kill, pid, signal.SIGKILL) for pid in FACTS["pids"]},
        "host group": {str(pid): answer(os.kill, -pid, signal.SIGKILL) for pid in FACTS["pids"]},
        "all": answer(os.kill, -1 if FACTS["all"] else child.pid, signal.SIGKILL),
    }
    found["own child"] = child.wait()
    found["init lives"] = os.path.exists("/proc/1/cmdline")
    return found


if __name__ == "__main__":
    pids = FACTS["pids"]
    report(
        signals=signals(),
        proc={str(pid): answer(os.listdir, f"/proc/{pid}") for pid in pids},
        through_proc={str(pid): answer(read, f"/proc/{pid}/root/workspace/secret") for pid in pids},
        memory={str(pid): answer(read, f"/proc/{pid}/mem") for pid in pids},
        files={path: answer(read, path) for path in FACTS["paths"]},
        unix={name: answer(connected, socket.AF_UNIX, name) for name in FACTS["unix"]},
        tcp={str(address): answer(connected, socket.AF_INET, address) for address in FACTS["tcp"]},
        tcp6={str(address): answer(connected, socket.AF_INET6, address) for address in FACTS["tcp6"]},
        udp=answer(sent, socket.AF_INET, ["192.0.2.1", 53]),
        families=families(),
        gate=answer(connected, socket.AF_UNIX, "/run/agentk/gate.sock"),
        gate_inside=answer(connected, socket.AF_INET, ["127.0.0.1", 8700]),
        gate_again=answer(os.unlink, "/run/agentk/gate.sock"),
        routes=text("/proc/net/route"),
        unix_seen=text("/proc/net/unix"),
        interface_down=answer(interface_down),
        shared_memory=answer(shared_memory, FACTS["shm_key"]),
        resolve=answer(socket.getaddrinfo, "example.org", 80),
    )
