"""The program of an agent that is a machine: a model as processor, contexts in frames, one memory, ten primitives.

Run again it begins anew, with all of its memory. `harden NAME` beside it, in its box, makes one routine code.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import List, Optional

from agentk.programs import asking, ends, loop, progress, telling
from agentk.programs.machine_channels import Channels
from agentk.programs.machine_frames import Machine
from agentk.programs.machine_routines import HARDEN, Failed
from agentk.sdk import client, errors

PLACE = "/opt/program"  # of what it is told, for one that is started elsewhere
_CODE_BYTES = 256 * 1024


def main(arguments: List[str]) -> int:
    say = progress.Progress(sys.stdout)
    try:
        if arguments[:1] == [HARDEN] and len(arguments) == 2:
            return _harden(say, arguments[1])
        told = telling.read()
        with client.connect(patience_seconds=loop.PATIENCE_SECONDS) as agent:
            return run(agent, told, say, 0)
    except (errors.CallError, OSError, ValueError) as error:
        say.line(f"ends: {error}")
        return 1


def run(agent: client.Agent, told: telling.Told, say: progress.Progress, terminal: Optional[int]) -> int:
    """The exit code. The gate knows it already."""
    machine = Machine(agent, told, say, Channels(agent, say, terminal))
    try:
        attempt, task = agent.hello().attempt, asking.task(agent, say)
        work = telling.task(told, task, attempt)
        if not work:
            raise ends.Ended("there is nothing to do: give it a task, a goal or instructions")
        if attempt > 1:
            say.line(f"attempt {attempt}: begins anew, with what it remembers")
        machine.run(work)
        return 0
    except ends.Ended as end:
        say.line(f"ends after {machine.steps} step(s): {end.reason or 'Error'}: {end}")
        with contextlib.suppress(errors.CallError):  # the exit code is left to tell it
            agent.exit(1, message=str(end)[:4096], reason=end.reason or None, steps=machine.steps)
        return 1


def _harden(say: progress.Progress, name: str) -> int:
    """The code is on our standard input; an empty one is written by the model."""
    told = telling.read(os.path.join(PLACE, telling.FILE))
    code = sys.stdin.read(_CODE_BYTES).strip()
    with client.connect() as agent:
        try:
            Machine(agent, told, say, Channels(agent, say)).harden(name, code)
        except (Failed, ends.Ended) as error:
            print(f"agentk: {name} stays what it is: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
