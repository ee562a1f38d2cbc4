"""Rules as tests write them, in few words."""

from typing import Any

from agentk.broker import policy, policy_rules
from agentk.broker.policy import Facts


def rules(*written: dict[str, Any]) -> policy_rules.Rules:
    return policy_rules.compiled("team", [{"name": f"r{at}", **one} for at, one in enumerate(written)])


def effect(written: list[dict[str, Any]], method: str, **facts: Any) -> str:
    return policy.decide(rules(*written), method, Facts(**facts)).effect


def allow(**matchers: Any) -> dict[str, Any]:
    return {"effect": "Allow", **matchers}


def deny(**matchers: Any) -> dict[str, Any]:
    return {"effect": "Deny", **matchers}


def ask(**matchers: Any) -> dict[str, Any]:
    return {"effect": "Ask", **matchers}


EVERYTHING = allow(name="all", methods=["*"])
GET = {"host": "api.example.com", "port": 443, "http_method": "GET", "path": "/v1/x"}
TUNNEL = {"host": "api.example.com", "port": 443, "http_method": "CONNECT"}
