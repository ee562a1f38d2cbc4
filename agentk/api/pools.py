"""What a Pool says of itself, and what it gives to the agents that name it. Pure.

An agent takes from the template what it does not say itself, once: when it is written. So everything that looks at an
agent later, the gate and the steward alike, sees the whole of it in its own spec and never has to ask a Pool.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from agentk.api import errors, quantities
from agentk.api.problems import Problem

REFILL_RATE, MAX_AGE = "10/s", "1h"  # the schema's defaults
# Taken whole or not at all: halves of two sources are no source.
_WHOLE = ("image", "source", "environment", "policyRef")

Spec = Mapping[str, Any]


def name(agent_spec: Spec) -> str:
    """The Pool that an Agent's spec names; "" for none."""
    ref = agent_spec.get("poolRef")
    found = ref.get("name") if isinstance(ref, Mapping) else None
    return found if isinstance(found, str) else ""


def given(agent_spec: Spec, pool_spec: Spec) -> dict[str, Any]:
    """What belongs below the spec of an agent of this Pool. Never more than the agent leaves out."""
    template = pool_spec.get("template") or {}
    below = {key: template[key] for key in _WHOLE if template.get(key) and not agent_spec.get(key)}
    if pool_spec.get("runtimeRef") and not agent_spec.get("runtimeRef"):
        below["runtimeRef"] = pool_spec["runtimeRef"]
    limits = (template.get("resources") or {}).get("limits")
    if limits:
        below["resources"] = {"limits": limits}
    return below


def sizes(spec: Spec) -> tuple[int, int, int]:
    """min, size and max: what is not given is size."""
    size = int(spec.get("size", 0))
    return int(spec.get("min", size)), size, int(spec.get("max", size))


def problems(spec: Spec) -> Iterator[Problem]:
    """What the schema cannot say of a Pool's numbers."""
    if "size" in spec:
        least, size, most = sizes(spec)
        if least > size:
            yield Problem(("spec", "min"), f"expected at most size ({size}), found {least}")
        if most < size:
            yield Problem(("spec", "max"), f"expected at least size ({size}), found {most}")
    age = spec.get("maxAge")
    try:
        if isinstance(age, str) and quantities.parse_duration(age) < 1:
            yield Problem(("spec", "maxAge"), f'expected at least 1s, found "{age}"')
    except errors.Invalid:
        return  # told already, by its format
