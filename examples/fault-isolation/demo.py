"""The main job on real input: seven hostile agents and one healthy one, and what the kernel counted for each.

Nothing here trusts an agent's word where the kernel keeps a count. Every line is a check that can fail; one
failure makes the exit code 1. Uses a state of its own and leaves nothing behind.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
AGENTK = Path(sys.executable).parent / "agentk"
NAMESPACE = "fault-isolation"
WAIT_SECONDS = 120
ENDED = {"Succeeded", "Failed"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Check:
    ok: bool
    text: str


@dataclass(frozen=True)
class Outcome:
    """One agent at the end: its object, what it printed, and the connections the host's own listener saw."""

    status: Json
    lines: list[str]
    log_bytes: int = 0
    host_connections: int = 0

    def count(self, name: str) -> int:
        return int(self.status.get("counters", {}).get(name) or 0)

    def said(self, word: str) -> str:
        return next((line for line in self.lines if word in line), "it printed nothing of the kind")

    def answers(self) -> list[Json]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]


def cpu_hog(seen: Outcome) -> list[Check]:
    periods, used = seen.count("throttledPeriods"), seen.count("cpuUsec") / 1e6
    wall = 6.0
    return [
        Check(periods > 0, f"throttled in {periods} periods (cpu.stat)"),
        Check(0 < used < 0.4 * wall, f"{used:.2f} s of CPU in {wall:.0f} s, limit 0.2 CPU"),
    ]


def memory_hog(seen: Outcome) -> list[Check]:
    kills = seen.count("oomKills")
    reason = seen.status.get("reason")
    return [
        Check(kills > 0, f"oom kills: {kills} (the cgroup's own counter)"),
        Check(
            reason == "OOMKilled", f"reason {reason}; last words: {seen.lines[-1] if seen.lines else 'none'}"
        ),
    ]


def fork_bomb(seen: Outcome) -> list[Check]:
    denied = seen.count("pidsDenied")
    return [Check(denied > 0, f"forks denied: {denied} (pids.events); {seen.said('children')}")]


def disk_hog(seen: Outcome) -> list[Check]:
    said = seen.said("wrote")
    return [
        Check("ENOSPC" in said, f"{said}; limit 16Mi on {seen.status.get('workspace', {}).get('medium')}")
    ]


def log_flood(seen: Outcome) -> list[Check]:
    held, kept = seen.count("logHeldBackUsec") / 1e6, seen.log_bytes
    return [
        Check(held > 0, f"held back for {held:.1f} s; {seen.said('printed')}"),
        Check(0 < kept <= 3 << 20, f"{kept >> 10} KiB of log kept, limit 2 files of 1 MiB"),
    ]


def network_probe(seen: Outcome) -> list[Check]:
    answers = seen.answers()
    return [
        Check(len(answers) >= 6, f"{len(answers)} attempts made"),
        Check(seen.host_connections == 0, f"the host's listener saw {seen.host_connections} connections"),
        *(Check(not one["reached"], f"{one['attempt']}: {one['got']}") for one in answers),
    ]


def escape_artist(seen: Outcome) -> list[Check]:
    answers = seen.answers()
    made = Check(len(answers) >= 18, f"{len(answers)} attempts made")
    return [made, *(Check(not one["escaped"], f"{one['attempt']}: {one['got']}") for one in answers)]


def healthy(seen: Outcome) -> list[Check]:
    said = seen.said("beats=")
    gap = float(said.split("longest_gap_ms=")[1]) if "longest_gap_ms=" in said else float("inf")
    restarts = int(seen.status.get("restartCount") or 0)
    return [
        Check(gap < 1000, f"never missed a beat: {said}"),
        Check(seen.status.get("phase") == "Succeeded" and restarts == 0, f"ended {seen.status.get('phase')}"),
    ]


JUDGES: dict[str, Callable[[Outcome], list[Check]]] = {
    "cpu-hog": cpu_hog,
    "memory-hog": memory_hog,
    "fork-bomb": fork_bomb,
    "disk-hog": disk_hog,
    "log-flood": log_flood,
    "network-probe": network_probe,
    "escape-artist": escape_artist,
    "healthy": healthy,
}

# What doctor calls the limit that keeps each of these from harming the host.
NEEDS = {
    "cgroup cpu": "cpu-hog",
    "cgroup memory": "memory-hog",
    "cgroup pids": "fork-bomb",
    "workspace limit": "disk-hog",
}
BEST_EFFORT = """\
apiVersion: agentk.dev/v1alpha1
kind: Runtime
metadata: {name: nsjail}
spec: {type: nsjail, enforcement: BestEffort}
"""


