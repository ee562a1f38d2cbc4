"""Which changes of an agent need a new box. Pure."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

RESTARTED_AT = "agentk.dev/restartedAt"

# What the steward does around a box, not what the box is: a change takes effect without a new one.
_AROUND = frozenset(
    {
        "restartPolicy",
        "backoffLimit",
        "checkpoint",
        "restartBackoff",
        "maxRestarts",
        "restartWindow",
        "activeDeadlineSeconds",
        "deadlineWhileSuspended",
        "ttlSecondsAfterFinished",
        "terminationGracePeriodSeconds",
        "suspend",
        "priority",
        "preemptionPolicy",
        "onPreempted",
        "budget",
        "imagePullPolicy",
        "imagePullSecrets",
        "poolRef",  # how it comes into its box
        "ports",  # whoever listens for them connects anew
        "memory",
        "modelRef",  # the gate reads these at every call
        "tools",
        "skills",  # what is importable changes with the next start, whatever that is for
        "depth",
        "livenessProbe",
        "readinessProbe",
    }
)


def spec_digest(spec: Mapping[str, Any]) -> str:
    """Digest of the part of an Agent's spec that its box is made from."""
    inside = {key: value for key, value in spec.items() if key not in _AROUND}
    # A source already packed is named by its digest; where the packer found it does not matter.
    source = inside.get("source")
    if isinstance(source, Mapping) and source.get("digest"):
        inside["source"] = {"digest": source["digest"]}
    text = json.dumps(inside, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def token(agent: Mapping[str, Any]) -> str:
    """What a box of this agent is made of: its spec, and the last restart that was asked for."""
    asked = (agent["metadata"].get("annotations") or {}).get(RESTARTED_AT, "")
    digest = spec_digest(agent["spec"])
    return f"{digest}@{asked}" if asked else digest
