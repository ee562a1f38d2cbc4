"""Small objects and strategies the api tests share."""

import json
from typing import Any

from hypothesis import strategies as st

from agentk.api import admit, manifest

NOW = "2026-01-01T00:00:00Z"
LATER = "2026-01-02T00:00:00Z"


def agent(name: str = "a", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "agentk.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": name},
        "spec": {"command": ["sleep", "1"], **spec},
    }


def core(kind: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}, **fields}


def ours(kind: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "agentk.dev/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": spec}


def admit_text(text: str) -> dict[str, Any]:
    written = manifest.parse(text, "f.yaml")[0]
    return admit.admit(written.obj, written)


def same(left: Any, right: Any) -> bool:
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
VARIABLES = st.from_regex(r"[A-Z_]{1,4}", fullmatch=True)
SIZES = st.one_of(
    st.integers(2**20, 2**40),
    st.builds(lambda n, u: f"{n}{u}", st.integers(2, 500), st.sampled_from(["Mi", "Gi", "M"])),
)
ENV = st.dictionaries(VARIABLES, TEXTS, max_size=4).map(
    lambda held: [{"name": name, "value": value} for name, value in held.items()]
)
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.one_of(st.integers(1, 64), st.sampled_from(["500m", "0.5", 0.25, "2"])),
        "memory": SIZES,
        "ephemeral-storage": SIZES,
        "pids": st.integers(1, 4096),
        "open-files": st.integers(16, 4096),
    },
)
PROBES = st.fixed_dictionaries(
    {"exec": st.just({"command": ["true"]})}, optional={"periodSeconds": st.integers(1, 60)}
) | st.fixed_dictionaries(
    {"heartbeat": st.fixed_dictionaries({}, optional={"maxAgeSeconds": st.integers(1, 60)})}
)
SPECS = st.fixed_dictionaries(
    {"command": st.lists(st.from_regex(r"[a-z/.]{1,8}", fullmatch=True), min_size=1, max_size=3)},
    optional={
        "args": st.lists(TEXTS, max_size=3),
        "env": ENV,
        "resources": st.fixed_dictionaries({}, optional={"limits": LIMITS}),
        "priority": st.integers(-1000, 1000),
        "restartPolicy": st.sampled_from(["Always", "OnFailure", "Never"]),
        "livenessProbe": PROBES,
        "suspend": st.booleans(),
        "source": st.dictionaries(NAMES, TEXTS, min_size=1, max_size=3).map(
            lambda files: {"inline": {"files": files}}
        ),
        "maxRestarts": st.integers(1, 10),
        "restartWindow": st.sampled_from(["30s", "1h30m", "250ms"]),
    },
)
LABELS = st.dictionaries(NAMES, st.from_regex(r"[a-z0-9]{0,5}", fullmatch=True), max_size=3)
AGENTS = st.builds(
    lambda name, labels, spec: {
        **agent(name),
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    },
    NAMES,
    LABELS,
    SPECS,
)
