"""What a page may be, whoever made it."""

import math
from dataclasses import replace

import pytest

from agentk.memory import pages


def page(**changes: object) -> pages.Page:
    made = pages.new_id()
    plain = pages.Page(
        made, "note", b"hello", "hello", 1, 0.5, 0, 1.0, 1.0, 0, made, pinned=False, name="", tags=()
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_a_page_that_is_one_stays_as_it_is() -> None:
    whole = page(name="greeting", tags=("a", "b"), content=b"\x00\xff any bytes")
    assert pages.checked(whole) == whole


@pytest.mark.parametrize(
    "change",
    [
        {"id": "p1"},
        {"unit": "x" * 17},
        {"kind": "thought"},
        {"content": b"x" * (pages.CONTENT_BYTES + 1)},
        {"importance": math.nan},
        {"importance": 1.5},
        {"used": math.inf},
        {"created": math.nan},
        {"tokens": -1},
        {"seq": 2**60},
        {"name": "two\nlines"},
        {"name": "n" * 201},
        {"name": "right\u202eleft"},
        {"tags": tuple(str(n) for n in range(17))},
        {"tags": ("",)},
        {"tags": ("\ud800",)},
    ],
)
def test_what_no_bound_can_mend_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(pages.Unusable):
        pages.checked(page(**change))


def test_long_text_is_searched_by_its_beginning_and_never_cut_within_a_character() -> None:
    kept = pages.checked(page(text="ä" * pages.TEXT_BYTES))
    assert kept.text == "ä" * (pages.TEXT_BYTES // 2)
    assert pages.cut("\ud800abc") == "?abc"


def test_tags_are_a_set_and_names_have_one_spelling() -> None:
    kept = pages.checked(page(tags=("b", "a", "b"), name=" Cafe\u0301 "))
    assert kept.tags == ("a", "b") and kept.name == "Caf\u00e9"


def test_a_touch_counts_and_never_turns_the_clock_back() -> None:
    used = pages.touched(page(used=10.0), 5.0)
    assert (used.accesses, used.used) == (1, 10.0)
