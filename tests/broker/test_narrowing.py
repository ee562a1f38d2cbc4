"""What a guest creates is never wider than itself."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import kinds, problems, schemas
from agentk.broker import narrowing, narrowing_grants, policy_globs

Spec = dict[str, Any]


def fields(child: Spec, parent: Spec) -> list[str]:
    return [problems.field_path(one.path) for one in narrowing.narrower(child, parent)]


def told(child: Spec, parent: Spec) -> str:
    return "; ".join(one.message for one in narrowing.narrower(child, parent))


def at(path: tuple[str, ...], value: Any) -> Spec:
    for step in reversed(path):
        value = {step: value}
    return dict(value)


def merged(spec: Spec, path: tuple[str, ...], value: Any) -> Spec:
    made = copy.deepcopy(spec)
    inner = made
    for step in path[:-1]:
        inner = inner.setdefault(step, {})
    inner[path[-1]] = value
    return made


PARENT: Spec = {
    "command": ["python", "main.py"],
    "policyRef": {"name": "team"},
    "runtimeRef": {"name": "tight"},
    "modelRef": {"name": "cheap"},
    "resources": {
        "limits": {"cpu": "500m", "memory": "256Mi", "pids": 64, "ephemeral-storage": "64Mi", "open-files": 256}
    },
    "logs": {"maxSize": "1Mi", "maxFiles": 2, "maxRate": "1Mi"},
    "priority": 50,
    "restartPolicy": "OnFailure",
    "backoffLimit": 3,
    "restartBackoff": {"initialSeconds": 10, "maxSeconds": 60, "resetAfterSeconds": 60},
    "maxRestarts": 5,
    "restartWindow": "10m",
    "activeDeadlineSeconds": 900,
    "ttlSecondsAfterFinished": 60,
    "terminationGracePeriodSeconds": 5,
    "budget": {
        "maxCostUsd": "2.50",
        "maxTokens": 1000,
        "maxCalls": 10,
        "maxWallTime": "10m",
        "maxTokensPerRequest": 100,
        "per": "1h",
        "onExceeded": "Kill",
    },
    "env": [
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "gh", "key": "token"}}},
        {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "mode"}}},
    ],
    "volumes": [
        {"name": "data", "hostPath": {"path": "/data"}},
        {"name": "out", "hostPath": {"path": "/out"}},
        {"name": "tls", "secret": {"secretName": "tls"}},
        {"name": "unseen", "secret": {"secretName": "unseen"}},
        {"name": "conf", "configMap": {"name": "conf"}},
        {"name": "scratch", "emptyDir": {"sizeLimit": "16Mi"}},
    ],
    "volumeMounts": [
        {"name": "data", "mountPath": "/mnt/data", "readOnly": True},
        {"name": "out", "mountPath": "/mnt/out"},
        {"name": "tls", "mountPath": "/mnt/tls"},
        {"name": "conf", "mountPath": "/mnt/conf"},
        {"name": "scratch", "mountPath": "/mnt/scratch"},
    ],
    "network": {
        "egress": {
            "default": "Deny",
            "allow": [
                {"host": "*.example.com", "ports": [443]},
                {"host": "api.example.com", "ports": [8443]},
                {"host": "any.example"},
            ],
        }
    },
    "secrets": [{"name": "gh", "key": "api", "inject": {"host": "*.github.example", "header": "Authorization"}}],
    "environment": {"python": {"requirements": ["openai==2.0"]}},
    "tools": [{"ref": {"name": "github"}, "allow": ["get_*", "list_*"], "requireApproval": ["get_secret*"]}],
}  # fmt: skip


def child(path: tuple[str, ...] = (), value: Any = None) -> Spec:
    """The parent's bounds, and one thing more."""
    made = narrowing.inherit({"command": ["true"]}, PARENT)
    return merged(made, path, value) if path else made


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


