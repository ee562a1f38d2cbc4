"""A Checkpoint and its restore, beside the same bytes saved and brought back by what every machine has.

    python -m tests.bench.checkpoints [--rounds 20]

A Checkpoint: from the request until its status says that it is whole on the disk, of an agent that runs and is frozen
meanwhile. Plain: sqlite3's backup of a file with pages of the same contents, and `tar` of the same files, both synced.
A restore: from the request until the agent runs again, beside a restart without one; plain: backup and tar the
other way round. All ways take turns.
"""

import argparse
import itertools
import os
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentk.api import kinds
from agentk.client import client as clients
from agentk.client import watching
from tests.bench import daemons

SIZES = ((100, 1), (1_000, 16))  # pages, MiB
QUOTED_SECONDS = 0.025  # a checkpoint, as another kernel for agents says of itself
WAYS = ("checkpoint", "plain save", "restart", "restart, restored", "plain restore")
_TEXT = "Item {n} is of some length, as messages of people are, and has a few words of its own: {n}. " * 4
_FILES = 16  # that the bytes are in
_SECONDS = 300.0
_NAMESPACE = "default"

_PROGRAM = """
import os, time
from agentk.sdk import client
pages, size, text = int(os.environ["PAGES"]), int(os.environ["SIZE"]), os.environ["TEXT"]
agent = client.connect()
if not os.path.exists("/workspace/ready"):
    for n in range(pages):
        agent.remember(text.format(n=n))
    for n in range(16):
        open(f"/workspace/file{n}", "wb").write(os.urandom(size // 16))
    open("/workspace/ready", "w").close()
agent.remember("began", name="began")
time.sleep(100000)
"""


