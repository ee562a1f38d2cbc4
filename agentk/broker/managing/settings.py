"""What an agent's spec and its Memory say of its context, as the windows want it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentk.api import quantities
from agentk.broker.calling.routing import route_name
from agentk.broker.words import Guest
from agentk.memory import scoring
from agentk.memory.turning import Settings
from agentk.memory.window import Bounds

TOKENS = 8_000


@dataclass(frozen=True)
class Wanted:
    settings: Settings
    tokens: int
    by_model: bool  # who writes the notes


def of(agent: Mapping[str, Any], memory: Mapping[str, Any]) -> Wanted | None:
    """`agent` is spec.memory of the agent, `memory` the spec of the Memory it uses. None: it manages its own."""
    if agent.get("context") != "managed":
        return None
    mine, theirs = agent.get("paging") or {}, memory.get("paging") or {}
    paging = {**theirs, **mine}
    most = int(agent.get("contextTokens") or memory.get("contextTokens") or TOKENS)
    bounds = Bounds(most)
    if "recallThreshold" in paging:
        bounds = Bounds(most, threshold=float(paging["recallThreshold"]))
    weights, halves = ({**theirs.get(name, {}), **mine.get(name, {})} for name in ("weights", "halfLives"))
    standard = scoring.HalfLives()
    return Wanted(
        Settings(
            bounds,
            scoring.Weights(**{name: float(value) for name, value in weights.items()}),
            scoring.HalfLives(
                _seconds(halves, "recency", standard.recency_seconds),
                float(halves.get("recencyPages", standard.recency_pages)),
                _seconds(halves, "frequency", standard.frequency_seconds),
            ),
        ),
        most,
        paging.get("fold") == "model",
    )


def route(guest: Guest, body: Mapping[str, Any]) -> tuple[str, str, str]:
    """Whose tokens are counted alike."""
    return guest.namespace, route_name(guest), str(body.get("model") or "")


def _seconds(halves: Mapping[str, Any], name: str, otherwise: float) -> float:
    return max(1.0, quantities.parse_duration(halves[name])) if name in halves else otherwise
