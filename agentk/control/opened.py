"""Which declared ports of agents listen on this host, as told by whoever listens for them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Told = Sequence[Mapping[str, Any]]


class Opened:
    """`wake` is called with an agent's uid when something is another way."""

    def __init__(self) -> None:
        self.wake: Callable[[str], None] = lambda uid: None
        self._told: dict[str, Told] = {}

    def tell(self, uid: str, ports: Told) -> None:
        """All ports of an agent: name, containerPort, hostPort, and a message for one that does not listen."""
        if self._told.get(uid) != ports:
            self._told[uid] = ports
            self.wake(uid)

    def of(self, uid: str) -> Told | None:
        """None: nobody has looked yet."""
        return self._told.get(uid)

    def forget(self, uid: str) -> None:
        """Repeatable."""
        self._told.pop(uid, None)
