"""What a machine perceives of the world and does to it: its mailbox, its terminal, and the tools it is granted.

A message is done with when the machine looks for the next ones, so that one which was being worked on when the machine
died comes again. What others wrote is told as data, with who it is from.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Tuple

from agentk.programs import progress, toolbox
from agentk.programs.machine_cells import text_of
from agentk.sdk import client, errors

TERMINAL, MAIL, TOOL = "terminal", "mail", "tool"
_LEASE_SECONDS = 3600.0
_POLL_SECONDS = 300.0
_LINES = 1000  # of a terminal that nobody read yet; then it waits
_LINE_BYTES = 64 * 1024
_TOOLS = 50
_ACKED = 100  # at once

Come = Tuple[str, str, str]  # channel, id to acknowledge, text


class Channels:
    def __init__(self, agent: client.Agent, say: progress.Progress, terminal: Optional[int] = None) -> None:
        """`terminal`: a descriptor to read lines from."""
        self._agent, self._say = agent, say
        self._come: Deque[Come] = deque()
        self._turn = threading.Condition()
        self._told: List[str] = []  # ids of messages that are being worked on
        self._pumping = self._mail_closed = False
        self._terminal_open = terminal is not None
        if terminal is not None:
            threading.Thread(target=self._read, args=(terminal,), daemon=True).start()

    def perceive(self) -> str:
        """What came, without waiting; "" when nothing did. Raises CallError."""
        self._done()
        if not self._pumping and not self._mail_closed:
            self._receive(0.0)
        return self._take()

    def wait(self, seconds: Optional[float]) -> str:
        """As `perceive`, but waits for the first; for as long as it takes when no time is given. Raises CallError."""
        self._done()
        with self._turn:
            if not self._come and not self._mail_closed and not self._pumping:
                self._pumping = True
                threading.Thread(target=self._pump, daemon=True).start()
            ready = self._turn.wait_for(
                lambda: bool(self._come) or not (self._pumping or self._terminal_open), seconds
            )
            if ready and not self._come and seconds is None:
                raise errors.Denied("nothing can come: it has no terminal, and may not read its mail")
        return self._take()

    def act(self, channel: str, to: str, content: Any) -> str:
        """Raises CallError."""
        if channel == TERMINAL:
            self._say.tell(text_of(content))
            return "Done."
        if channel == MAIL:
            return f"Sent: {self._agent.message_send(to, content)}"
        if channel == TOOL:
            answered = self._agent.tool_call(to, content if isinstance(content, dict) else {})
            text = toolbox.said(answered)
            return f"The tool says that it failed:\n{text}" if answered.is_error else text
        return f"There is no channel {channel!r}: there are {TERMINAL}, {MAIL} and {TOOL}."

    def tools(self) -> List[str]:
        """A line of each tool. A gate that grants none has none."""
        try:
            listed = self._agent.tool_list(limit=_TOOLS)
        except errors.Disconnected:
            raise
        except errors.CallError:
            return []
        return [f"{one.name}: {one.description}" for one in listed.items]

    def tool(self, name: str) -> str:
        """What one is for, and the JSON Schema of its arguments. Raises CallError."""
        told = self._agent.tool_describe(name)
        return f"{told.name}: {told.description}\nIts arguments: {json.dumps(told.input_schema, ensure_ascii=False)}"

    def close(self) -> None:
        self._done()

    def _take(self) -> str:
        with self._turn:
            come = list(self._come)
            self._come.clear()
            self._turn.notify_all()
        self._told += [one for _, one, _ in come if one]
        return "\n".join(text for _, _, text in come)

    def _done(self) -> None:
        told, self._told = self._told, []
        for at in range(0, len(told), _ACKED):
            self._agent.message_ack(told[at : at + _ACKED])

    def _receive(self, seconds: float) -> None:
        try:
            found = self._agent.message_recv(wait_seconds=seconds, lease_seconds=_LEASE_SECONDS)
        except errors.Denied:
            with self._turn:
                self._mail_closed = True
            return
        with self._turn:
            for one in found:
                told: Dict[str, Any] = {"from": one.from_, "message": one.body}
                self._come.append((MAIL, one.id, f"[mail] {json.dumps(told, ensure_ascii=False)}"))
            self._turn.notify_all()

    def _pump(self) -> None:
        """Until something came."""
        try:
            while not self._mail_closed:
                self._receive(_POLL_SECONDS)
                with self._turn:
                    if self._come:
                        return
        except errors.CallError:
            self._mail_closed = True
        finally:
            with self._turn:
                self._pumping = False
                self._turn.notify_all()

    def _read(self, terminal: int) -> None:
        left = b""
        while True:
            try:
                data = os.read(terminal, _LINE_BYTES)
            except OSError:
                data = b""
            *lines, left = (left + data).split(b"\n")
            if len(left) > _LINE_BYTES or not data:
                lines, left = [*lines, left], b""
            with self._turn:
                for line in lines:
                    self._turn.wait_for(lambda: len(self._come) < _LINES)
                    if line.strip():
                        self._come.append((TERMINAL, "", f"[terminal] {line.decode('utf-8', 'replace')}"))
                self._terminal_open = bool(data)
                self._turn.notify_all()
            if not data:
                return