def main() -> int:
    state = Path(tempfile.mkdtemp(prefix="agentk-demo-"))
    env = {**os.environ, "AGENTK_STATE_DIR": str(state)}
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    try:
        unheld = missing_limits(env)
        manifest = prepared(HERE / "manifest.yaml", listener.getsockname()[1], unheld, state)
        say("$ agentk apply -f examples/fault-isolation/manifest.yaml")
        agentk(env, "apply", "-f", str(manifest), show=True)
        items = watch(env)
        return report(env, items, accepted(listener), unheld)
    finally:
        listener.close()
        subprocess.run([AGENTK, "daemon", "stop", "--agents"], env=env, capture_output=True, check=False)
        shutil.rmtree(state, ignore_errors=True)
        say(f"cleaned up: {'nothing left' if not state.exists() else f'{state} is still there'}")


def missing_limits(env: dict[str, str]) -> dict[str, str]:
    """Agents that must not run on this host, and why: nothing here would hold them.

    Raises SystemExit with what mends it when this host cannot make jails at all.
    """
    agentk(env, "daemon", "start")
    doctor = subprocess.run(
        [AGENTK, "doctor", "-o", "json"], env=env, capture_output=True, text=True, check=False
    )
    findings = {one["name"]: one for one in json.loads(doctor.stdout)["findings"]}
    if doctor.returncode:
        say(agentk(env, "doctor", check=False))
        raise SystemExit(
            "FAILED: this host cannot make the jails of the demo; the lines above say what mends it"
        )
    bad = {name: one for name, one in findings.items() if not one["ok"]}
    return {
        agent: f"{bad[limit]['message']}\n        mend it: {bad[limit]['fix']}"
        for limit, agent in NEEDS.items()
        if limit in bad
    }


def prepared(manifest: Path, port: int, unheld: dict[str, str], state: Path) -> Path:
    """The same manifest, telling network-probe the port on which this host listens.

    Where the host cannot hold every limit, the agents that live from the missing ones are left out and the others
    run under a Runtime that says so.
    """
    copy = state / "fault-isolation"
    shutil.copytree(manifest.parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = manifest.read_text()
    before = "  command: [python, network_probe.py]\n"
    text = text.replace(before, f'{before}  env: [{{name: HOST_PORT, value: "{port}"}}]\n')
    documents = [one for one in text.split("---\n") if not any(f"name: {name}," in one for name in unheld)]
    if unheld:
        documents.append(BEST_EFFORT)
    (copy / "manifest.yaml").write_text("---\n".join(documents))
    return copy / "manifest.yaml"


def watch(env: dict[str, str]) -> list[Json]:
    """Show the table until every agent has ended; live on a terminal, once at the end elsewhere."""
    deadline = time.monotonic() + WAIT_SECONDS
    lines = 0
    while True:
        items = json.loads(agentk(env, "get", "agents", "-n", NAMESPACE, "-o", "json"))["items"]
        done = all(item.get("status", {}).get("phase") in ENDED for item in items)
        if sys.stdout.isatty() or done or time.monotonic() > deadline:
            table = agentk(env, "get", "agents", "-n", NAMESPACE)
            sys.stdout.write(f"\x1b[{lines}A\x1b[J" * bool(lines) + table)
            sys.stdout.flush()
            lines = table.count("\n")
        if done or time.monotonic() > deadline:
            return items
        time.sleep(0.5)


def report(env: dict[str, str], items: list[Json], connections: int, unheld: dict[str, str]) -> int:
    found = {item["metadata"]["name"]: item.get("status", {}) for item in items}
    failures = 0
    for name, judge in JUDGES.items():
        if name in unheld:
            say(f"\n{name}\n  not run: {unheld[name]}")
            continue
        status = found.get(name, {})
        text = agentk(env, "logs", name, "-n", NAMESPACE) if name in found else ""
        log = Path(status.get("logPath") or "/nonexistent")
        kept = sum(path.stat().st_size for path in log.parent.glob(log.name + "*")) if log.exists() else 0
        checks = judge(Outcome(status, text.splitlines(), kept, connections))
        if status.get("phase") not in ENDED:
            checks.append(Check(False, f"did not end: {status.get('phase')} {status.get('message', '')}"))
        if not unheld:
            unenforced = status.get("limits", {}).get("unenforced", [])
            checks += [Check(False, f"not enforced: {limit}") for limit in unenforced]
        say(f"\n{name}")
        for check in checks:
            say(f"  {'ok  ' if check.ok else 'FAIL'}  {check.text}")
            failures += not check.ok
    if failures:
        say(f"\nFAILED: {failures} checks")
    elif unheld:
        say(
            f"\nevery limit this host has bit; {len(unheld)} agents were not run, because it has no limit for them"
        )
    else:
        say("\nevery limit bit; healthy never missed a beat")
    return 1 if failures else 0


def accepted(listener: socket.socket) -> int:
    count = 0
    while True:
        try:
            listener.accept()[0].close()
            count += 1
        except BlockingIOError:
            return count


def agentk(env: dict[str, str], *arguments: str, show: bool = False, check: bool = True) -> str:
    done = subprocess.run([AGENTK, *arguments], env=env, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"agentk {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    if show:
        say((done.stderr + done.stdout).rstrip())
    return done.stdout


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
