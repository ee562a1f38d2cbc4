"""Asks the model again and again, from as many threads as it is told to, for as long as it is told to."""

import os
import sys
import threading
import time

from agentk.sdk import client

ASKERS = int(sys.argv[1])
SECONDS = float(os.environ.get("SECONDS", "12"))


def ask(agent: client.Agent, until: float, served: list[int]) -> None:
    while time.monotonic() < until:
        agent.think("Another word, please.")
        served.append(1)


def main() -> None:
    served: list[int] = []
    until = time.monotonic() + SECONDS
    with client.connect() as agent:
        threads = [threading.Thread(target=ask, args=(agent, until, served)) for _ in range(ASKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(f"asked from {ASKERS} threads; {len(served)} answers")


if __name__ == "__main__":
    main()
