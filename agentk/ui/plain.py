"""Text of agents, models and strangers as one line that a terminal shows and does not obey.

What moves a cursor, colours, rings, hides or turns text around is written out; what is too long is cut and says so.
Nobody draws anything here that has not come through this.
"""

import re

LETTERS = 400  # of one line
_HIDDEN = re.compile(r"[^\S ]+")  # white space that is no space


def line(text: object, letters: int = LETTERS) -> str:
    """On one line, of at most this many letters and a word on what was cut."""
    whole = text if isinstance(text, str) else str(text)
    shown = _HIDDEN.sub(" ", whole[: letters + 1])
    shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in shown)
    if len(whole) <= letters and len(shown) <= letters:
        return shown
    return f"{shown[:letters]}… ({len(whole):,} letters)"


def word(text: object) -> str:
    """A name."""
    return line(text, 80)


def number(value: object) -> int:
    """What should be a whole number of 0 or more; 0 when it is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15:
        return int(value)
    return 0
