"""Runs in the guest, as root, started by agentk-vm.service: one pytest run for each suite, then the results to disk c.

Each run is a transient systemd service that is delegated its cgroup, as agentk's own unit would be: root's under the
system manager, the user's under the real `systemd --user` of uid 1000. Standard library only, before anything of ours.
"""

import io
import json
import os
import pwd
import subprocess
import tarfile
import threading
import time
from pathlib import Path

TOP = "/srv/agentk"
USER = "agent"
RUNTIME = "/run/user/1000"
OUT = Path("/run/agentk-vm")
PATH = "/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMED_OUT = 124
FAILED = 1  # pytest: tests ran and some failed
GRACE_SECONDS = 5


def main() -> None:
    plan = json.loads(Path("/srv/plan.json").read_text())
    with open("/dev/ttyS1", "w", buffering=1, errors="replace") as wire:
        print(f"@up {uptime():.1f}", file=wire)
        for left, name in zip(range(len(plan["suites"]), 0, -1), plan["suites"], strict=True):
            print(f"@begin {name} {uptime():.1f}", file=wire)
            # Each may use an equal share of what is left, so that one that hangs does not leave the other none.
            share = (plan["until_uptime"] - uptime()) / left
            suite, until = Suite(name, plan["pytest"]), uptime() + share
            code = suite.run(until, wire)
            if code == FAILED:
                # Emulated and loaded, a real process may miss its moment: what failed, once more, alone and in sight.
                print(f"@again {name} {uptime():.1f}", file=wire)
                code = suite.run(until, wire, "--last-failed", "--last-failed-no-failures=none")
            (OUT / f"{name}.exit").write_text(str(code))
            print(f"@end {name} {uptime():.1f} {code}", file=wire)
        leave(OUT)
        print(f"@left {uptime():.1f}", file=wire)


class Suite:
    """One pytest run as root or as the user."""

    def __init__(self, name: str, pytest: list[str]) -> None:
        self.name, self.pytest = name, pytest
        self.unit = f"agentk-tests-{name}.service"
        account = pwd.getpwnam("root" if name == "root" else USER)
        self.folder = OUT / name
        self.folder.mkdir(parents=True)
        os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.env = {
            "AGENTK_VM": name,
            "HOME": account.pw_dir,
            "USER": account.pw_name,
            "LOGNAME": account.pw_name,
        }
        self.env |= {"PATH": PATH, "LANG": "C.UTF-8", "SHELL": "/bin/bash"}
        if name != "root":
            # What the run before wrote beside the sources must not be in this one's way.
            subprocess.run(["chown", "-R", f"{USER}:{USER}", TOP], check=True)

    def run(self, until_uptime: float, wire: io.TextIOBase, *more: str) -> int:
        """pytest's exit code. The results of the first run are the suite's; `more` options narrow a second one."""
        ended, late = threading.Event(), threading.Event()
        watch = threading.Thread(target=self.stop_late, args=(until_uptime, ended, late), name="deadline")
        process = subprocess.Popen(
            self.command(*more), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        watch.start()
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{self.name}| {line.decode(errors='replace').rstrip()}", file=wire)
        code = process.wait()
        ended.set()
        watch.join()
        results = OUT / (f"{self.name}.again.xml" if more else f"{self.name}.xml")
        if (self.folder / "junit.xml").exists():
            (self.folder / "junit.xml").rename(results)
        return TIMED_OUT if late.is_set() else code

    def command(self, *more: str) -> list[str]:
        options = ["--wait", "--pipe", "--collect", "--quiet", "--service-type=exec", f"--unit={self.unit}"]
        options += [
            f"--working-directory={TOP}",
            "--property=Delegate=yes",
            f"--property=TimeoutStopSec={GRACE_SECONDS}",
        ]
        options += [f"--setenv={name}={value}" for name, value in self.env.items()]
        pytest = ["/opt/venv/bin/python", "-m", "pytest", "-o", "junit_family=xunit1"]
        pytest += ["-o", "junit_logging=out-err", "-o", "junit_log_passing_tests=false"]
        pytest += [f"--junitxml={self.folder}/junit.xml", "--color=no", *self.pytest, *more]
        return self.manager("systemd-run", *options, "--", *pytest)

    def manager(self, tool: str, *words: str) -> list[str]:
        """`tool`, talking to the manager of this suite's account."""
        if self.name == "root":
            return [tool, *words]
        bus = f"DBUS_SESSION_BUS_ADDRESS=unix:path={RUNTIME}/bus"
        return ["runuser", "-u", USER, "--", "env", f"XDG_RUNTIME_DIR={RUNTIME}", bus, tool, "--user", *words]

    def stop_late(self, until_uptime: float, ended: threading.Event, late: threading.Event) -> None:
        """At the deadline SIGABRT makes pytest's faulthandler print where it hangs; then the unit is stopped."""
        if ended.wait(max(0.0, until_uptime - uptime())):
            return
        late.set()
        subprocess.run(self.manager("systemctl", "kill", "--kill-whom=main", "--signal=ABRT", self.unit))
        ended.wait(GRACE_SECONDS)
        subprocess.run(self.manager("systemctl", "stop", self.unit))


def leave(folder: Path) -> None:
    """The results and the journal's end, as a tar on disk c, synced: the service's end is the power's."""
    journal = subprocess.run(
        ["journalctl", "--boot", "--no-pager", "--lines=2000"], capture_output=True
    ).stdout
    (folder / "journal").write_bytes(journal)
    with open("/dev/vdc", "wb") as disk:
        with tarfile.open(fileobj=disk, mode="w") as tar:
            for path in sorted(folder.iterdir()):
                if path.is_file():
                    tar.add(path, path.name)
        disk.flush()
        os.fsync(disk.fileno())


def uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


if __name__ == "__main__":
    main()
