"""Steps of agents, as Checkpoints count them: a real journal, over its closing and opening."""

import asyncio
from pathlib import Path

from agentk.broker.stepping import Steps
from agentk.store.journal import Intent, Journal, Outcome
from agentk.store.journal_anchor import StateAnchor


class Place:
    def __init__(self, folder: Path) -> None:
        self._folder, self._anchor = folder, list[str]()
        self.woken: list[str] = []
        self.open()

    def open(self) -> None:
        anchor = StateAnchor(lambda: self._anchor[-1] if self._anchor else None, self._anchor.append)
        self.journal = Journal.open(self._folder, anchor)
        self.steps = Steps()
        self.steps.listen(self.woken.append)
        self.steps.open(self.journal)

    async def call(self, method: str, uid: str = "a", run: str = "a-1", status: str = "ok") -> None:
        effect = await self.journal.intend(Intent("n", "a", uid, 1, run, method, b"{}"))
        await self.journal.settle(effect, Outcome(status, b"{}"))  # type: ignore[arg-type]
        if status == "ok":
            self.steps.heard(uid, method)

    async def head(self) -> int:
        head = await self.journal.head()
        assert head is not None
        return int(head["record"])


def test_answers_count_for_programs_and_commands_and_tools_for_others(tmp_path: Path) -> None:
    async def flow() -> None:
        place = Place(tmp_path)
        for method in ("think", "exec", "tool.call", "message.send", "exec"):
            await place.call(method)
        await place.call("think", status="error")
        await place.call("think", uid="b", run="b-1")
        await place.call("think", run="a-2")  # of a later run
        assert await place.steps.since("a", 0, program=True) == 2
        assert await place.steps.since("a", 0, program=False) == 5
        at = await place.head()
        assert await place.steps.since("a", at, program=False) == 0
        await place.call("exec", run="a-2")
        await place.call("exec")
        place.journal.close()
        place.open()
        assert await place.steps.since("a", at, program=False) == 2
        assert await place.steps.since("nobody", 0, program=False) == 0
        place.journal.close()

    asyncio.run(flow())


def test_who_waits_for_steps_is_woken_once_and_never_too_late() -> None:
    steps, woken = Steps(), list[str]()
    steps.listen(woken.append)
    steps.expect("a", 5)
    for method in ("think", "exec", "state.set"):  # two while it is counted how many there were before
        steps.heard("a", method)
    steps.count_off("a", 2)
    assert woken == []
    steps.heard("b", "think")
    steps.heard("a", "tool.call")
    steps.heard("a", "think")
    assert woken == ["a"]
    steps.expect("a", 1)
    steps.forget("a")
    steps.heard("a", "think")
    assert woken == ["a"]
