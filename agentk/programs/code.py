"""The program of an agent whose model writes code: tools are modules there, and the model reads what the code prints.

What tools answer stays in the code, so a thousand answers cost no more of a model's attention than their sum.
"""

from __future__ import annotations

import sys

from agentk.programs import loop, progress, telling, workbench
from agentk.sdk import client


def tools(agent: client.Agent, told: telling.Told, say: progress.Progress) -> loop.Tools:
    return workbench.Workbench(agent, say, told.saves)


if __name__ == "__main__":
    sys.exit(loop.main(tools))
