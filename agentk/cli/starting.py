"""What boxes that somebody waits for are at, said on stderr until they have started. Says nothing of quick ones.

One is looked at beside the waiting, by a client of its own; what cannot be had is not told, and disturbs nobody.
"""

import threading
from typing import Self

from agentk.api import errors
from agentk.cli import columns, connect, show
from agentk.client import client

_LOOK_SECONDS = 1.0  # what starts faster needs no words


class Starting:
    """Agents of a selection, a line each time that one waits for something else."""

    def __init__(self, selection: client.Selection) -> None:
        self._selection = selection
        self._told: dict[str, str] = {}
        self.over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._tell, name="what is starting", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()

    def _tell(self) -> None:
        try:
            api = connect.connect()  # one's own: they are not shared between threads
            while not self.over.wait(_LOOK_SECONDS):
                for obj in api.list(self._selection).items:
                    self._look(obj["metadata"]["name"], obj.get("status") or {})
        except errors.AgentkError:
            return  # who waits hears of it

    def _look(self, name: str, status: show.Object) -> None:
        if status.get("attempt") or status.get("phase", "Pending") != "Pending":
            return
        words, reason = status.get("message") or status.get("reason"), str(status.get("reason"))
        # What changes while the reason stays is a count or a time: it is not told again.
        if words and reason != self._told.get(name) and not self.over.is_set():
            self._told[name] = reason
            show.say(columns.safe(f"agent/{name} has not started yet: {words}"))
