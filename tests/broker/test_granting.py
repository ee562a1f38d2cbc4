"""What an agent is granted of tools, what a Policy says of them, and what it may hand on."""

from typing import Any

import pytest

from agentk.broker import granting, policy_arguments, policy_globs
from agentk.broker.policy import Facts, Verdict, decide, explain
from tests.broker.narrowing_rig import PARENT, child, fields, told
from tests.broker.ruling import EVERYTHING, allow, ask, deny, effect, rules

GITHUB = {
    "ref": {"name": "github"},
    "allow": ["get_*", "create_*"],
    "deny": ["*_secret"],
    "requireApproval": ["create_*"],
    "arguments": [
        {"name": "create_*", "argument": "repo", "allow": ["acme/*"]},
        {"argument": "labels", "deny": ["urgent*"]},
        {"argument": "to.address", "deny": ["*@rival.example"]},
    ],
}


def judged(name: str, **arguments: Any) -> tuple[str, str]:
    grant = granting.of({"tools": [GITHUB]}, "github")
    assert grant is not None
    verdict = grant.judged(name, arguments)
    return verdict.effect, verdict.rule


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("get_issue", {}, ("Allow", "")),
        ("delete_repo", {}, ("Deny", "tools[github].allow")),
        ("get_secret", {}, ("Deny", "tools[github].deny")),
        ("create_issue", {"repo": "acme/x"}, ("Ask", "tools[github].requireApproval")),
        ("create_issue", {"repo": "other/x"}, ("Deny", "tools[github].arguments[0]")),
        ("create_issue", {}, ("Deny", "tools[github].arguments[0]")),
        ("create_issue", {"repo": ["acme/x", "other/x"]}, ("Deny", "tools[github].arguments[0]")),
        ("get_issue", {"labels": ["ok", "urgent-1"]}, ("Deny", "tools[github].arguments[1]")),
        ("get_issue", {"labels": [[["urgent"]]]}, ("Deny", "tools[github].arguments[1]")),
        ("get_issue", {"labels": "x" * 99_999}, ("Deny", "tools[github].arguments[1]")),
        ("get_issue", {"to.address": "c@rival.example"}, ("Deny", "tools[github].arguments[2]")),
        ("get_issue", {"to": [{"address": "a"}, {"address": "c@rival.example"}]},
         ("Deny", "tools[github].arguments[2]")),
    ],
)  # fmt: skip
def test_a_grant_judges_name_and_arguments(
    name: str, arguments: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert judged(name, **arguments) == expected


def test_what_is_not_named_is_not_granted() -> None:
    assert granting.of({"tools": [GITHUB]}, "other") is None and granting.grants({}) == []
    assert granting.of({"tools": [{"ref": {"name": "x"}, "allow": []}]}, "x").offers("y") is False  # type: ignore[union-attr]


def test_a_policy_asks_for_tools_and_arguments() -> None:
    call = {"tool": "github/create_issue", "arguments": {"repo": "acme/x", "n": 5, "tags": ["a", "b"]}}
    method = "tool.call"
    assert effect([EVERYTHING], method, **call) == "Allow"
    assert effect([EVERYTHING], method) == "Deny"  # a rule about tools would be passed by
    assert effect([EVERYTHING, deny(methods=["tool.*"], tools=["github"])], method, **call) == "Deny"
    assert effect([EVERYTHING, ask(methods=["*"], tools=["*/create_*"])], method, **call) == "Ask"
    assert effect([EVERYTHING, deny(methods=["*"], arguments={"tags": ["b"]})], method, **call) == "Deny"
    assert effect([allow(methods=["*"], arguments={"tags": ["b"]})], method, **call) == "Deny"
    assert (
        effect([allow(methods=["*"], arguments={"tags": ["a", "b"], "n": ["5"]})], method, **call) == "Allow"
    )
    assert effect([allow(methods=["*"], arguments={"other": ["*"]})], method, **call) == "Deny"
    assert effect([EVERYTHING, deny(methods=["*"], arguments={})], method, **call) == "Deny"
    written = rules(deny(methods=["*"], arguments={"n": ["6"]}), EVERYTHING)
    assert "its arguments (n: 6)" in explain(written, method, Facts(**call))[0].why  # type: ignore[arg-type]


def test_policy_and_grant_must_both_allow() -> None:
    facts = Facts(tool="a/b", granted=Verdict("Deny", "tools[a].deny", "no"))
    assert decide(rules(EVERYTHING), "tool.call", facts).rule == "tools[a].deny"
    granted = Facts(tool="a/b", granted=Verdict("Allow", "", "yes"))
    assert decide(rules(EVERYTHING), "tool.call", granted).rule == "all"
    assert decide(rules(deny(methods=["*"])), "tool.call", granted).effect == "Deny"


def test_values_are_compared_as_text() -> None:
    assert policy_arguments.values({"a": {"b": [True, 1.5, "x"]}}, "a.b") == ["true", "1.5", "x"]
    assert policy_arguments.values({"a": [5.0, 5, "5", -0.0]}, "a") == ["5", "5", "5", "0"]
    assert policy_arguments.values({"a": None}, "a") == [] == policy_arguments.values({"a": 1}, "a.b")
    assert policy_arguments.matches(policy_globs.globs(["*"]), "", refuses=False)


@pytest.mark.parametrize(
    ("more", "fits"),
    [
        ({}, True),
        ({"allow": ["get_x"], "maxCalls": 3, "resultBytes": 9000}, True),
        ({"allow": None}, False),
        ({"allow": ["*"]}, False),
        ({"deny": []}, False),
        ({"deny": ["*_secret", "*_more"]}, True),
        ({"arguments": []}, False),
        ({"requireApproval": ["*"]}, True),
        ({"requireApproval": []}, False),
        ({"maxCalls": None}, False),
        ({"maxCalls": 6}, False),
        ({"everything": True}, False),
    ],
)
def test_a_child_has_no_more_of_a_tool_than_its_parent(more: dict[str, Any], fits: bool) -> None:
    had = {**GITHUB, "maxCalls": 5}
    asked = {key: value for key, value in {**had, **more}.items() if value is not None}
    parent = {**PARENT, "tools": [had]}
    assert (fields(child(("tools",), [asked]), parent) == []) is fits
    assert '"other"' in told(child(("tools",), [{"ref": {"name": "other"}}]), parent)
