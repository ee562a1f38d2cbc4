"""Who does which call: every handler with the rooms it needs, and nothing more.

A handler that lands is a line here.
"""

import functools
from typing import TYPE_CHECKING

from agentk.broker.calling import fetching, passing, thinking
from agentk.broker.dialects import serving_http
from agentk.broker.dialects.http import HttpService
from agentk.broker.methods import Method

if TYPE_CHECKING:
    from agentk.daemon.gatehouse import Gatehouse


def methods(house: "Gatehouse") -> dict[str, Method]:
    """Every call this gate answers, by name."""
    return {
        **thinking.methods(models=house.models, left=house.left),
        **fetching.methods(fetcher=house.fetcher, rules=house.rules),
    }


def forms(house: "Gatehouse") -> dict[str, Method]:
    """The same calls in the words of OpenAI and Anthropic."""
    return passing.forms(models=house.models, left=house.left)


def http(house: "Gatehouse", box_id: str) -> HttpService:
    """What speaks HTTP with the guest of one box."""
    guest = functools.partial(house.guests.find, box_id)
    return HttpService(serving_http.handler(house.gate, guest, house.journal.left_behind))
