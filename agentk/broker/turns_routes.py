"""The lines of all ModelRoutes: one `Turns` a route, made when somebody first waits, changed with its route.

An agent that spawned others shares one place in line with them: spawning must not be a way to more turns.
"""

from collections.abc import Callable

from agentk.broker.stillness import Stillness
from agentk.broker.turns import Settings, Turn, Turns
from agentk.broker.words import Guest
from agentk.llm import routes

_USUAL_CONCURRENT = 64  # calls at once on a route that names no bound


class RouteTurns:
    """`route` finds a ModelRoute by namespace and name, or raises NotFound."""

    def __init__(self, route: Callable[[str, str], routes.Route], still: Stillness | None = None) -> None:
        self._route, self._still = route, still or Stillness()
        self._turns: dict[tuple[str, str], Turns] = {}
        self._still.listen(self._stands)

    def take(self, route: str, guest: Guest, tokens: int) -> Turn:
        """A turn on NAMESPACE/NAME; enter it once. Raises NotFound, and TooManyRequests when entered."""
        namespace, _, name = route.partition("/")
        named = (namespace, name)
        turns = self._turns.get(named)
        if turns is None:
            turns = self._turns[named] = Turns(_settings(self._route(*named)), still=self._still.stands)
        head = guest.parents[-1] if guest.parents else guest.uid
        priority = int(guest.spec.get("priority") or 0)
        return turns.turn(head, priority=priority, cost_tokens=tokens, owner=guest.uid)

    def changed(self, namespace: str, name: str) -> None:
        """A route is new or has changed. Calls of one that is gone find out by themselves."""
        turns = self._turns.get((namespace, name))
        if turns is not None:
            turns.change(_settings(self._route(namespace, name)))

    def _stands(self, uid: str, still: bool) -> None:
        for turns in self._turns.values():
            (turns.rest if still else turns.wake)(uid)


def _settings(route: routes.Route) -> Settings:
    most = route.max_concurrent or _USUAL_CONCURRENT
    return Settings(max_concurrent=most, rpm=route.rpm or None, tpm=route.tpm or None)
