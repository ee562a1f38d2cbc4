"""What a call would do to files, as far as that can be seen before it does. Pure.

A `Method` may have a `preview`; what it finds is shown to who is asked, and binds the answer: what has become something
else makes the call another call. What is compared is a guest's: the work is linear in it, or small.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

FILES_MAX = 32
DIFF_CHARS = 48 * 1024
_WORDS_MAX = 64  # of one call, looked for among the files
_WORD_CHARS = 1024
_MATCHED_LINES = 200  # more are not matched with each other: that takes their square
_AROUND = 3  # lines that are shown of what stays

# What of a program may be the name of a file. Words of the machine's own are not the guest's to change.
_WORD = re.compile(r"[^\s'\"`;|&<>(){}\[\],=:]+")
_HUNK = re.compile(r"@@ -(\d+)(,\d+)? \+(\d+)(,\d+)? @@")
_OF_THE_HOST = ("/bin/", "/sbin/", "/lib", "/usr/", "/etc/", "/dev/", "/proc/", "/sys/", "/run/")


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


def words(texts: Iterable[str]) -> list[str]:
    """What of a command or of a program may name files, each once and in order; the first of too many."""
    found = dict.fromkeys(word for text in texts for word in _words(text))
    return list(found)[:_WORDS_MAX]


def _words(text: str) -> Iterator[str]:
    for match in _WORD.finditer(text[: 64 * 1024]):
        word = match.group()
        if len(word) <= _WORD_CHARS and "\0" not in word and not word.startswith(("-", *_OF_THE_HOST)):
            yield word


def diff(path: str, old: str | None, new: str) -> str:
    """As `diff -u` tells it; `old` None: there was no such file."""
    before, after = _lines(old or ""), _lines(new)
    head = f"--- {'/dev/null' if old is None else path}\n+++ {path}\n"
    start = _alike(before, after)
    end = _alike(before[start:][::-1], after[start:][::-1])
    mine, theirs = before[start : len(before) - end], after[start : len(after) - end]
    if not mine and not theirs:
        return head
    first = max(0, start - _AROUND)
    if max(len(mine), len(theirs)) <= _MATCHED_LINES:
        one = before[first : start + len(mine) + _AROUND]
        other = after[first : start + len(theirs) + _AROUND]
        lines = [_moved(line, first) for line in list(difflib.unified_diff(one, other, n=_AROUND))[2:]]
    else:
        lines = [f"@@ -{start + 1},{len(mine)} +{start + 1},{len(theirs)} @@\n"]
        lines += ["-" + line for line in mine] + ["+" + line for line in theirs]
    told = "".join(
        line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines
    )
    if len(told) > DIFF_CHARS:
        told = f"{told[:DIFF_CHARS]}\n[… {len(told) - DIFF_CHARS} letters are not shown …]\n"
    return head + told


def _lines(text: str) -> list[str]:
    """With their ends; only a newline is one."""
    lines = [line + "\n" for line in text.split("\n")]
    return [*lines[:-1], *([lines[-1][:-1]] if lines[-1] != "\n" else [])]


def _moved(line: str, by: int) -> str:
    """The head of a hunk, for what begins so many lines further down."""
    found = _HUNK.match(line)
    if found is None:
        return line
    return f"@@ -{int(found[1]) + by}{found[2] or ''} +{int(found[3]) + by}{found[4] or ''} @@\n"


def _alike(one: list[str], other: list[str]) -> int:
    """How many lines they begin with alike."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count
