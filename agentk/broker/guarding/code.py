"""What code may not do, told before it runs: a look at Python as the compiler understands it, and at shell, JavaScript
and command lines by patterns.

A tripwire, not the wall: code that is written to get past it may, and then stands in its jail with the agent's own
rights, which is the wall. So what cannot be told is refused rather than guessed. Pure, but it reads what strangers
wrote: it runs in a process that may die of it (`lookouts`).
"""

import ast
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from agentk.broker.guarding import code_python

_TOLD_MAX = 5
_DEPTH_MAX = 8  # of commands within commands
_INTERPRETERS = {
    "python": (re.compile(r"(?:.*/)?(?:python[\d.]*|pypy[\d.]*)"), "c"),
    "shell": (re.compile(r"(?:.*/)?(?:ba|da|z|k|a)?sh"), "c"),
    "node": (re.compile(r"(?:.*/)?(?:node|nodejs|deno|bun)"), "ep"),
}
_WITH_A_VALUE = frozenset(
    {"-W", "-X", "-o", "-O", "+o", "+O", "-r", "--require", "--import", "--rcfile", "--init-file"}
    | {"--check-hash-based-pycs", "-C", "--conditions", "--env-file", "--title"}
)
_STDIN = frozenset({"-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})


def problems(
    language: str,
    code: str,
    argv: Sequence[str],
    stdin: str,
    rules: Mapping[str, Any],
    earlier: Sequence[str] = (),
) -> list[str]:
    """Why it may not run, in a sentence each; empty when it may. `earlier`: pieces of Python that the same interpreter
    had before, of which what it uses may be."""
    size = len(code.encode("utf-8", "surrogatepass"))
    if size > rules["bytes"]:
        return [f"the code has {size} bytes, more than {rules['bytes']} that may be looked at"]
    found: dict[str, None] = {}
    for one in _problems(language, code, argv, stdin, rules):
        found[one] = None
        if len(found) >= _TOLD_MAX:
            break
    if earlier and not found and language == "python":
        whole = "\n".join([*filter(_is_read, earlier), code])
        return [
            f"with the steps before it, {one}"
            for one in islice(code_python.problems(whole, rules), _TOLD_MAX)
        ]
    return list(found)


def _is_read(code: str) -> bool:
    """What is not never ran as a piece of Python either, and must not hide the others."""
    try:
        ast.parse(code.encode())
    except (SyntaxError, ValueError, RecursionError, MemoryError, UnicodeError):
        return False
    return True


def _problems(
    language: str, code: str, argv: Sequence[str], stdin: str, rules: Mapping[str, Any]
) -> Iterator[str]:
    if language == "argv":
        yield from _of_argv(argv, stdin, rules, 0)
    elif language == "python":
        yield from code_python.problems(code, rules)
    elif language == "shell":
        yield from _of_shell(code, rules, 0)
    else:
        yield from _of_patterns(language, code, rules)


def _of_patterns(language: str, code: str, rules: Mapping[str, Any]) -> Iterator[str]:
    told = _plainer(language, code)
    for pattern in rules["patterns"].get(language, ()):
        compiled = re.compile(pattern)
        if compiled.search(code) or compiled.search(told):
            yield f"{language}: {pattern} is not allowed"


def _plainer(language: str, code: str) -> str:
    """Without the ways to write a letter that mean nothing."""
    if language == "node":
        told = re.sub(r"\\u\{?([0-9A-Fa-f]{1,6})\}?|\\x([0-9A-Fa-f]{2})", _letter, code)
        return re.sub(r"['\"`]\s*\+\s*['\"`]", "", told)
    told = re.sub(r"\$\{?IFS\}?|\$'\\[tn]'", " ", code)
    told = told.replace("\\\n", "")
    return re.sub(r"\\(.)|['\"]", lambda found: found[1] or "", told)


def _letter(found: "re.Match[str]") -> str:
    number = int(found[1] or found[2], 16)
    return chr(number) if number < 0x110000 else found[0]


def _of_argv(argv: Sequence[str], stdin: str, rules: Mapping[str, Any], depth: int) -> Iterator[str]:
    """The words of a command, and code that one of them hands to an interpreter."""
    yield from _of_patterns("argv", " ".join(argv), rules)
    if depth > _DEPTH_MAX:
        yield "argv: commands within commands within commands"
        return
    for at, word in enumerate(argv):
        for language, (shape, flags) in _INTERPRETERS.items():
            if not shape.fullmatch(word):
                continue
            inside = _handed(language, argv[at + 1 :], flags)
            code = stdin if inside is None and _reads_stdin(language, argv[at + 1 :]) else inside
            if code and language == "python":
                yield from code_python.problems(code, rules)
            elif code and language == "shell":
                yield from _of_shell(code, rules, depth + 1)
            elif code:
                yield from _of_patterns(language, code, rules)


def _of_shell(code: str, rules: Mapping[str, Any], depth: int) -> Iterator[str]:
    yield from _of_patterns("shell", code, rules)
    try:
        words = shlex.split(code, comments=False)
    except ValueError:  # not one that these words are
        return
    yield from _of_argv(words, "", rules, depth)


def _handed(language: str, words: Sequence[str], flags: str) -> str | None:
    """The code behind -c, -xc, -e or --eval=; None when there is none."""
    at = 0
    while at < len(words):
        word, rest = words[at], words[at + 1 :]
        if word.startswith(("--eval=", "--print=")):
            return word.partition("=")[2]
        if word in ("--eval", "--print", "--command"):
            return rest[0] if rest else ""
        if word[:1] == "-" and word[:2] != "--":
            places = [word.find(flag, 1) for flag in flags if flag in word[1:]]
            if places and language == "python" and word[min(places) + 1 :]:
                return word[min(places) + 1 :]  # -cimport os
            if places:
                return _shells(rest) if language == "shell" else next(iter(rest), "")
        elif word[:1] not in ("-", "+"):
            return None
        at += 2 if word in _WITH_A_VALUE else 1
    return None


def _shells(words: Sequence[str]) -> str:
    """What follows -c is its code only when that is no option; behind -- it is, whatever it looks like."""
    for at, word in enumerate(words):
        if word in ("--", "-"):
            return next(iter(words[at + 1 :]), "")
        if word[:1] not in ("-", "+"):
            return word
    return ""


def _reads_stdin(language: str, words: Sequence[str]) -> bool:
    """Whether its program comes by standard input."""
    for word in words:
        if language == "shell" and word[:1] == "-" and word[:2] != "--" and "s" in word:
            return True
        if word in _STDIN:
            return True
        if word[:1] not in ("-", "+"):
            return False
    return True