class Plain:
    """The same bytes without agentk."""

    def __init__(self, folder: Path, pages: int, size: int) -> None:
        self._folder, self._files = folder, folder / "files"
        self._files.mkdir(parents=True)
        for number in range(_FILES):
            (self._files / f"file{number}").write_bytes(os.urandom(size // _FILES))
        self._pages = sqlite3.connect(folder / "pages.db")
        self._pages.execute("CREATE TABLE pages (id INTEGER PRIMARY KEY, content TEXT)")
        texts = ((_TEXT.format(n=number),) for number in range(pages))
        self._pages.executemany("INSERT INTO pages (content) VALUES (?)", texts)
        self._pages.commit()

    def save(self) -> None:
        self._copied(self._pages, self._folder / "saved.db")
        tar = self._folder / "saved.tar"
        subprocess.run(["tar", "-cf", tar, "-C", self._files, "."], check=True)
        _sync(tar)

    def restore(self) -> None:
        with sqlite3.connect(self._folder / "saved.db") as saved:
            self._copied(saved, self._folder / "back.db")
        saved.close()
        shutil.rmtree(self._folder / "back", ignore_errors=True)
        (self._folder / "back").mkdir()
        subprocess.run(["tar", "-xf", self._folder / "saved.tar", "-C", self._folder / "back"], check=True)

    def _copied(self, source: sqlite3.Connection, path: Path) -> None:
        path.unlink(missing_ok=True)
        made = sqlite3.connect(path)
        source.backup(made)
        made.close()
        _sync(path)


@dataclass(frozen=True)
class Agent:
    api: clients.Client
    name: str

    def checkpoint(self, name: str) -> None:
        spec = {"agentRef": {"name": self.name}}
        made = {
            "apiVersion": kinds.API_VERSION,
            "kind": "Checkpoint",
            "metadata": {"name": name},
            "spec": spec,
        }
        self.api.create(kinds.CHECKPOINT, _NAMESPACE, made)
        status = self._until(
            kinds.CHECKPOINT, name, lambda status: status.get("phase") in ("Ready", "Failed")
        )
        assert status["phase"] == "Ready", status

    def drop(self, name: str) -> None:
        self.api.delete(kinds.CHECKPOINT, _NAMESPACE, name)

    def again(self, verb: str, **body: str) -> None:
        attempt = self.api.get(kinds.AGENT, _NAMESPACE, self.name)["status"]["attempt"]
        self.api.act(_NAMESPACE, self.name, verb, body)
        self.runs(attempt + 1)

    def runs(self, attempt: int) -> None:
        def holds(status: dict[str, Any]) -> bool:
            return status.get("phase") == "Running" and status.get("attempt", 0) >= attempt

        self._until(kinds.AGENT, self.name, holds)

    def _until(self, kind: kinds.Kind, name: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        selection = clients.Selection(kind, _NAMESPACE, "", f"metadata.name={name}")
        for obj in watching.states(self.api, selection, time.monotonic() + _SECONDS):
            status: dict[str, Any] = (obj or {}).get("status") or {}
            if holds(status):
                return status
        raise SystemExit(f"{kind.singular} {name} did not get there")


def measured(api: clients.Client, folder: Path, pages: int, mib: int, rounds: int) -> dict[str, list[float]]:
    """Seconds, by way."""
    size, name = mib * 2**20, f"of-{pages}"
    env = {"PAGES": str(pages), "SIZE": str(size), "TEXT": _TEXT}
    limits = {"cpu": "1", "memory": "256Mi", "pids": 16, "ephemeral-storage": f"{2 * mib + 8}Mi"}
    obj = daemons.agent(
        name,
        ["python", "-c", _PROGRAM],
        memory={},
        env=[{"name": key, "value": value} for key, value in env.items()],
        resources={"limits": limits},
    )
    api.create(kinds.AGENT, _NAMESPACE, obj)
    agent, plain = Agent(api, name), Plain(folder / name, pages, size)
    _filled(agent, pages)
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds):
        kept = f"{name}-{number}"
        acts: tuple[Callable[[], object], ...] = (
            lambda kept=kept: agent.checkpoint(kept),  # type: ignore[misc]
            plain.save,
            lambda: agent.again("restart"),
            lambda kept=kept: agent.again("restore", checkpoint=kept),  # type: ignore[misc]
            plain.restore,
        )
        for way, act in zip(WAYS, acts, strict=True):
            begun = time.perf_counter()
            act()
            times[way].append(time.perf_counter() - begun)
        agent.drop(kept)
    return times


def promised(rounds: int = 10) -> str:
    """The smallest, for the table of what is claimed of others."""
    pages, mib = SIZES[0]
    with daemons.kept() as (_, api), tempfile.TemporaryDirectory(prefix="akb-") as folder:
        times = measured(api, Path(folder), pages, mib, rounds)
    median, plain = (statistics.median(times[way]) for way in WAYS[:2])
    p95 = statistics.quantiles(times[WAYS[0]], n=20)[-1]
    told = f"{median * 1e3:.1f} ms, p95 {p95 * 1e3:.1f} ms, {median / plain:.2f}× backup and tar, synced"
    return f"{told} ({pages} pages and {mib} MiB)"


def _filled(agent: Agent, pages: int) -> None:
    """Until a Checkpoint of it has all."""
    agent.runs(1)
    for number in itertools.count():
        name = f"{agent.name}-first-{number}"
        agent.checkpoint(name)
        status = agent.api.get(kinds.CHECKPOINT, _NAMESPACE, name)["status"]
        agent.drop(name)
        if status["files"] > _FILES and status["pages"] > pages:
            return
        time.sleep(0.5)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    print("| what | way | median | p95 | to plain |\n|---|---|---|---|---|")
    with daemons.kept() as (_, api), tempfile.TemporaryDirectory(prefix="akb-") as folder:
        for pages, mib in SIZES:
            times = measured(api, Path(folder), pages, mib, given.rounds)
            medians = {way: statistics.median(found) for way, found in times.items()}
            beside = dict(zip(WAYS, [WAYS[1], WAYS[1], "", WAYS[4], WAYS[4]], strict=True))
            for way in WAYS:
                p95 = statistics.quantiles(times[way], n=20)[-1]
                ratio = f"{medians[way] / medians[beside[way]]:.2f}×" if beside[way] else "-"
                what = f"{pages:,} pages, {mib} MiB"
                print(f"| {what} | {way} | {medians[way] * 1e3:.1f} ms | {p95 * 1e3:.1f} ms | {ratio} |")
    print(f"\nA checkpoint often quoted for such systems takes {QUOTED_SECONDS * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