def test_inheriting_changes_neither_spec_and_nothing_that_is_given() -> None:
    asked, parent = {"resources": {"limits": {"pids": 7}}, "budget": {"maxTokens": 5}}, copy.deepcopy(PARENT)
    before = copy.deepcopy(asked)
    made = narrowing.inherit(asked, parent)
    assert asked == before and parent == PARENT
    assert made["resources"]["limits"]["pids"] == 7 and made["budget"]["maxTokens"] == 5
    made["budget"]["maxCalls"] = made["resources"]["limits"]["memory"] = 0
    assert parent == PARENT


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
    ("restartBackoff", "initialSeconds"): 9,
    ("restartBackoff", "maxSeconds"): 59,
    ("restartBackoff", "resetAfterSeconds"): 59,
    ("maxRestarts",): 6,
    ("restartWindow",): "9m59s",
    ("activeDeadlineSeconds",): 901,
    ("ttlSecondsAfterFinished",): 61,
    ("terminationGracePeriodSeconds",): 6,
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


# names and ranks


@pytest.mark.parametrize("path", narrowing.SAME)
def test_another_policy_runtime_or_route_is_refused(path: tuple[str, ...]) -> None:
    found = narrowing.narrower(child(path, "privileged"), PARENT)
    assert [one.path for one in found] == [("spec", *path)]
    assert '"privileged"' in found[0].message and narrowing._at_path(PARENT, path) in found[0].message


def test_a_policy_left_out_is_the_default_one() -> None:
    assert fields({"command": ["true"]}, {"command": ["true"], "policyRef": {"name": "baseline"}}) == []
    assert fields({"command": ["true"]}, {"command": ["true"], "policyRef": {"name": "restricted"}}) == [
        "spec.policyRef.name"
    ]


@pytest.mark.parametrize(
    ("path", "value", "fits"),
    [
        (("restartPolicy",), "Never", True),
        (("restartPolicy",), "OnFailure", True),
        (("restartPolicy",), "Always", False),
        (("restartPolicy",), "Sometimes", False),
        (("budget", "onExceeded"), "Kill", True),
        (("budget", "onExceeded"), "Pause", False),
    ],
)
def test_ranks(path: tuple[str, ...], value: str, fits: bool) -> None:
    assert fields(child(path, value), PARENT) == ([] if fits else [problems.field_path(("spec", *path))])


# files and secrets


def volume(mount: Spec | None = None, **made: Any) -> Spec:
    spec = child(("volumes",), [{"name": "v", **made}])
    return merged(
        spec, ("volumeMounts",), [] if mount is None else [{"name": "v", "mountPath": "/m", **mount}]
    )


SEEN: Spec = {"readOnly": True}


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        (volume(SEEN, hostPath={"path": "/data"}), True),
        (volume(SEEN, hostPath={"path": "/data/"}), True),
        (volume({}, hostPath={"path": "/data"}), False),
        (volume({}, hostPath={"path": "/out"}), True),
        (volume(SEEN, hostPath={"path": "/out"}), True),
        (volume(SEEN, hostPath={"path": "/out/below"}), False),
        (volume(SEEN, hostPath={"path": "/"}), False),
        (volume(None, hostPath={"path": "/etc"}), False),
        (volume(SEEN, secret={"secretName": "tls"}), True),
        (volume(SEEN, secret={"secretName": "gh"}), False),
        (volume(SEEN, secret={"secretName": "unseen"}), False),
        (volume(None, secret={"secretName": "unseen"}), True),
        (volume(SEEN, configMap={"name": "conf"}), True),
        (volume(SEEN, configMap={"name": "cfg"}), False),
        (volume(SEEN, nfs={"path": "/data"}), False),
        (volume({}, emptyDir={"sizeLimit": "16Mi"}), True),
        (volume({}, emptyDir={"sizeLimit": "17Mi"}), False),
        (volume({}, emptyDir={}), False),
        (child(("source",), {"inline": {"files": {"a.py": "1"}}}), True),
        (child(("source",), {"configMapRef": {"name": "conf"}}), True),
        (child(("source",), {"configMapRef": {"name": "other"}}), False),
        (child(("source",), {"path": ".", "digest": "sha256:" + "0" * 64}), False),
    ],
)
def test_volumes_and_sources(spec: Spec, fits: bool) -> None:
    assert (narrowing.narrower(spec, PARENT) == []) is fits


