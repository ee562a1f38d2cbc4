"""The program of an agent without code whose model calls tools, and reads each call and what it answered."""

from __future__ import annotations

import sys

from agentk.programs import loop, progress, telling, toolbox
from agentk.sdk import client


def tools(agent: client.Agent, told: telling.Told, say: progress.Progress) -> loop.Tools:
    return toolbox.Toolbox(agent, told.burst, say, told.saves)


if __name__ == "__main__":
    sys.exit(loop.main(tools))
