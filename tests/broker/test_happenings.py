"""What agentk tells of spawned agents: each change once, and nothing that was so before."""

import asyncio
from pathlib import Path
from typing import Any

from agentk.api import kinds
from agentk.broker.happenings import Happenings
from tests.broker import tenants


def ended(name: str, parent: str, attempt: int, phase: str) -> dict[str, Any]:
    made = tenants.agent(name, parent)
    made["status"] = {
        "attempt": attempt,
        "phase": phase,
        "lastTermination": {"attempt": attempt, "reason": "Error", "exitCode": 3, "message": "not told"},
    }
    return made


def test_spawns_and_exits_are_told_once_to_those_above(tmp_path: Path) -> None:
    async def story() -> None:
        there = tenants.Tenants(tmp_path)
        happenings = Happenings(there.journal, there.guests, there.waiting, lambda: there.now)

        def hear(obj: dict[str, Any], gone: bool = False) -> None:
            there.hear(obj, gone)
            happenings.hear(kinds.AGENT, obj, gone)

        hear(tenants.agent("top"))
        hear(ended("old", "top", 4, "Succeeded"))
        running = asyncio.create_task(happenings.run())
        await there.settled()
        heard: list[Any] = []
        listening = there.begun("top", "event.subscribe", heard=heard, max=6)
        await there.settled()
        hear(tenants.agent("alone"))
        hear(tenants.agent("kid", "top"))
        for _ in range(2):
            hear(ended("old", "top", 4, "Succeeded"))
            hear(ended("kid", "top", 1, "Pending"))
        hear(ended("kid", "top", 2, "Failed"))
        happenings.note("uid-nobody", "call.denied", {})
        happenings.note("uid-kid", "call.denied", {"opcode": "EXEC"})
        happenings.note("uid-top", "call.denied", {"opcode": "HTTP"})
        hear(ended("kid", "top", 2, "Failed"), gone=True)
        await listening
        exit = {"uid": "uid-kid", "reason": "Error", "exitCode": 3}
        assert [(one["type"], one["source"], one["data"]) for one in heard] == [
            ("agent.spawned", "d/kid", {"uid": "uid-kid"}),
            ("agent.exited", "d/kid", {**exit, "attempt": 1, "phase": "Pending"}),
            ("agent.changed", "d/kid", {"uid": "uid-kid", "phase": "Failed", "before": "Pending"}),
            ("agent.exited", "d/kid", {**exit, "attempt": 2, "phase": "Failed"}),
            ("call.denied", "d/kid", {"opcode": "EXEC"}),
            ("call.denied", "d/top", {"opcode": "HTTP"}),
        ]
        running.cancel()
        await asyncio.wait([running])
        await there.aclose()

    asyncio.run(story())
