"""Keys and values of an agent, or of its family, as a mapping. Python 3.9, standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator, MutableMapping, Optional

if TYPE_CHECKING:
    from agentk.sdk.client import Agent


class State(MutableMapping[str, Any]):
    """Keys and values of a scope. Every access asks the gate; `agent.state_cas` is for who must not lose a write."""

    def __init__(self, agent: Agent, scope: str) -> None:
        self._agent = agent
        self._scope = scope

    def __getitem__(self, key: str) -> Any:
        found = self._agent.state_get(key, scope=self._scope)
        if not found.exists:
            raise KeyError(key)
        return found.value

    def __setitem__(self, key: str, value: Any) -> None:
        self._agent.state_put(key, value, scope=self._scope)

    def __delitem__(self, key: str) -> None:
        if not self._agent.state_delete(key, scope=self._scope):
            raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        more: Optional[str] = None
        while more != "":
            page = self._agent.state_list(scope=self._scope, continue_=more)
            yield from (one.key for one in page.items)
            more = page.continue_

    def __len__(self) -> int:
        return sum(1 for _ in self)
