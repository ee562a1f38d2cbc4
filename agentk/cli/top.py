"""`agentk top`: what agents use now, from the kernel's counters read twice, and what the gate counted."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from agentk.api import errors, kinds
from agentk.cli import amounts, columns, connect, options, show
from agentk.client import client

app = typer.Typer(**options.APP)

HEADERS = ("Name", "CPU", "CPU-Limit", "Memory", "Memory-Limit", "Pids", "Pids-Limit", "Throttled")
GATE_HEADERS = ("Tokens", "Calls", "Cost")


_ORDERS = ("cpu", "memory", "pids", "tokens", "calls", "cost", "name")


@dataclass(frozen=True)
class Sample:
    """One agent's counters at one moment (`time.monotonic()` seconds)."""

    agent: show.Object
    counters: dict[str, Any]
    at: float
    spent: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.agent["metadata"]["name"])

    @property
    def key(self) -> tuple[str, int]:
        """A new attempt counts from zero, so it is another one."""
        return self.agent["metadata"]["uid"], (self.agent.get("status") or {}).get("attempt", 0)


@app.command()
def top(
    agents: options.SomeAgents = None,
    labels: options.Labels = "",
    namespace: options.Namespace = "",
    all_namespaces: options.AllNamespaces = False,
    watch: options.Watch = False,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.2, help="Between two looks.")
    ] = 1.0,
    sort_by: Annotated[
        str,
        typer.Option("--sort-by", metavar="COLUMN", help="cpu, memory, pids, tokens, calls, cost or name."),
    ] = "cpu",
    no_headers: options.NoHeaders = False,
) -> int:
    """Show what agents use now: CPU over the interval, memory, processes; and tokens, calls and cost so far.

    CPU is in percent of one CPU; Throttled is the share of the interval in which the limit held the agent back.

    Examples:

    \b
      agentk top
      agentk top -w -l tier=web
      agentk top triage --interval 5
      agentk top --sort-by cost
    """
    names = [name for name in options.agent_names(agents or []) if name != "agents"]
    where = "" if all_namespaces else options.namespace(namespace)
    asked = client.Selection(kinds.AGENT, where, labels)
    api = connect.connect()
    if sort_by not in _ORDERS:
        raise typer.BadParameter(f"use one of {', '.join(_ORDERS)}", param_hint="--sort-by")
    before = samples(api, asked, names)
    if not before and not watch:
        show.say("No running agents" + (f" in {where} namespace." if where else ""))
        return 0
    if watch:
        return _live(api, asked, names, interval, sort_by)
    time.sleep(interval)
    show.write(text(before, samples(api, asked, names), sort_by, not no_headers))
    return 0


def samples(api: client.Client, asked: client.Selection, names: Sequence[str]) -> list[Sample]:
    """Counters of every running agent that is meant."""
    found = []
    for obj in api.list(asked).items:
        if names and obj["metadata"]["name"] not in names:
            continue
        if (obj.get("status") or {}).get("phase") not in ("Running", "Suspended", "Starting"):
            continue
        path = kinds.AGENT.path(obj["metadata"]["namespace"], obj["metadata"]["name"], "counters")
        try:
            told = api.request("GET", path)
            found.append(Sample(obj, told["counters"], time.monotonic(), told.get("spent") or {}))
        except errors.NotFound:
            pass  # it ended between the two questions
    return found


def text(before: Sequence[Sample], now: Sequence[Sample], sort_by: str, headers: bool) -> str:
    """The table; an agent that was not there before shows no CPU yet."""
    earlier = {one.key: one for one in before}
    rows = [(_order(earlier.get(one.key), one, sort_by), _row(earlier.get(one.key), one)) for one in now]
    rows.sort(key=lambda pair: pair[0])
    return columns.draw([*HEADERS, *GATE_HEADERS], [row for _, row in rows], show=headers)


def _row(before: Sample | None, now: Sample) -> list[str]:
    limits = ((now.agent.get("spec") or {}).get("resources") or {}).get("limits") or {}
    cpu, throttled = _share(before, now, "cpuUsec"), _share(before, now, "throttledUsec")
    memory, pids = now.counters.get("memoryBytes"), now.counters.get("pids")
    return [
        now.name,
        "-" if cpu is None else f"{cpu * 100:.1f}%",
        str(limits.get("cpu", "-")),
        "-" if memory is None else f"{memory / 2**20:.1f}Mi",
        str(limits.get("memory", "-")),
        "-" if pids is None else str(pids),
        str(limits.get("pids", "-")),
        "-" if throttled is None else f"{min(throttled, 1.0) * 100:.0f}%",
        amounts.number(now.spent.get("tokens")),
        amounts.number(now.spent.get("calls")),
        amounts.usd(now.spent.get("costUsd")),
    ]


def _order(before: Sample | None, now: Sample, sort_by: str) -> tuple[float, str]:
    values = {
        "cpu": _share(before, now, "cpuUsec") or 0.0,
        "memory": float(now.counters.get("memoryBytes") or 0),
        "pids": float(now.counters.get("pids") or 0),
        "tokens": float(now.spent.get("tokens") or 0),
        "calls": float(now.spent.get("calls") or 0),
        "cost": float(now.spent.get("costUsd") or 0),
        "name": 0.0,
    }
    return -values[sort_by], now.name


def _share(before: Sample | None, now: Sample, counter: str) -> float | None:
    """How much of the time between two samples a counter of microseconds grew by."""
    if before is None or counter not in before.counters or counter not in now.counters:
        return None
    passed = (now.at - before.at) * 1e6
    return max(0.0, float(now.counters[counter] - before.counters[counter])) / passed if passed else None


def _live(
    api: client.Client, asked: client.Selection, names: Sequence[str], interval: float, sort_by: str
) -> int:
    """A table drawn anew at every interval; on a terminal in place."""
    with _pen() as draw:
        before = samples(api, asked, names)
        while True:
            time.sleep(interval)
            now = samples(api, asked, names)
            draw(text(before, now, sort_by, True))
            before = now


@contextlib.contextmanager
def _pen() -> Iterator[Callable[[str], None]]:
    """What draws a table, and leaves the terminal as it was."""
    if not sys.stdout.isatty():
        yield _one_after_another
        return
    from rich.live import Live  # only for those who watch
    from rich.text import Text

    with Live(auto_refresh=False, vertical_overflow="crop") as live:
        yield lambda drawn: live.update(Text(drawn, no_wrap=True), refresh=True)


def _one_after_another(drawn: str) -> None:
    sys.stdout.write(drawn + "\n")
    sys.stdout.flush()
