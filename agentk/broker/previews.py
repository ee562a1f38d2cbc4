"""What a call would do to files, as far as that can be seen before it does. Pure.

A `Method` may have a `preview`; what it finds is shown to who is asked, and binds the answer: a file that has become
another one makes the call another call.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """A file that a call names, as it was when somebody looked. No digest: there is none."""

    path: str
    sha256: str = ""
    size_bytes: int = 0


@dataclass(frozen=True)
class Preview:
    files: tuple[File, ...] = ()  # what the answer is bound to
    diff: str = ""  # of the file it writes


NOTHING = Preview()


def changed(before: Sequence[File], now: Sequence[File]) -> str:
    """The path of a file that is not what it was; "" when all are."""
    was, is_now = ({one.path: one.sha256 for one in files} for files in (before, now))
    return next((path for path in sorted({*was, *is_now}) if was.get(path) != is_now.get(path)), "")
