"""What a guest creates is never wider than itself."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import kinds, problems, schemas
from agentk.broker import narrowing, narrowing_grants, policy_globs
from tests.broker.narrowing_rig import PARENT, Spec, child, fields, told


def at(path: tuple[str, ...], value: Any) -> Spec:
    for step in reversed(path):
        value = {step: value}
    return dict(value)


# the whole


def test_every_field_of_an_agent_is_known_here() -> None:
    schema = schemas.of(kinds.AGENT)["properties"]["spec"]
    assert set(schema["properties"]) <= narrowing._KNOWN[""]
    for group, known in narrowing._KNOWN.items():
        inner = schema
        for step in group.split(".") if group else ():
            inner = inner.get("properties", {}).get(step, {})
        assert set(inner.get("properties", {})) <= known, group


def test_an_agent_is_as_narrow_as_itself() -> None:
    assert narrowing.narrower(PARENT, PARENT) == []


def test_a_child_that_asks_for_nothing_inherits_every_bound() -> None:
    made = child()
    assert narrowing.narrower(made, PARENT) == []
    for path in (*(bound.path for bound in narrowing.BOUNDS), *narrowing.SAME, *narrowing.RANKS):
        assert narrowing._at_path(made, path) == narrowing._at_path(PARENT, path), path
    assert not set(made) & narrowing_grants.FIELDS, "what is handed out is not inherited"


def test_a_weight_that_is_not_given_bounds_as_much_as_one_that_is() -> None:
    weight, plain = ("resources", "weight"), {"command": ["true"]}
    assert fields({**plain, **at(weight, 101)}, plain) == ["spec.resources.weight"]
    assert fields({**plain, **at(weight, 100)}, plain) == []
    assert fields(plain, {**plain, **at(weight, 99)}) == ["spec.resources.weight"]


def test_inheriting_changes_neither_spec_and_nothing_that_is_given() -> None:
    asked, parent = {"resources": {"limits": {"pids": 7}}, "budget": {"maxTokens": 5}}, copy.deepcopy(PARENT)
    before = copy.deepcopy(asked)
    made = narrowing.inherit(asked, parent)
    assert asked == before and parent == PARENT
    assert made["resources"]["limits"]["pids"] == 7 and made["budget"]["maxTokens"] == 5
    made["budget"]["maxCalls"] = made["resources"]["limits"]["memory"] = 0
    assert parent == PARENT


def test_no_port_of_the_host_is_handed_on() -> None:
    ports = [{"name": "web", "containerPort": 80}]
    assert "no port of the host" in told({**child(), "ports": ports}, {**PARENT, "ports": ports})
    assert narrowing.narrower(child(), {**PARENT, "ports": ports, "stdin": True}) == []


@pytest.mark.parametrize("extra", [{"gpu": 1}, {"budget": {"maxImages": 1}}, {"resources": {"claims": []}}])
def test_an_unknown_field_refuses_in_child_and_parent(extra: Spec) -> None:
    assert len(narrowing.narrower({**child(), **extra}, PARENT)) == 1
    assert len(narrowing.narrower(child(), {**PARENT, **extra})) == 1
    assert "not known to be narrow" in told({**PARENT, **extra}, {**PARENT, **extra})


@pytest.mark.parametrize(
    "path",
    [
        *[("env",), ("env", 0), ("volumes",), ("resources",), ("budget",), ("network",), ("tools",)],
        *[("secrets",), ("volumeMounts",), ("environment",), ("source",), ("budget", "maxCalls"), ("restartWindow",)],
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [7.5, "text", [3], {"a": {"b": []}}, True])
def test_a_misshapen_field_is_a_problem_and_no_crash(path: tuple[Any, ...], value: Any) -> None:
    asked = [value] if path[-1] == 0 else value
    assert narrowing.narrower(child(tuple(s for s in path if s != 0), asked), PARENT) != []


# bounds

WIDER: dict[tuple[str, ...], Any] = {
    ("resources", "limits", "cpu"): "501m",
    ("resources", "limits", "memory"): 256 * 2**20 + 1,
    ("resources", "limits", "pids"): 65,
    ("resources", "limits", "ephemeral-storage"): "65Mi",
    ("resources", "limits", "open-files"): 257,
    ("logs", "maxSize"): "1025Ki",
    ("logs", "maxFiles"): 3,
    ("logs", "maxRate"): "2Mi",
    ("priority",): 51,
    ("backoffLimit",): 4,
    ("resources", "weight"): 101,
    ("restartBackoff", "initialSeconds"): 9,
    ("restartBackoff", "maxSeconds"): 59,
    ("restartBackoff", "resetAfterSeconds"): 59,
    ("maxRestarts",): 6,
    ("restartWindow",): "9m59s",
    ("activeDeadlineSeconds",): 901,
    ("ttlSecondsAfterFinished",): 61,
    ("terminationGracePeriodSeconds",): 6,
    ("depth",): 3,
    ("budget", "maxCostUsd"): "2.500001",
    ("budget", "maxTokens"): 1001,
    ("budget", "maxCalls"): 11,
    ("budget", "maxWallTime"): "10m1s",
    ("budget", "maxTokensPerRequest"): 101,
    ("budget", "per"): "59m",
}


def test_every_bound_is_tried_below() -> None:
    assert set(WIDER) == {bound.path for bound in narrowing.BOUNDS}


@pytest.mark.parametrize("bound", narrowing.BOUNDS, ids=lambda bound: ".".join(bound.path))
def test_a_child_that_widens_one_number_is_refused_with_field_had_and_asked(bound: narrowing.Bound) -> None:
    asked, had = WIDER[bound.path], narrowing._at_path(PARENT, bound.path)
    found = narrowing.narrower(child(bound.path, asked), PARENT)
    assert [one.path for one in found] == [("spec", *bound.path)]
    assert problems.shown(had) in found[0].message and problems.shown(asked) in found[0].message


@given(st.sampled_from(narrowing.BOUNDS), st.integers(0, 2**32))
def test_any_number_is_refused_exactly_when_it_is_wider(bound: narrowing.Bound, number: int) -> None:
    value: Any = f"{number}s" if narrowing._at_path(PARENT, bound.path) in ("10m", "1h") else number
    value = str(value) if bound.path[-1] == "maxCostUsd" else value
    old, new = bound.read(narrowing._at_path(PARENT, bound.path)), bound.read(value)
    wider = new < old if bound.least else new > old
    assert (
        ("spec", *bound.path) in {one.path for one in narrowing.narrower(child(bound.path, value), PARENT)}
    ) == wider


@pytest.mark.parametrize(
    "path",
    [
        ("activeDeadlineSeconds",),
        ("maxRestarts",),
        ("budget", "maxTokens"),
        ("resources", "limits", "memory"),
    ],
)
def test_a_bound_left_out_is_wider(path: tuple[str, ...]) -> None:
    made = child()
    narrowing._at_path(made, path[:-1]).pop(path[-1])
    assert [one.path for one in narrowing.narrower(made, PARENT)] == [("spec", *path)]


def test_a_budget_that_starts_anew_is_wider_than_one_that_does_not() -> None:
    parent = {"command": ["true"], "budget": {"maxTokens": 10}}
    assert fields({**parent, "budget": {"maxTokens": 10, "per": "1h"}}, parent) == ["spec.budget.per"]
    assert fields(parent, {**parent, "budget": {"maxTokens": 10, "per": "1h"}}) == []


@pytest.mark.parametrize("value", ["-1", "1.5.2", "1e3", "nan", "1.0000001", "", "٣", 7.5e-8])
def test_money_is_plain_decimal(value: Any) -> None:
    assert "dollar" in told(child(("budget", "maxCostUsd"), value), PARENT)


# properties

small = st.integers(0, 3)
some_host = st.sampled_from(["*.a.example", "b.a.example", "*", "*.b.a.example", "c.example"])
some_spec = st.fixed_dictionaries(
    {"command": st.just(["true"])},
    optional={
        "priority": small,
        "maxRestarts": small,
        "activeDeadlineSeconds": small,
        "restartPolicy": st.sampled_from(["Never", "OnFailure", "Always"]),
        "policyRef": st.fixed_dictionaries({"name": st.sampled_from(["baseline", "team"])}),
        "restartBackoff": st.fixed_dictionaries({}, optional={"initialSeconds": small, "maxSeconds": small}),
        "resources": st.fixed_dictionaries(
            {"limits": st.fixed_dictionaries({}, optional={"pids": small, "memory": small.map(str)})}
        ),
        "budget": st.fixed_dictionaries(
            {},
            optional={
                "maxTokens": small,
                "maxCostUsd": small.map(str),
                "per": small.map(lambda number: f"{number}s"),
                "onExceeded": st.sampled_from(["Kill", "Pause"]),
            },
        ),
        "volumes": st.lists(
            st.sampled_from(
                [
                    {"name": "a", "hostPath": {"path": "/a"}},
                    {"name": "b", "secret": {"secretName": "b"}},
                    {"name": "c", "emptyDir": {"sizeLimit": "1Mi"}},
                ]
            ),
            unique_by=lambda one: one["name"],
            max_size=2,
        ),
        "volumeMounts": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from("abc"), "mountPath": st.just("/m"), "readOnly": st.booleans()}
            ),
            max_size=2,
        ),
        "network": st.fixed_dictionaries(
            {
                "egress": st.fixed_dictionaries(
                    {"default": st.sampled_from(["Deny", "Deny", "Allow"])},
                    optional={
                        "allow": st.lists(
                            st.fixed_dictionaries(
                                {"host": some_host}, optional={"ports": st.lists(small, max_size=2)}
                            ),
                            max_size=2,
                        )
                    },
                )
            }
        ),
        "tools": st.lists(
            st.fixed_dictionaries(
                {"ref": st.just({"name": "t"})},
                optional={
                    "allow": st.lists(st.sampled_from(["*", "get_*", "get_a"]), max_size=2),
                    "requireApproval": st.lists(st.sampled_from(["*", "get_*", "get_a"]), max_size=2),
                },
            ),
            max_size=1,
        ),
    },
)


@given(some_spec)
def test_a_child_of_anything_that_asks_for_nothing_is_narrow(parent: Spec) -> None:
    assert narrowing.narrower(narrowing.inherit({}, parent), parent) == []


@given(some_spec)
def test_everything_is_as_narrow_as_itself(spec: Spec) -> None:
    assert narrowing.narrower(spec, spec) == []


@given(some_spec, some_spec)
def test_inheriting_twice_is_inheriting_once_and_only_adds(asked: Spec, parent: Spec) -> None:
    once = narrowing.inherit(asked, parent)
    assert narrowing.inherit(once, parent) == once
    for field in asked:
        assert once[field] == asked[field] or set(asked[field]) <= set(once[field])


@given(some_spec, some_spec, some_spec)
def test_narrow_of_narrow_is_narrow(first: Spec, second: Spec, third: Spec) -> None:
    second = narrowing.inherit(second, first)  # or hardly any would fit
    third = narrowing.inherit(third, second)
    if not narrowing.narrower(third, second) and not narrowing.narrower(second, first):
        assert narrowing.narrower(third, first) == []


@given(st.text("ab*?", max_size=6), st.text("ab*?", max_size=6), st.text("ab", max_size=6))
def test_a_glob_that_covers_another_matches_all_of_it(wide: str, narrow: str, text: str) -> None:
    if policy_globs.glob(wide).covers(narrow) and policy_globs.glob(narrow).matches(text):
        assert policy_globs.glob(wide).matches(text)


@given(st.text("a*?", max_size=5), st.text("a*?", max_size=5), st.text("a*?", max_size=5))
def test_covering_is_transitive(first: str, second: str, third: str) -> None:
    if policy_globs.glob(first).covers(second) and policy_globs.glob(second).covers(third):
        assert policy_globs.glob(first).covers(third)


@pytest.mark.parametrize(
    ("asked", "had", "field"),
    [
        ({"steps": 5}, None, ()),
        ({"steps": 4}, {"steps": 5}, ("steps",)),
        ({"every": "1m"}, {"steps": 5}, ("every",)),
        ({"every": "59s"}, {"every": "1m"}, ("every",)),
        ({"steps": 5, "keep": 4}, {"steps": 5}, ("keep",)),
        ({"steps": 5, "restore": "OnFailure"}, {"steps": 5}, ("restore",)),
    ],
)
def test_a_child_has_no_more_checkpoints_than_its_parent(asked: Spec, had: Spec | None, field: Any) -> None:
    parent = PARENT | ({"checkpoint": had} if had else {})
    assert [one.path for one in narrowing.narrower(child(("checkpoint",), asked), parent)] == [
        ("spec", "checkpoint", *field)
    ]


def test_a_child_may_have_as_many_checkpoints_or_none() -> None:
    parent = PARENT | {"checkpoint": {"every": "1m", "steps": 5, "restore": "OnFailure"}}
    assert narrowing.narrower(child(), parent) == []
    assert "checkpoint" not in narrowing.inherit({"command": ["true"]}, parent)
    for asked in ({"every": "60s"}, {"steps": 6, "keep": 1}, {"every": "2m", "restore": "OnFailure"}):
        assert narrowing.narrower(child(("checkpoint",), asked), parent) == []
    for bad in (
        {"steps": "5"},
        {"steps": 5, "how": "often"},
        {"every": 5},
        {"steps": 5, "restore": "Always"},
        [5],
    ):
        assert narrowing.narrower(child(("checkpoint",), bad), parent) != []
