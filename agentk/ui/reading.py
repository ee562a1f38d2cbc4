"""Feeds the screen's state: the agent's log as it is written, and looks at the journal and the memory.

The agent's object and its Approvals are watched (`watching`). The journal and the memory have no watch: they are looked
at once a second while the agent lives, and rarely when it has ended. Threads end with the process, or soon after
`close`. They never start a daemon: one that is gone is waited for, and the state says so meanwhile.
"""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from agentk.api import errors, kinds
from agentk.client import client, following
from agentk.ui.conversation import TELLS
from agentk.ui.state import CELLS, State
from agentk.ui.watching import Watching

LOOK_SECONDS = 1.0
_ENDED_SECONDS = 5.0  # between looks at one that has ended: people may change its memory
_CALLS = "200"  # of one look
_MEMORY_LOOKS = 5  # without news of calls: people may have changed M
_TAIL = "500"  # lines of the past


class Reading:
    def __init__(self, socket: Path, namespace: str, name: str, state: State) -> None:
        self._socket, self._namespace, self._name, self._state = socket, namespace, name, state
        self._closing, self._changed = threading.Event(), threading.Event()
        self._watching = Watching(socket, namespace, name, state, self._changed.set)
        self._looks = 0

    def start(self) -> None:
        self._watching.start()
        for name, work in (("log", self._follow), ("looks", self._look)):
            threading.Thread(target=work, name=f"{name} of {self._name}", daemon=True).start()

    def close(self) -> None:
        """Repeatable."""
        self._closing.set()
        self._changed.set()
        self._watching.close()

    def look(self, api: client.Client) -> None:
        """At journal and memory, once. Raises AgentkError."""
        state, path = self._state, kinds.AGENT.path
        since = {"since": state.actions.since} if state.actions.since else {}
        told = api.request(
            "GET", path(self._namespace, self._name, "audit"), query={"limit": _CALLS, **since}
        )
        news = state.saw_calls(told["items"])
        stale, state.stale = state.stale, False
        if news or stale or self._looks % _MEMORY_LOOKS == 0:
            if state.standing.remembers:
                self._memory(api, path(self._namespace, self._name, "pages"))
            if state.standing.managed:
                windows = api.request("GET", path(self._namespace, self._name, "windows"))
                state.saw_windows(windows["items"])
        self._looks += 1

    def _memory(self, api: client.Client, path: str) -> None:
        stats = api.request("GET", path, query={"stats": "true"})
        listed = api.request("GET", path, query={"limit": str(CELLS)})
        self._state.saw_memory(stats, listed["items"])

    def _look(self) -> None:
        api = client.Client(self._socket)
        while not self._closing.is_set():
            if self._state.standing.there:
                self._state.fails(_trouble(lambda: self.look(api)), "looks")
            ended = self._state.standing.phase in kinds.FINAL_PHASES and not self._state.stale
            self._closing.wait(_ENDED_SECONDS if ended and self._looks else LOOK_SECONDS)
        api.close()

    def _follow(self) -> None:
        """Attempt after attempt, each once; after a break, from then on."""
        api, query = client.Client(self._socket), {"tailLines": _TAIL}
        followed, told = ("", 0), ""
        while not self._closing.is_set():
            now = self._state.standing.run
            if not now[1] or now == followed:
                self._changed.wait()
                self._changed.clear()
                continue
            if followed[1]:
                self._state.begins(now[1])
            trouble = _trouble(partial(self._attempt, api, query))
            if trouble:
                query = {"tailLines": "0"}
                if trouble != told:
                    self._state.tell(TELLS, f"its log broke off: {trouble}; agentk logs tells all of it")
                self._closing.wait(LOOK_SECONDS)
            else:
                followed, query = now, {}
                if not self._closing.is_set():
                    self._state.tell(TELLS, f"attempt {now[1]} has ended")
            told = trouble
        api.close()

    def _attempt(self, api: client.Client, query: dict[str, str]) -> None:
        for line in following.lines(api, self._namespace, self._name, query):
            if self._closing.is_set():
                return
            self._state.heard(line)


def _trouble(work: Callable[[], None]) -> str:
    """What went wrong, "" when nothing did."""
    try:
        work()
    except errors.AgentkError as error:
        return error.message
    except OSError as error:
        return f"the daemon is not reached: {error.strerror or error}"
    return ""
