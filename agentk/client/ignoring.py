"""`.agentkignore`: which files of a source stay at home. The simple part of gitignore's language.

`name` and `*.log` match at any depth, `/name` and `a/b` from the root, a `/` at the end means directories only,
`**` crosses directories, `!` takes back, the last line that matches wins, `#` is a comment.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

FILE = ".agentkignore"
# Never wanted in a jail, and `!name` in the file takes any of them back.
ALWAYS = (".git", "__pycache__", ".venv", FILE)


@dataclass(frozen=True)
class Rule:
    pattern: re.Pattern[str]
    keeps: bool
    directories_only: bool


def rules(lines: Iterable[str]) -> list[Rule]:
    """Read lines of an ignore file; the built-in ones come first, so a file can take them back."""
    return [rule for line in (*ALWAYS, *lines) if (rule := _rule(line))]


def ignored(path: str, is_directory: bool, known: Iterable[Rule]) -> bool:
    """Whether `path` (relative, with slashes) is left out by itself; its parents are the walker's care."""
    verdict = False
    for rule in known:
        if (is_directory or not rule.directories_only) and rule.pattern.fullmatch(path):
            verdict = not rule.keeps
    return verdict


def _rule(line: str) -> Rule | None:
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    keeps = text.startswith("!")
    text = text.removeprefix("!")
    directories_only = text.endswith("/")
    text = text.rstrip("/")
    anchored = "/" in text
    text = text.lstrip("/")
    if not text:
        return None
    prefix = "" if anchored else "(?:.*/)?"
    return Rule(re.compile(prefix + _regex(text), re.DOTALL), keeps, directories_only)


def _regex(glob: str) -> str:
    out, position = "", 0
    while position < len(glob):
        if glob.startswith("**/", position):
            out, position = out + "(?:.*/)?", position + 3
        elif glob.startswith("**", position):
            out, position = out + ".*", position + 2
        elif glob[position] == "*":
            out, position = out + "[^/]*", position + 1
        elif glob[position] == "?":
            out, position = out + "[^/]", position + 1
        elif glob[position] == "[" and (closed := glob.find("]", position + 2)) > 0:
            inside = glob[position + 1 : closed].replace("\\", "\\\\").replace("[", "\\[")
            out += "[" + ("^" + inside[1:] if inside[0] in "!^" else inside) + "]"
            position = closed + 1
        else:
            if glob[position] == "\\" and position + 1 < len(glob):
                position += 1
            out, position = out + re.escape(glob[position]), position + 1
    return out
