"""`python -m agentk.ui.main SOCKET NAMESPACE NAME`: the screen as a process of its own, which `agentk attach` becomes.

So no other verb pays for Textual, and whatever ends the screen ends nothing but the looking on.
"""

import sys
from pathlib import Path

from agentk.ui.doing import Doing
from agentk.ui.reading import Reading
from agentk.ui.screen import Screen
from agentk.ui.state import State


def screen(socket: Path, namespace: str, name: str) -> Screen:
    seen = State(name)
    return Screen(seen, Reading(socket, namespace, name, seen), Doing(socket, namespace, name, seen))


def main(words: list[str]) -> int:
    socket, namespace, name = words
    return screen(Path(socket), namespace, name).run() or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
