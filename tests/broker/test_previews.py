"""What a call would do to files, told before it does: hostile texts cost no more than their length."""

import pytest

from agentk.broker import previews

LONG = "".join(f"line {number}\n" for number in range(5000))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["python", "deploy.py", "--to=prod", "-v"], ["python", "deploy.py", "prod"]),
        (["sh ./a.sh && cat 'b c' > /workspace/out"], ["sh", "./a.sh", "cat", "b", "c", "/workspace/out"]),
        (["/usr/bin/git", "/etc/passwd", "x", "x"], ["x"]),
        (['open("data.csv").read()'], ["open", "data.csv", ".read"]),
        (["a" * 2000, "b\0c", ""], []),
    ],
)
def test_words_that_may_be_files(texts: list[str], expected: list[str]) -> None:
    assert previews.words(texts) == expected


def test_no_more_words_than_anybody_looks_at() -> None:
    assert len(previews.words([" ".join(map(str, range(100_000)))])) == 64


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", "one\n"),
        ("one\ntwo\nthree\n", "one\n2\nthree\n"),
        (LONG, LONG.replace("line 2500\n", "")),
        (LONG, LONG.replace("line 10\n", "x\n").replace("line 4000\n", "y\n")),
        ("a\n" * 300, "b\n" * 300),
        (LONG, LONG + "more\n"),
        ("same\n", "same\n"),
        ("one\ntwo", "one\ntwo\n"),
        ("one\n", "one\ntwo"),
    ],
)
def test_a_diff_makes_the_new_of_the_old(old: str, new: str) -> None:
    """Where it is shown whole."""
    told = previews.diff("f", old, new)
    if "are not shown" in told or old == new:
        assert len(told) < previews.DIFF_CHARS + 200
        return
    assert patched(old, told) == new


def patched(old: str, told: str) -> str:
    """As patch(1) does it: what a hunk says of the old text must be true of it."""
    before, made, at = old.split("\n"), list[str](), 0
    lines = [line for line in told.split("\n")[2:-1] if not line.startswith("\\")]
    for line in lines:
        if line.startswith("@@"):
            start, _, count = line.split()[1][1:].partition(",")
            begins = int(start) - (count != "0")
            made, at = [*made, *before[at:begins]], begins
        elif line[0] == "+":
            made.append(line[1:])
        else:
            assert before[at] == line[1:], told
            made, at = [*made, *([] if line[0] == "-" else [line[1:]])], at + 1
    whole = "\n".join([*made, *before[at:]])
    return whole.rstrip("\n") + ("" if told.rstrip().endswith("\\ No newline at end of file") else "\n")


def test_a_new_file_says_so() -> None:
    assert previews.diff("f", None, "one\n") == "--- /dev/null\n+++ f\n@@ -0,0 +1 @@\n+one\n"


def test_files_that_came_went_or_changed() -> None:
    one, other = previews.File("a", "1"), previews.File("b", "2")
    assert previews.changed([one, other], [other, one]) == ""
    assert previews.changed([one], [previews.File("a", "3")]) == "a"
    assert (previews.changed([one], []), previews.changed([], [other])) == ("a", "b")
