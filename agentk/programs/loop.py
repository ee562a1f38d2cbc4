"""What agentk's own programs have in common: a model is asked, what it wants done is done, until it gives its answer.

Runs in a jail, on Python 3.9 or newer, with the standard library and the SDK. It decides nothing about rights: what it
may call, what that costs and who has to agree is the gate's to say, and what the gate says is told to the model. It
keeps nothing: a daemon that goes away is waited for, and an attempt that follows another begins anew and says so.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any, Callable, Dict, List, Optional, Sequence

from agentk.programs import answers, asking, ends, progress, telling
from agentk.sdk import client, errors

PATIENCE_SECONDS = 600.0  # for a daemon that restarts, or is upgraded
CALLS = 100  # of one step, or a model that never stops would not be stopped by its steps
REPAIRS = 2  # answers that did not fit and were asked for again


class Tools:
    """What the model may have done, as a program offers it."""

    def open(self) -> None:
        """See what there is. Raises Ended."""

    def how(self) -> List[str]:
        """What the model is told about it; the same from the first step to the last."""
        return []

    def functions(self) -> List[Dict[str, Any]]:
        return []

    def call(self, step: int, calls: Sequence[Dict[str, Any]]) -> List[str]:
        """What is to be told of each, in order. Raises Ended."""
        return ["" for _ in calls]

    def mistaken(self, text: str) -> str:
        """Why a text without calls is hardly meant as the answer; "" when it is taken as one."""
        return ""


Offers = Callable[[client.Agent, telling.Told, progress.Progress], Tools]


def main(offers: Offers) -> int:
    """The whole of a program: its exit code."""
    say = progress.Progress(sys.stdout)
    try:
        told = telling.read()
        with client.connect(patience_seconds=PATIENCE_SECONDS) as agent:
            return Loop(agent, told, say, offers(agent, told, say)).run()
    except (errors.CallError, OSError, ValueError) as error:
        say.line(f"ends: {error}")
        return 1


class Loop:
    def __init__(self, agent: client.Agent, told: telling.Told, say: progress.Progress, tools: Tools) -> None:
        self._agent, self._told, self._say, self._tools = agent, told, say, tools
        self._messages: List[Dict[str, Any]] = []
        self._steps = 0

    def run(self) -> int:
        """To the end, which the gate is told: the exit code."""
        try:
            self._begin()
            return self._go_on()
        except ends.Ended as end:
            self._say.line(f"ends after {_steps(self._steps)}: {end.reason or 'Error'}: {end}")
            with contextlib.suppress(errors.CallError):  # the exit code is left to tell it
                reason = end.reason or None
                self._agent.exit(1, message=str(end)[:4096], reason=reason, steps=self._steps)
            return 1

    def _begin(self) -> None:
        attempt, task = self._agent.hello().attempt, asking.task(self._agent, self._say)
        work = telling.task(self._told, task, attempt)
        if not work:
            raise ends.Ended("there is nothing to do: give it a task, a goal or instructions")
        if attempt > 1:
            self._say.line(f"attempt {attempt}: begins anew; what was done before is done")
        self._tools.open()
        self._messages.append({"role": "user", "content": work})

    def _go_on(self) -> int:
        system, repairs = telling.system(self._told, self._tools.how()), 0
        while self._steps < self._told.steps:
            self._steps += 1
            said = asking.think(
                self._agent, self._say, messages=self._messages, system=system, tools=self._tools.functions()
            )
            self._messages.append(dict(said.message))
            if said.tool_calls:
                self._say.step(self._steps, names(said.tool_calls), said.text)
                self._call(said.tool_calls)
                continue
            wrong = self._answer(said.text)
            if not wrong:
                return 0
            if repairs == REPAIRS:
                raise ends.Ended(f"the answer is still not what was asked for: {wrong}")
            repairs += 1
            self._say.line(f"step {self._steps}: the answer is not taken: {wrong}")
            self._messages.append({"role": "user", "content": telling.again(self._told, wrong)})
        raise ends.Ended(f"there is no answer after {_steps(self._steps)}", "MaxSteps")

    def _call(self, calls: Sequence[Dict[str, Any]]) -> None:
        texts = self._tools.call(self._steps, calls[:CALLS])
        texts += [f"Not called: at most {CALLS} at once."] * (len(calls) - len(texts))
        for at, text in enumerate(texts):
            told = {"role": "tool", "tool_call_id": str(calls[at].get("id", "")), "content": text}
            self._messages.append(told)
        answers.forget(self._messages)

    def _answer(self, text: str) -> Optional[str]:
        """What is wrong with it; None when the gate has taken it."""
        if not text.strip():
            return "the answer is empty"
        if mistaken := self._tools.mistaken(text):
            return mistaken
        self._say.answer(self._steps, text)  # before exit, for the box may be gone after it
        try:
            result = answers.parsed(text) if self._told.output is not None else text
            self._agent.exit(result=result, steps=self._steps)
        except (ValueError, errors.Invalid, errors.TooLarge) as error:
            return str(error)
        return None


def names(calls: Sequence[Dict[str, Any]]) -> List[str]:
    """Of the tools that a model asks for."""
    functions = [call.get("function") for call in calls]
    return [str(one.get("name", "")) if isinstance(one, dict) else "" for one in functions]


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"
