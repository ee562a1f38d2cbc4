"""What Pools tell Prometheus: boxes that wait, and a histogram of hand-outs. Pure: from their statuses."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_BOXES = ("ready", "creating", "claimed", "wanted")


def lines(pools: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Prometheus' text format; nothing at all where there is no Pool."""
    told = [(_labels(pool), pool.get("status") or {}) for pool in pools]
    if not told:
        return
    yield "# HELP agentk_pool_boxes Boxes of a Pool: waiting, being made, handed out and in use, wanted."
    yield "# TYPE agentk_pool_boxes gauge"
    for labels, status in told:
        for state in _BOXES:
            yield f'agentk_pool_boxes{{{labels},state="{state}"}} {status.get(state, 0)}'
    yield "# HELP agentk_pool_cold_starts_total Agents of a Pool that started cold."
    yield "# TYPE agentk_pool_cold_starts_total counter"
    for labels, status in told:
        yield f"agentk_pool_cold_starts_total{{{labels}}} {(status.get('handOut') or {}).get('cold', 0)}"
    name = "agentk_pool_hand_out_seconds"
    yield f"# HELP {name} From the decision to start an agent until it was in a box that waited."
    yield f"# TYPE {name} histogram"
    for labels, status in told:
        hand_out = status.get("handOut") or {}
        buckets: list[dict[str, Any]] = hand_out.get("buckets") or [{"leMs": "+Inf", "count": 0}]
        for bucket in buckets:
            yield f'{name}_bucket{{{labels},le="{_seconds(bucket["leMs"])}"}} {bucket["count"]}'
        yield f"{name}_sum{{{labels}}} {hand_out.get('sumMs', 0) / 1000:g}"
        yield f"{name}_count{{{labels}}} {hand_out.get('count', 0)}"


def _labels(pool: Mapping[str, Any]) -> str:
    """Names hold nothing that would have to be escaped."""
    metadata = pool["metadata"]
    return f'namespace="{metadata["namespace"]}",pool="{metadata["name"]}"'


def _seconds(ms: str) -> str:
    return ms if ms == "+Inf" else f"{float(ms) / 1000:g}"
