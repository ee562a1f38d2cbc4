"""Tools that die or hang in a call: asked once more where that does no harm, and waited for no longer than it takes."""

import asyncio
from typing import Any

import pytest
from virtual_loop import run

from agentk.api import errors
from agentk.broker.calling import tooling
from agentk.broker.tooling import kinds as words
from agentk.tools import offers
from agentk.tools.offers import Outcome


class Dying:
    """Nobody knows how its first call went; the next one hangs."""

    def __init__(self) -> None:
        self.effects: list[str] = []

    def names(self, tool: words.Object) -> None:
        return None

    async def fingerprint(self, tool: words.Object) -> str:
        return ""

    async def discover(self, tool: words.Object, guest: Any) -> list[offers.Offered]:
        return []

    async def call(self, tool: words.Object, calling: words.Calling) -> Outcome:
        self.effects.append(calling.effect)
        if len(self.effects) == 1:
            raise errors.OutcomeUnknown("it died")
        await asyncio.Event().wait()
        raise AssertionError("it hangs")


def tool(idempotent: str) -> dict[str, Any]:
    return {"metadata": {"name": "t", "namespace": "n", "uid": "u"}, "spec": {"idempotent": idempotent}}


@pytest.mark.parametrize(
    ("idempotent", "error", "effects"),
    [("true", errors.Timeout, ["e", "e-again"]), ("false", errors.OutcomeUnknown, ["e"])],
)
def test_what_may_be_asked_again_is_asked_once_more_and_in_its_time(
    idempotent: str, error: type[errors.AgentkError], effects: list[str]
) -> None:
    kind = Dying()
    calling = words.Calling(offers.offered("t"), {}, None, "e", "e", 5.0)
    with pytest.raises(error):
        run(tooling.called(kind, tool(idempotent), calling))
    assert kind.effects == effects