def test_the_source_of_the_parent_is_its_own_to_share() -> None:
    source = {"path": ".", "digest": "sha256:" + "1" * 64}
    assert fields(child(("source",), source), {**PARENT, "source": source}) == []


@pytest.mark.parametrize(
    ("ref", "fits"),
    [
        ({"secretKeyRef": {"name": "gh", "key": "token"}}, True),
        (
            {"secretKeyRef": {"name": "gh", "key": "api"}},
            False,
        ),  # the gate injects it: the parent never had it
        ({"secretKeyRef": {"name": "tls", "key": "any"}}, True),
        ({"secretKeyRef": {"name": "other", "key": "token", "optional": True}}, False),
        ({"configMapKeyRef": {"name": "cfg", "key": "mode"}}, True),
        ({"configMapKeyRef": {"name": "cfg", "key": "other"}}, False),
        ({"fieldRef": {"fieldPath": "metadata.name"}}, True),
        ({"vaultRef": {"name": "x"}}, False),
    ],
)
def test_values_of_the_environment(ref: Spec, fits: bool) -> None:
    spec = child(("env",), [{"name": "A", "value": "free"}, {"name": "B", "valueFrom": ref}])
    assert (narrowing.narrower(spec, PARENT) == []) is fits


def test_the_message_says_what_the_parent_has() -> None:
    message = told(volume({}, hostPath={"path": "/data"}), PARENT)
    assert message == "its parent has hostPath /data read-only, asked for hostPath /data writable"


@pytest.mark.parametrize(
    ("inject", "fits"),
    [
        ({"host": "*.github.example", "header": "Authorization"}, True),
        ({"host": "api.github.example", "header": "Authorization"}, True),
        ({"host": "github.example", "header": "Authorization"}, False),
        ({"host": "*", "header": "Authorization"}, False),
        ({"host": "api.github.example", "header": "X-Echo"}, False),
        ({"host": "api.github.example", "header": "Authorization", "query": "q"}, False),
    ],
)
def test_injected_secrets(inject: Spec, fits: bool) -> None:
    spec = child(("secrets",), [{"name": "gh", "key": "api", "inject": inject}])
    assert (narrowing.narrower(spec, PARENT) == []) is fits


# hosts, environments, tools


@pytest.mark.parametrize(
    ("egress", "fits"),
    [
        ({}, True),
        ({"default": "Deny"}, True),
        ({"default": "Allow"}, False),
        ({"allow": [{"host": "a.example.com", "ports": [443]}]}, True),
        ({"allow": [{"host": "*.a.example.com", "ports": [443]}]}, True),
        ({"allow": [{"host": "A.Example.com.", "ports": [443]}]}, True),
        ({"allow": [{"host": "a.example.com", "ports": [443, 22]}]}, False),
        ({"allow": [{"host": "a.example.com"}]}, True),  # no ports: 443
        ({"allow": [{"host": "api.example.com", "ports": [443, 8443]}]}, True),
        ({"allow": [{"host": "any.example"}]}, True),
        ({"allow": [{"host": "any.example", "ports": [1]}]}, False),
        ({"allow": [{"host": "any.example", "methods": ["GET"]}]}, True),
        ({"allow": [{"host": "any.example", "privateAddresses": True}]}, False),
        ({"allow": [{"host": "example.com", "ports": [443]}]}, False),
        ({"allow": [{"host": "*", "ports": [443]}]}, False),
        ({"allow": [{"host": "127.1", "ports": [443]}]}, False),
        ({"allow": [{"host": "any.example", "paths": ["/"]}]}, False),
    ],
)
def test_egress(egress: Spec, fits: bool) -> None:
    assert (narrowing.narrower(child(("network",), {"egress": egress}), PARENT) == []) is fits


