"""Amounts: Kubernetes' grammar, whole-number arithmetic, hints for what people type instead."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors
from agentk.api import quantities as q


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("256Mi", 268435456),
        ("1.5Gi", 1610612736),
        ("1k", 1000),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("0", 0),
        (".5Ki", 512),
        ("100m", 1),
        ("+5", 5),
        ("-0", 0),
        (1048576, 1048576),
        (0.5, 1),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_quantity(text: str | int | float, value: int) -> None:
    assert q.parse_quantity(text) == value


@pytest.mark.parametrize(
    ("text", "millis"), [("500m", 500), ("2", 2000), (0.1, 100), (1, 1000), ("1u", 1), ("1e-3", 1)]
)
def test_cpu(text: str | int | float, millis: int) -> None:
    assert q.parse_cpu(text) == millis


@pytest.mark.parametrize(
    "text",
    ["", " ", "1 Mi", "Mi", "1mi", "--1", "-1", "1e", "0x10", "1_000", "8Ei", "9" * 70, "1e999", "١", "inf"],
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(errors.Invalid):
        q.parse_quantity(text)


@pytest.mark.parametrize("value", [True, None, [], 2**63, float("inf"), float("nan")])
def test_other_types_are_no_quantity(value: object) -> None:
    with pytest.raises(errors.Invalid):
        q.parse_quantity(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "meant"), [("256MB", "256M"), ("1gb", "1G"), ("64MiB", "64Mi"), ("1 Gi", "1Gi")]
)
def test_what_people_type_instead_gets_a_hint(text: str, meant: str) -> None:
    with pytest.raises(errors.Invalid, match=f"did you mean '{meant}'"):
        q.parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("0", 0),
        ("1m1s1ms", 61.001),
        ("5us", 5e-6),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert q.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "1d", "h", "-1s", "1h 30m", "9" * 70 + "s", "9999999999h", 5, None]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(errors.Invalid):
        q.parse_duration(text)


def test_days_get_a_hint() -> None:
    with pytest.raises(errors.Invalid, match="write 48h"):
        q.parse_duration("2d")


@given(st.integers(0, 2**63 - 1))
def test_a_formatted_quantity_reads_back(value: int) -> None:
    assert q.parse_quantity(q.format_quantity(value)) == value


@given(st.integers(0, 10**12))
def test_formatted_cpu_reads_back(millis: int) -> None:
    assert q.parse_cpu(q.format_cpu(millis)) == millis


@given(st.integers(0, 10**9))
def test_a_formatted_duration_reads_back(millis: int) -> None:
    assert round(q.parse_duration(q.format_duration(millis / 1000)) * 1000) == millis


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from(["", "k", "M", "Ki", "Mi", "Gi"]))
def test_a_fraction_is_rounded_up_exactly(whole: int, thousandths: int, suffix: str) -> None:
    factor = {"": 1, "k": 10**3, "M": 10**6, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[suffix]
    exact = (whole + Fraction(thousandths, 1000)) * factor
    assert q.parse_quantity(f"{whole}.{thousandths:03}{suffix}") == -(-exact.numerator // exact.denominator)


@given(st.text(max_size=80))
def test_any_text_is_an_amount_or_invalid(text: str) -> None:
    for parse in (q.parse_quantity, q.parse_cpu, q.parse_duration):
        try:
            assert parse(text) >= 0
        except errors.Invalid:
            pass


@pytest.mark.parametrize(
    ("seconds", "age"),
    [
        (0, "0s"),
        (119, "119s"),
        (192, "3m12s"),
        (600, "10m"),
        (3 * 3600, "3h"),
        (5 * 3600 + 180, "5h3m"),
        (31 * 3600, "31h"),
        (76 * 3600, "3d4h"),
        (12 * 86400, "12d"),
        (745 * 86400, "2y15d"),
        (-5, "<invalid>"),
    ],
)
def test_age_as_kubectl_prints_it(seconds: float, age: str) -> None:
    assert q.format_age(seconds) == age
