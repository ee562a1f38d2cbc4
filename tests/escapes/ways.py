"""How a hostile program comes to run: as a box of its own, beside a box, put into one, or typed into its shell."""

import pytest

WAYS = [
    pytest.param((how, level), id=" ".join(filter(None, (how, level))))
    for how in ("", "beside", "hand", "typed")
    for level in ("baseline", "restricted")
]
# What is neither a call nor a sight is tried with one policy: a second is another filter, not another limit.
INTO = ("hand", "typed")


def by(*hows: str) -> pytest.MarkDecorator:
    """A test that runs its programs in these ways; "" is a box of its own."""
    return pytest.mark.parametrize("how", hows, ids=[how or "itself" for how in hows])
