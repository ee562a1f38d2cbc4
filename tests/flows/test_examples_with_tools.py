"""The examples whose model calls tools: a review that tries things out, and research that takes notes."""

from tests.flows import household
from tests.flows.household import Household
from tests.flows.test_examples import output

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
