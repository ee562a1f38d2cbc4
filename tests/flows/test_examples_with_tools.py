"""The examples whose model calls tools: a review that tries things out, and research that takes notes."""

import copy
import json
from typing import Any

import pytest

from agentk.api import kinds
from tests.flows import household, providing
from tests.flows.household import Household, Space
from tests.flows.test_examples import EXAMPLES, output

pytestmark = household.needs


def test_a_review_reports_only_what_it_could_show(home: Household) -> None:
    lines = output(home, "code-review", "reviewer")
    assert lines == [
        "discounts.py: ok",
        "prices.py:",
        "  error: average([]) raises ZeroDivisionError: say what an empty list means",
    ]


def test_research_searches_reads_notes_and_cites(home: Household) -> None:
    lines = output(home, "research-assistant", "assistant")
    assert [line.partition(":")[0] for line in lines[:6]] == [
        "search", "read", "read", "note", "note", "answer",
    ]  # fmt: skip
    assert "[lamps.md]" in lines[5] and "Fresnel" in lines[5]
    assert [line.strip().partition(" ")[0] for line in lines[6:]] == ["[lamps.md]", "[lenses.md]"]


def test_a_team_makes_a_module_that_was_tested_and_mended(home: Household) -> None:
    """Five jails, one after the other: what one makes is what the next one gets."""
    held: dict[str, Any] = {}

    def result() -> None:
        home.agentk("wait", "agent/architect", "-n", "team", "--for=condition=Finished", "--timeout=100s")
        held.update(home.api.get(kinds.AGENT, "team", "architect")["status"])

    lines = output(home, "team", "architect", result)
    assert any(line.startswith("step 3: calls developer: Back to the developer") for line in lines)
    before, _, rest = json.loads(held["result"]).partition("==> README.md <==")
    readme, _, rest = rest.partition("==> roman.py <==")
    module, _, tests = rest.partition("==> test_roman.py <==")
    assert "Ran 4 tests" in before and "OK" in before
    assert "to_roman(number: int) -> str" in readme and ">>> to_roman(1994)" in readme
    made: dict[str, Any] = {}
    exec(module, made)
    assert made["to_roman"](1949) == "MCMXLIX" and "assertRaises" in tests
    assert held["usage"]["tokens"] > 5_000, "colleagues use the architect's budget"


def test_one_line_asks_a_provider_instead(home: Household, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (EXAMPLES / "data-analysis" / "manifest.yaml").read_text()
    there, answer = Space(home, "data-analysis"), {"rows": 1, "month": "2025-01", "cents": 1, "shop": "Bern"}
    told = copy.deepcopy(providing.CHAT)
    told["choices"][0]["message"] = {"role": "assistant", "content": json.dumps(answer)}
    monkeypatch.setitem(providing.ANSWERS, "/v1/chat/completions", told)
    with providing.serving() as provider:
        real = f"{{model: openai/gpt-4o-mini, apiBase: {provider.url}/v1, apiKeySecretRef: {{name: openai, key: key}}}}"
        secret = household.manifest("Secret", "openai", stringData={"key": providing.KEY})
        try:
            home.agentk("apply", "-f", "-", stdin=text.split("---\n")[0])
            there.apply(secret)
            home.agentk("apply", "-f", "-", stdin=text.replace("{model: scripted/rules}", real))
            status = there.phase("analyst", "Succeeded", "Failed")
        finally:
            home.agentk("delete", "-f", str(EXAMPLES / "data-analysis" / "manifest.yaml"))
    assert (status["reason"], json.loads(status["result"]), status["steps"]) == ("Completed", answer, 1)
    ((_, headers, body),) = provider.seen
    assert {key.lower(): value for key, value in headers.items()}[
        "authorization"
    ] == f"Bearer {providing.KEY}"
    assert body["model"] == "gpt-4o-mini" and "analyst" in json.dumps(body["messages"])
