"""All that the screen knows, fed with what the control API answers; whoever draws takes it from here.

Knows no terminal and no daemon. Threads feed it and one draws: every method takes the lock, and counts what changed,
so that nothing is drawn twice.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentk.ui import plain
from agentk.ui.actions import Actions
from agentk.ui.conversation import TELLS, WRONG, YOU, Context, Conversation, Entry
from agentk.ui.waiting import Waiting, read

CELLS = 50
CONVERSATION, TREE, ACTIONS, STATE = "conversation", "tree", "actions", "state"
PARTS = (CONVERSATION, TREE, ACTIONS, STATE)


@dataclass(frozen=True)
class Cell:
    """One page of M."""

    name: str
    kind: str
    tokens: int
    snippet: str


@dataclass(frozen=True)
class Memory:
    """M. `cells`: the newest."""

    cells: tuple[Cell, ...] = ()
    pages: int = 0
    bytes: int = 0
    most: int = 0


@dataclass(frozen=True)
class Standing:
    """How the agent is, as its object tells."""

    uid: str = ""  # "" of one that is not there
    phase: str = ""
    reason: str = ""
    attempt: int = 0
    tokens: int = 0
    cost: str = ""
    remembers: bool = False
    managed: bool = False
    reads: bool = False  # whether its program reads what is typed
    result: str = ""

    @property
    def there(self) -> bool:
        return bool(self.uid)

    @property
    def run(self) -> tuple[str, int]:
        """Which process of which agent; 0 before there was one."""
        return self.uid, self.attempt


@dataclass
class State:
    name: str
    conversation: Conversation = field(default_factory=Conversation)
    actions: Actions = field(default_factory=Actions)
    standing: Standing = Standing()
    memory: Memory = Memory()
    window: Context | None = None  # of a managed context
    waiting: tuple[Waiting, ...] = ()  # for a person
    troubles: dict[str, str] = field(default_factory=dict)  # by who has them
    stale: bool = False  # M was changed from here
    changes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    lock: threading.RLock = field(default_factory=threading.RLock)

    def heard(self, line: bytes) -> None:
        """One line of its log."""
        with self.lock:
            self.conversation.heard(line.rstrip(b"\r\n").decode("utf-8", "replace"))
            self._changed(CONVERSATION, TREE, STATE)

    def typed(self, text: str) -> None:
        self.tell(YOU, text)

    def tell(self, kind: str, text: str) -> None:
        """What the screen itself has to say, line by line."""
        with self.lock:
            for line in text.splitlines()[:200]:
                self.conversation.add(Entry(kind, plain.line(line)))
            self._changed(CONVERSATION)

    def begins(self, attempt: int) -> None:
        with self.lock:
            self.conversation.begins(attempt)
            self._changed(CONVERSATION, TREE, STATE)

    def saw_agent(self, obj: Mapping[str, Any]) -> None:
        spec, status = _mapping(obj.get("spec")), _mapping(obj.get("status"))
        used, memory = _mapping(status.get("usage")), _mapping(spec.get("memory"))
        told = Standing(
            uid=str(_mapping(obj.get("metadata")).get("uid") or "?"),
            phase=plain.word(status.get("phase", "Pending")),
            reason=plain.line(status.get("message") or status.get("reason") or "", 200),
            attempt=plain.number(status.get("attempt")),
            tokens=plain.number(used.get("tokens")),
            cost=plain.word(used.get("costUsd") or ""),
            remembers="memory" in spec,
            managed=memory.get("context") == "managed",
            reads=bool(spec.get("stdin")),
            result=plain.line(status.get("result") or "", 200),
        )
        with self.lock:
            self.conversation.program = str(spec.get("program") or "")
            if told != self.standing:
                self.standing = told
                self._changed(STATE)

    def gone(self) -> None:
        with self.lock:
            if self.standing.there:
                self.standing = Standing(phase="Deleted")
                self.tell(TELLS, "the agent was deleted")
                self._changed(STATE)

    def saw_approvals(self, items: Sequence[Mapping[str, Any]]) -> None:
        """All that there are of this agent, answered ones too."""
        told = read(items)
        with self.lock:
            if told == self.waiting:
                return
            known = {one.name for one in self.waiting}
            self.waiting = told
            for one in told:
                if one.name not in known:
                    self.tell(WRONG, f"{one.name} waits for a person: {one.method} {one.summary}")
            self._changed(STATE)

    def saw_calls(self, items: Sequence[Mapping[str, Any]]) -> bool:
        """Whether there was news."""
        with self.lock:
            news = self.actions.take(items)
            if news:
                self._changed(ACTIONS, TREE, STATE)
            return news

    def saw_memory(self, stats: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> None:
        cells = tuple(_cell(one) for one in items[:CELLS])
        most = plain.number(_mapping(stats.get("limits")).get("pages"))
        told = Memory(cells, plain.number(stats.get("pages")), plain.number(stats.get("bytes")), most)
        with self.lock:
            if told != self.memory:
                self.memory = told
                self._changed(STATE)

    def saw_windows(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Of a managed context: the one used last comes first."""
        newest = _mapping(items[0]) if items else {}
        tokens = _mapping(newest.get("tokens"))
        names = ("fixed", "notes", "recalled", "messages")
        parts = {name: plain.number(tokens.get(name)) for name in names}
        told = Context(parts, plain.number(newest.get("budgetTokens")), "managed") if tokens else None
        with self.lock:
            if told != self.window:
                self.window = told
                self._changed(STATE)

    @property
    def trouble(self) -> str:
        """What cannot be seen at the moment; "" when all can."""
        return "; ".join(dict.fromkeys(self.troubles.values()))

    def fails(self, trouble: str, who: str = "") -> None:
        """ "" when that one can see again."""
        with self.lock:
            before, shown = self.trouble, plain.line(trouble, 300)
            self.troubles.pop(who, None)
            if shown:
                self.troubles[who] = shown
            if self.trouble != before:
                self._changed(STATE)

    def context(self) -> Context | None:
        return self.conversation.context or self.window

    def _changed(self, *parts: str) -> None:
        for part in parts:
            self.changes[part] += 1


def _cell(item: Mapping[str, Any]) -> Cell:
    return Cell(
        name=plain.word(item.get("name") or item.get("id") or ""),
        kind=plain.word(item.get("kind", "")),
        tokens=plain.number(item.get("tokens")),
        snippet=plain.line(item.get("snippet") or "", 80),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
