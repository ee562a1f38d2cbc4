"""The lines of all ModelRoutes: one `Turns` a route, made when somebody first waits, changed with its route.

An agent that spawned others shares one place in line with them: spawning must not be a way to more turns.
"""

from collections.abc import Callable

from agentk.broker.turns import Settings, Turn, Turns
from agentk.broker.words import Guest
from agentk.llm import routes

_USUAL_CONCURRENT = 64  # calls at once on a route that names no bound


class RouteTurns:
    """`route` finds a ModelRoute by namespace and name, or raises NotFound."""

    def __init__(self, route: Callable[[str, str], routes.Route]) -> None:
        self._route = route
        self._turns: dict[tuple[str, str], Turns] = {}

    def take(self, route: str, guest: Guest, tokens: int) -> Turn:
        """A turn on NAMESPACE/NAME; enter it once. Raises NotFound, and TooManyRequests when entered."""
        namespace, _, name = route.partition("/")
        named = (namespace, name)
        turns = self._turns.get(named)
        if turns is None:
            turns = self._turns[named] = Turns(_settings(self._route(*named)))
        head = guest.parents[-1] if guest.parents else guest.uid
        return turns.turn(head, priority=int(guest.spec.get("priority") or 0), cost_tokens=tokens)

    def changed(self, namespace: str, name: str) -> None:
        """A route is new or has changed. Calls of one that is gone find out by themselves."""
        turns = self._turns.get((namespace, name))
        if turns is not None:
            turns.change(_settings(self._route(namespace, name)))


def _settings(route: routes.Route) -> Settings:
    most = route.max_concurrent or _USUAL_CONCURRENT
    return Settings(max_concurrent=most, rpm=route.rpm or None, tpm=route.tpm or None)
