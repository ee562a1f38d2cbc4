"""Limits as people write them: exact money, durations, the field in every complaint."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors
from agentk.broker import budgets_limits as limits
from agentk.broker.budgets_limits import Limits

HOUR = 3600.0


@pytest.mark.parametrize(
    ("text", "micro"),
    [
        ("2.50", 2_500_000),
        ("0", 0),
        ("0.000001", 1),
        ("1.10", 1_100_000),
        ("7", 7_000_000),
        ("0.1000000", 100_000),
    ],
)
def test_dollars_are_exact(text: str, micro: int) -> None:
    assert limits.parse_usd(text) == micro


@pytest.mark.parametrize(
    "text", ["", "-1", "1e3", "1.", ".5", "0.0000001", "1,5", "١", 2.5, None, "9" * 13, "1 "]
)
def test_what_is_no_amount_of_dollars(text: object) -> None:
    with pytest.raises(errors.Invalid):
        limits.parse_usd(text)


@given(st.integers(0, 10**17))
def test_dollars_come_back(micro: int) -> None:
    assert limits.parse_usd(limits.format_usd(micro)) == micro


def test_limits_of_an_agent() -> None:
    spec = {"maxCostUsd": "2.50", "maxTokens": 9, "maxCalls": 5, "maxWallTime": "1h", "per": "24h"}
    assert limits.of_agent(spec | {"maxTokensPerRequest": 3}) == Limits(9, 5, 2_500_000, HOUR, 24 * HOUR, 3)
    assert limits.of_agent(None) == Limits()


def test_limits_of_a_quota() -> None:
    spec = {"hard": {"agents": 3, "tokens": 9, "calls": 5, "costUsd": "1"}, "per": "1h", "largestShare": 30}
    assert limits.of_quota(spec) == Limits(9, 5, 1_000_000, None, HOUR, None, 30)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"maxCostUsd": "1.x"}, "spec.budget.maxCostUsd"),
        ({"per": "1d"}, "spec.budget.per"),
        ({"per": "0"}, "spec.budget.per"),
        ({"maxWallTime": "0s"}, "spec.budget.maxWallTime"),
    ],
)
def test_a_wrong_limit_names_its_field(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        limits.of_agent(spec)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("limit", "percent", "share"), [(1000, 30, 300), (3, 30, 1), (0, 30, 0), (7, 100, 7), (9, 50, 4)]
)
def test_a_share_is_rounded_down_to_something_usable(limit: int, percent: int, share: int) -> None:
    assert limits.share(limit, percent) == share
