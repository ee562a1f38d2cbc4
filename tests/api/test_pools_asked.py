"""Pools as people write them, and what an agent takes from one."""

from typing import Any

import pytest

from agentk.api import admit, errors, kinds, pools, quantities
from api import samples

DIGEST = "sha256:" + "0" * 64


def fields(**spec: Any) -> list[str]:
    with pytest.raises(errors.Invalid) as caught:
        admit.admit(samples.ours("Pool", **spec))
    return [cause.field for cause in caught.value.causes]


def test_a_size_is_all_that_must_be_said() -> None:
    spec = admit.admit(samples.ours("Pool", size=3))["spec"]
    assert (spec["refillRate"], spec["maxAge"]) == (pools.REFILL_RATE, pools.MAX_AGE)
    assert spec["runtimeRef"] == {"name": "nsjail"} and spec["template"] == {}
    assert pools.sizes(spec) == (3, 3, 3)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.size"),
        ({"size": 2, "min": 3}, "spec.min"),
        ({"size": 2, "max": 1}, "spec.max"),
        ({"size": -1}, "spec.size"),
        ({"size": 1, "refillRate": "soon"}, "spec.refillRate"),
        ({"size": 1, "refillRate": 0}, "spec.refillRate"),
        ({"size": 1, "refillRate": "1/d"}, "spec.refillRate"),
        ({"size": 1, "refillRate": "2000/s"}, "spec.refillRate"),
        ({"size": 1, "maxAge": "1d"}, "spec.maxAge"),
        ({"size": 1, "maxAge": "10ms"}, "spec.maxAge"),
        ({"size": 1, "template": {"modules": ["os; import sys"]}}, "spec.template.modules[0]"),
        ({"size": 1, "template": {"command": ["sh"]}}, "spec.template.command"),
        ({"size": 1, "template": {"env": []}}, "spec.template.env"),
        ({"size": 1, "template": {"resources": {"limits": {"memory": "1"}}}},
         "spec.template.resources.limits.memory"),
        ({"size": 1, "template": {"source": {"inline": {"files": {"../x": ""}}}}},
         "spec.template.source.inline.files[../x]"),
        ({"size": 1, "template": {"environment": {"python": {"venv": "/etc/../x"}}}},
         "spec.template.environment.python.venv"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_field(spec: dict[str, Any], field: str) -> None:
    assert field in fields(**spec)


@pytest.mark.parametrize(
    ("text", "per_second"), [("10/s", 10), ("30/m", 0.5), ("90/h", 0.025), (5, 5), ("0.5", 0.5), (0.25, 0.25)]
)
def test_rates(text: str | float, per_second: float) -> None:
    assert quantities.parse_rate(text) == pytest.approx(per_second)
    admit.admit(samples.ours("Pool", size=1, refillRate=text))


POOL = {
    "size": 2,
    "runtimeRef": {"name": "tight"},
    "template": {
        "source": {"path": "./app", "digest": DIGEST},
        "environment": {"python": {"requirements": ["six"]}},
        "modules": ["json"],
        "resources": {"limits": {"memory": "64Mi", "cpu": "1"}},
        "policyRef": {"name": "team"},
    },
}


def admitted(**spec: Any) -> dict[str, Any]:
    agent = samples.agent(poolRef={"name": "p"}, **spec)
    below = pools.given(agent["spec"], POOL)
    made: dict[str, Any] = admit.admit(agent, defaults=below)["spec"]
    return made


def test_an_agent_takes_what_it_does_not_say() -> None:
    spec = admitted()
    template = POOL["template"]
    assert isinstance(template, dict)
    assert {key: spec[key] for key in ("source", "environment", "policyRef")} == {
        key: template[key] for key in ("source", "environment", "policyRef")
    }
    assert spec["runtimeRef"] == {"name": "tight"}
    limits = spec["resources"]["limits"]
    assert (limits["memory"], limits["cpu"], limits["pids"]) == ("64Mi", "1", 128)
    assert "modules" not in spec


def test_what_an_agent_says_is_its_own_and_never_half_the_pools() -> None:
    own = {
        "source": {"inline": {"files": {"m.py": ""}}},
        "environment": {"node": {"packages": ["left-pad@1.3.0"]}},
        "policyRef": {"name": "mine"},
        "runtimeRef": {"name": "other"},
        "resources": {"limits": {"memory": "32Mi"}},
    }
    spec = admitted(**own)
    assert {key: spec[key] for key in own if key != "resources"} == {
        key: value for key, value in own.items() if key != "resources"
    }
    assert (spec["resources"]["limits"]["memory"], spec["resources"]["limits"]["cpu"]) == ("32Mi", "1")


def test_the_pool_of_an_agent_cannot_be_changed() -> None:
    old = admit.admit(samples.agent(poolRef={"name": "p"}))
    new = admit.admit(samples.agent(poolRef={"name": "q"}))
    with pytest.raises(errors.Invalid, match="cannot be changed"):
        admit.admit_update(old, new)
    admit.admit_update(admit.admit(samples.agent()), new)


@pytest.mark.parametrize("ref", [None, 3, "p", {}, {"name": 7}, {"name": None}, []])
def test_a_misshapen_reference_names_no_pool(ref: Any) -> None:
    assert pools.name({"poolRef": ref}) == ""


def test_a_pool_is_found_by_its_words() -> None:
    assert kinds.resource("pools") is kinds.resource("pool") is kinds.POOL
