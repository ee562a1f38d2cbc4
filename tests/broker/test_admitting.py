"""What only the gate can say is wrong with an object is told when it is applied, with its field."""

from typing import Any

import pytest

from agentk.api import errors, kinds
from agentk.broker import admitting

RULE = {"name": "r", "effect": "Allow", "methods": ["*"], "targets": ["x"]}
API = {"apiVersion": "agentk.dev/v1alpha1"}


def obj(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {**API, "kind": kind, "metadata": {"name": "x", "namespace": "n"}, "spec": spec}


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        (
            kinds.MODELROUTE,
            {"modelList": [{"modelName": "m", "litellmParams": {"model": "openai/x", "api_key": "sk-1"}}]},
            "api_key",
        ),
        (kinds.POLICY, {"level": "baseline", "rules": [RULE]}, "spec.rules[0].targets[0]"),
        (kinds.QUOTA, {"hard": {"tokens": 1}, "per": "1ms"}, "spec.per"),
        (kinds.AGENT, {"budget": {"per": "1ms"}}, "spec.budget.per"),
        (kinds.AGENT, {"network": {"egress": {"allow": [{"host": "127.1"}]}}}, "spec.network.egress.allow[0].host"),
    ],
)  # fmt: skip
def test_the_field_is_named(kind: kinds.Kind, spec: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        admitting.check(kind, obj(kind.kind, spec))
    told = [caught.value.field, *(cause.field for cause in caught.value.causes)]
    assert any(field in one for one in told if one), told


def test_a_tool_is_held_to_what_it_becomes() -> None:
    secret = {"name": "s", "key": "k", "inject": {"host": "a.example", "header": "Authorization"}}
    for spec, field in (
        ({"command": {"argv": ["true"]}, "jail": {"secrets": [secret]}}, "spec.jail.secrets[0].inject.host"),
        ({"http": {"url": "http://bad_host!/x"}}, "spec.http.url"),
    ):
        with pytest.raises(errors.Invalid) as caught:
            admitting.check(kinds.TOOL, {"metadata": {"name": "t"}, "spec": spec})
        assert caught.value.field == field
