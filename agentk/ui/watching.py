"""Feeds the screen's state from two watches of the control API: the agent's object, and its Approvals.

Nothing is asked for again and again: the daemon tells of each change. One that is gone is waited for.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from agentk.api import errors, kinds
from agentk.client import client
from agentk.client import watching as watches
from agentk.ui.state import State

AGAIN_SECONDS = 1.0  # after a break
_AGENT = "agentk.dev/agent"  # label of an Approval: who asks


class Watching:
    def __init__(
        self, socket: Path, namespace: str, name: str, state: State, changed: Callable[[], None]
    ) -> None:
        """`changed`: the agent's object is another."""
        self._socket, self._namespace, self._name, self._state = socket, namespace, name, state
        self._changed, self._closing = changed, threading.Event()

    def start(self) -> None:
        for name, work in (("agent", self._agent), ("approvals", self._approvals)):
            threading.Thread(
                target=self._again, args=(name, work), name=f"watch of {name}", daemon=True
            ).start()

    def close(self) -> None:
        """Repeatable."""
        self._closing.set()

    def _again(self, name: str, work: Callable[[client.Client], None]) -> None:
        while not self._closing.is_set():
            api = client.Client(self._socket)
            try:
                work(api)
            except (errors.AgentkError, OSError) as error:
                told = (
                    error.message if isinstance(error, errors.AgentkError) else str(error.strerror or error)
                )
                self._state.fails(told, name)
            finally:
                api.close()
            self._closing.wait(AGAIN_SECONDS)

    def _agent(self, api: client.Client) -> None:
        selection = client.Selection(kinds.AGENT, self._namespace, "", f"metadata.name={self._name}")
        for obj in watches.states(api, selection):
            if self._closing.is_set():
                return
            self._state.fails("", "agent")
            if obj is None:
                self._state.gone()
            else:
                self._state.saw_agent(obj)
            self._changed()

    def _approvals(self, api: client.Client) -> None:
        selection = client.Selection(kinds.APPROVAL, self._namespace, f"{_AGENT}={self._name}")
        listing = api.list(selection)
        known = {one["metadata"]["name"]: one for one in listing.items}
        self._state.fails("", "approvals")
        self._state.saw_approvals(list(known.values()))
        for event in watches.watch(api, selection, listing):
            if self._closing.is_set():
                return
            name = event.obj["metadata"]["name"]
            known.pop(name, None)
            if event.type != "DELETED":
                known[name] = event.obj
            self._state.fails("", "approvals")
            self._state.saw_approvals(list(known.values()))
