"""Does what is typed into the screen. What it has to say goes into the state, like everything that is shown."""

import contextlib
import queue
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from agentk.api import errors, kinds
from agentk.client import client
from agentk.ui import orders, pictures, plain, waiting
from agentk.ui.conversation import TELLS, WRONG
from agentk.ui.speaking import Speaking
from agentk.ui.state import State

_FOUND = "10"
_WIPE_SECONDS = 600.0
_WAITING = 64  # typed, and not done yet


class Doing:
    """One after the other, in a thread of its own, so that the screen never waits."""

    def __init__(self, socket: Path, namespace: str, name: str, state: State) -> None:
        self._state, self._namespace, self._name = state, namespace, name
        self._api = client.Client(socket, timeout_seconds=_WIPE_SECONDS)
        self._speaking = Speaking(socket, namespace, name, self._wrong)
        self._typed: queue.Queue[str | None] = queue.Queue(_WAITING)
        threading.Thread(target=self._run, name="orders", daemon=True).start()

    def close(self) -> None:
        """Repeatable."""
        self._speaking.close()
        with contextlib.suppress(queue.Full):
            self._typed.put_nowait(None)

    def do(self, text: str) -> None:
        """Quitting is the screen's own."""
        try:
            self._typed.put_nowait(text)
        except queue.Full:
            self._wrong("not done: what was typed before is not done yet")

    def _run(self) -> None:
        while (text := self._typed.get()) is not None:
            self._do(text)

    def _do(self, text: str) -> None:
        """Whatever goes wrong is shown."""
        try:
            order = orders.read(text)
            work: dict[str, Callable[[str], None]] = {
                "": self._say,
                orders.MEM: self._mem,
                orders.C: self._c,
                orders.WIPE: self._wipe,
                orders.APPROVE: partial(self._decide, "approve"),
                orders.DENY: partial(self._decide, "deny"),
                orders.ANSWER: partial(self._decide, "answer"),
                orders.HELP: lambda _: self._state.tell(TELLS, orders.ABOUT),
            }
            if order.name in work:
                work[order.name](order.words)
        except ValueError as error:
            self._wrong(str(error))
        except errors.AgentkError as error:
            self._wrong(f"{error.message}{f'; {error.hint}' if error.hint else ''}")
        except OSError as error:
            self._wrong(str(error))

    def _say(self, words: str) -> None:
        if not words.strip():
            return
        if not self._state.standing.reads:
            raise errors.BadRequest(
                "its program reads nothing", hint="give it spec.stdin: true; /help tells of orders"
            )
        self._speaking.say(words)
        self._state.typed(words)

    def _mem(self, words: str) -> None:
        query = {"limit": _FOUND, **({"query": words} if words else {})}
        items = self._api.request("GET", self._pages, query=query)["items"]
        lines = [
            f"{plain.word(one.get('name') or one.get('id'))}  {plain.word(one.get('kind'))}, "
            f"{plain.number(one.get('tokens')):,} tokens  {plain.line(one.get('snippet') or '', 120)}"
            for one in items
        ]
        self._state.tell(TELLS, "\n".join(lines) or "M has nothing of that.")

    def _c(self, _: str) -> None:
        with self._state.lock:
            self._state.tell(TELLS, pictures.plainly(pictures.context(self._state)))

    def _wipe(self, words: str) -> None:
        if words != orders.SURE:
            pages = self._api.request("GET", self._pages, query={"stats": "true"})["pages"]
            sure = f"{orders.WIPE} {orders.SURE}"
            self._state.tell(TELLS, f"{plain.number(pages):,} cells would be gone for good: type {sure}")
            return
        told: dict[str, Any] = self._api.request("DELETE", self._pages, body={"all": True})
        self._state.stale = True
        self._state.tell(TELLS, f"{len(told['forgotten']):,} cells are forgotten.")

    def _decide(self, verb: str, words: str) -> None:
        """Nothing is answered that is not named: see `waiting.meant`."""
        seen = self._state.waiting
        if not words and seen:
            for one in seen:
                self._state.tell(TELLS, "\n".join([f"{one.name}: {one.method}", *one.details]))
        one, rest = waiting.meant(seen, words)
        body: dict[str, Any] = {"text": rest} if verb == "answer" else {"reason": rest}
        made = self._api.request("POST", kinds.APPROVAL.path(self._namespace, one.name, verb), body=body)
        self._state.tell(TELLS, f"{one.name}: {plain.word(made['status']['phase']).lower()}")

    @property
    def _pages(self) -> str:
        return kinds.AGENT.path(self._namespace, self._name, "pages")

    def _wrong(self, text: str) -> None:
        self._state.tell(WRONG, text)