def test_a_parent_that_reaches_every_host_may_hand_out_any() -> None:
    parent = {**PARENT, "network": {"egress": {"default": "Allow"}}}
    for egress in ({"default": "Allow"}, {"allow": [{"host": "a.example"}]}):
        assert fields(child(("network",), {"egress": egress}), parent) == []


@pytest.mark.parametrize(
    ("egress", "fits"),
    [
        ({"default": "Allow"}, False),  # api would be reached by every method
        ({"default": "Allow", "allow": [{"host": "api.example", "methods": ["GET"]}]}, True),
        ({"default": "Allow", "allow": [{"host": "*.example", "methods": ["GET"]}]}, False),
        ({"default": "Allow", "allow": [{"host": "api.example", "methods": ["get", "PUT"]}]}, False),
        ({"default": "Allow", "allow": [{"host": "api.example"}]}, False),
        ({"allow": [{"host": "api.example", "methods": ["get"]}]}, True),
        ({"allow": [{"host": "*.example"}]}, False),
        ({"allow": [{"host": "other.test", "ports": [22]}]}, True),
        ({"allow": [{"host": "other.test", "privateAddresses": True}]}, False),
        ({"allow": [{"host": "wiki.test", "privateAddresses": True}]}, True),
        ({"allow": [{"host": "other.test", "privateAddresses": "yes"}]}, False),
        ({"allow": [{"host": "other.test", "methods": [1]}]}, False),
    ],
)
def test_what_an_open_parent_lists_is_reached_as_it_is_listed(egress: Spec, fits: bool) -> None:
    listed = [{"host": "api.example", "methods": ["GET"]}, {"host": "wiki.test", "privateAddresses": True}]
    parent = {**PARENT, "network": {"egress": {"default": "Allow", "allow": listed}}}
    if egress.get("default"):
        egress = {**egress, "allow": [*egress.get("allow", []), {"host": "wiki.test"}]}
    assert (narrowing.narrower(child(("network",), {"egress": egress}), parent) == []) is fits


def test_a_parent_without_a_network_has_none_to_hand_out() -> None:
    parent = {key: value for key, value in PARENT.items() if key != "network"}
    spec = child(("network",), {"egress": {"allow": [{"host": "any.example"}]}})
    assert told(spec, parent) == "its parent reaches no host; asked for any.example on 443"


def test_environments_are_the_parents_or_none() -> None:
    assert fields(child(("environment",), PARENT["environment"]), PARENT) == []
    assert fields(child(("environment",), {"python": {"requirements": ["evil"]}}), PARENT) != []
    assert fields(child(("environment",), {"node": {"packages": ["left-pad"]}}), PARENT) != []


@pytest.mark.parametrize(
    ("tool", "fits"),
    [
        ({"ref": {"name": "github"}, "allow": ["get_issue"], "requireApproval": ["get_secret*"]}, True),
        ({"ref": {"name": "github"}, "allow": ["get_*"], "requireApproval": ["*"]}, True),
        ({"ref": {"name": "github"}, "allow": ["get_*"]}, False),
        ({"ref": {"name": "github"}, "allow": ["*"], "requireApproval": ["*"]}, False),
        ({"ref": {"name": "github"}, "requireApproval": ["*"]}, False),
        ({"ref": {"name": "github"}, "allow": [], "requireApproval": ["*"]}, True),
        ({"ref": {"name": "shell"}, "allow": ["get_*"], "requireApproval": ["*"]}, False),
        ({"ref": {"name": "github"}, "allow": [], "requireApproval": ["*"], "env": {}}, False),
    ],
)
def test_tools(tool: Spec, fits: bool) -> None:
    assert (narrowing.narrower(child(("tools",), [tool]), PARENT) == []) is fits


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
