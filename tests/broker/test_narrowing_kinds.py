"""What is no bound but a name, a rank, a file, a secret or a host is never wider in a child either."""

from typing import Any

import pytest

from agentk.api import problems
from agentk.broker import narrowing, narrowing_memory
from tests.broker.narrowing_rig import PARENT, Spec, child, fields, merged, told

# memory

ONE = {"embedder": {"modelRef": {"name": "r"}, "model": "m"}, "limits": {"pages": 10}, "retention": "1h"}


@pytest.mark.parametrize(
    ("asked", "had", "wider"),
    [
        (None, None, []),
        (None, ONE, []),
        ({}, None, ["spec.memory"]),
        (ONE, ONE, []),
        ({**ONE, "contextTokens": 999_999, "context": "managed"}, ONE, []),
        ({**ONE, "limits": {"pages": 9}, "retention": "59m"}, ONE, []),
        ({**ONE, "limits": {"pages": 11}}, ONE, ["spec.memory.limits.pages"]),
        ({**ONE, "limits": {"pages": 1, "bytes": "65Mi"}}, ONE, ["spec.memory.limits.bytes"]),
        ({**ONE, "limits": {}}, ONE, ["spec.memory.limits.pages"]),
        ({**ONE, "retention": "61m"}, ONE, ["spec.memory.retention"]),
        ({key: value for key, value in ONE.items() if key != "retention"}, ONE, ["spec.memory.retention"]),
        ({**ONE, "embedder": {"sentence": True}}, ONE, ["spec.memory.embedder"]),
        ({"ref": {"name": "team"}}, {"ref": {"name": "team"}}, []),
        ({"ref": {"name": "other"}}, {"ref": {"name": "team"}}, ["spec.memory.ref"]),
        ({"ref": {"name": "team"}}, ONE, ["spec.memory.ref"]),
        (ONE, {"ref": {"name": "team"}}, ["spec.memory.ref"]),
    ],
)
def test_a_childs_memory_is_its_parents_or_keeps_no_more_and_no_longer(
    asked: Spec | None, had: Spec | None, wider: list[str]
) -> None:
    assert [problems.field_path(one.path) for one in narrowing_memory.problems(asked, had)] == wider


# names and ranks


@pytest.mark.parametrize("path", narrowing.SAME)
def test_another_policy_runtime_route_or_image_is_refused(path: tuple[str, ...]) -> None:
    found = narrowing.narrower(child(path, "privileged"), PARENT)
    assert [one.path for one in found] == [("spec", *path)]
    assert '"privileged"' in found[0].message
    assert problems.shown(narrowing._at_path(PARENT, path)) in found[0].message


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


@pytest.mark.parametrize(
    ("asked", "had", "fits"),
    [
        (None, None, True),
        (None, {"name": "p"}, True),
        ({"name": "p"}, {"name": "p"}, True),
        ({"name": "q"}, {"name": "p"}, False),
        ({"name": "p"}, None, False),
        ({"name": "p", "more": 1}, {"name": "p"}, False),
        ("p", {"name": "p"}, False),
        ({}, {"name": "p"}, True),
    ],
)
def test_pools(asked: Any, had: Any, fits: bool) -> None:
    parent = {**PARENT, "poolRef": had} if had else PARENT
    child = {**PARENT, "poolRef": asked} if asked is not None else PARENT
    assert (narrowing.narrower(child, parent) == []) is fits


def test_a_pool_is_not_inherited() -> None:
    assert "poolRef" not in narrowing.inherit({"command": ["x"]}, {**PARENT, "poolRef": {"name": "p"}})
