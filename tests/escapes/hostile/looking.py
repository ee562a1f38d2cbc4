"""Looks at everything that it can see, and reads what it should not."""

import os
import stat
import subprocess
import sys

from attempts import FACTS, answer, read, report, text, write


def start_fds():
    """As they are before this program opens anything of its own: number → where it leads."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            continue  # the directory's own
    return found


def fields(path):
    with open(path) as file:
        return {line.partition(":")[0]: line.partition(":")[2].strip() for line in file}


def tree_writable():
    """Directories in which a file could be made: every mount point and what is directly below."""
    points = {line.split()[4] for line in text("/proc/self/mountinfo").splitlines()}
    places = {"/"} | points | {os.path.join(p, n) for p in points if os.path.isdir(p) for n in entries(p)}
    found = []
    for place in sorted(p for p in places if os.path.isdir(p) and not os.path.islink(p)):
        name = os.path.join(place, ".escape")
        try:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_EXCL))
            os.unlink(name)
            found.append(place)
        except OSError:
            continue
    return found


def entries(path):
    try:
        return os.listdir(path)[:200]
    except OSError:
        return []


def open_any(path):
    return os.listdir(path) if os.path.isdir(path) else read(path)


def suid_programs():
    """How each setuid program of the host runs: glibc prints the kernel's word unless it gained something."""
    found = {}
    for folder in ("/usr/bin", "/usr/sbin", "/usr/lib/openssh", "/usr/libexec"):
        for name in entries_all(folder):
            path = os.path.join(folder, name)
            if not os.path.islink(path) and os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID):
                found[path] = auxiliary(path)
    return found


def entries_all(path):
    return os.listdir(path) if os.path.isdir(path) else []


def auxiliary(path):
    """What the dynamic linker says before the program's own first instruction; some then sleep, or ask."""
    ignored = subprocess.DEVNULL
    try:
        running = subprocess.Popen(
            [path], env={"LD_SHOW_AUXV": "1"}, stdin=ignored, stdout=subprocess.PIPE, stderr=ignored
        )
    except OSError as error:
        return {"refused": str(error)}
    found = {}
    for line in running.stdout:
        name, _, value = line.decode(errors="replace").partition(":")
        found[name] = value.strip()
        if name == "AT_SECURE":
            break
    running.kill()
    running.wait()
    running.stdout.close()
    return found


def links():
    """Links of every kind that lead out of the workspace."""
    os.chdir("/workspace")
    found = {}
    for number, target in enumerate(
        ["/etc/shadow", "/root", "../../../../../../root", *FACTS["secret_paths"]]
    ):
        os.symlink(target, f"link{number}")
        found["symlink " + target] = answer(open_any, f"link{number}")
    for target in ["/usr/bin/env", "/etc/passwd", "/run/agentk/gate.sock", "/opt/agentk/bin/init"]:
        found["link " + target] = answer(os.link, target, "hard")
    found["rename"] = answer(os.rename, "/etc/passwd", "stolen")
    return found


def nodes():
    found = {}
    for where in ("/workspace", "/tmp", "/dev/shm", "/dev"):
        found["mem in " + where] = answer(os.mknod, where + "/mem", stat.S_IFCHR | 0o666, os.makedev(1, 1))
        found["disk in " + where] = answer(
            os.mknod, where + "/disk", stat.S_IFBLK | 0o666, os.makedev(254, 0)
        )
    return found


if __name__ == "__main__":
    fds = start_fds()
    report(
        fds=fds,
        init_fds=sorted(os.listdir("/proc/1/fd")),
        environ=dict(os.environ),
        init_environ=text("/proc/1/environ"),
        argv=sys.argv[:2],
        status=fields("/proc/self/status"),
        init_status=fields("/proc/1/status"),
        cgroup=text("/proc/self/cgroup"),
        mountinfo=text("/proc/self/mountinfo"),
        pids={pid: text(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()},
        root=sorted(os.listdir("/")),
        dev=sorted(os.listdir("/dev")),
        etc=sorted(os.listdir("/etc")),
        door=os.listdir("/run/agentk"),
        uname=list(os.uname()),
        self_links={name: answer(os.readlink, "/proc/self/" + name) for name in ("exe", "root", "cwd")},
        reads={path: answer(open_any, path) for path in FACTS["paths"]},
        kernel_reads={path: answer(read, path) for path in FACTS["kernel_paths"]},
        kernel_writes={path: answer(write, path) for path in FACTS["kernel_writes"]},
        system_writes={path: answer(write, path) for path in FACTS["system_paths"]},
        writable=tree_writable(),
        uids={
            "setuid": answer(os.setuid, 0),
            "setresuid": answer(os.setresuid, 0, 0, 0),
            "setgid": answer(os.setgid, 0),
            "setgroups": answer(os.setgroups, [0]),
            "chown": answer(os.chown, "/workspace", 0, 0),
        },
        suid=suid_programs(),
        links=links(),
        nodes=nodes(),
    )
