"""What the guest's junit files say, by pytest's own node ids, and whether that is enough."""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass

SUITES = ("root", "user")
TIMED_OUT = 124  # what guest/run.py says of a run it stopped


@dataclass(frozen=True)
class Suite:
    """One pytest run in the guest. No exit code: it never ended."""

    name: str
    exit_code: int | None
    tests: dict[str, str]  # node id -> passed | failed | error | skipped | xfailed

    @property
    def passed(self) -> bool:
        return self.exit_code == 0

    def line(self) -> str:
        counts = Counter(self.tests.values())
        told = ", ".join(
            f"{counts[word]} {word}"
            for word in ("passed", "failed", "error", "skipped", "xfailed")
            if counts[word]
        )
        end = {None: "did not end", TIMED_OUT: "out of time"}.get(self.exit_code, f"exit {self.exit_code}")
        return f"as {self.name}: {told or 'nothing ran'} ({end})"


def read_junit(text: str) -> dict[str, str]:
    """The xunit1 form names the file, from which the node id can be put together again."""
    tests: dict[str, str] = {}
    for case in ET.fromstring(text).iter("testcase"):
        file, name = case.get("file", ""), case.get("name", "")
        module = file.removesuffix(".py").replace("/", ".")
        classes = case.get("classname", "").removeprefix(module).strip(".")
        node = "::".join([file, *(classes.split(".") if classes else []), name])
        # A test that passes and then fails in teardown is listed twice; the worse word stays.
        tests[node] = max(
            tests.get(node, "passed"),
            outcome(case),
            key=["passed", "xfailed", "skipped", "failed", "error"].index,
        )
    return tests


def outcome(case: ET.Element) -> str:
    for child in case:
        if child.tag == "skipped":
            return "xfailed" if child.get("type") == "pytest.xfail" else "skipped"
        if child.tag in ("failure", "error"):
            return "failed" if child.tag == "failure" else "error"
    return "passed"


def complaints(suites: list[Suite], must_run: list[str]) -> list[str]:
    """For each `[root:|user:]PREFIX`: nothing ran below it, or something there was skipped. * is anything."""
    found = []
    for wish in must_run:
        who, colon, rest = wish.partition(":")
        only, prefix = (who, rest) if colon and who in SUITES else (None, wish)
        for suite in suites:
            if only in (None, suite.name):
                below = {node: word for node, word in suite.tests.items() if pattern(prefix).match(node)}
                if not any(word != "skipped" for word in below.values()):
                    found.append(f"as {suite.name}: no test ran below {prefix}")
                found += [
                    f"as {suite.name}: had to run but was skipped: {n}"
                    for n, w in below.items()
                    if w == "skipped"
                ]
    return found


def pattern(prefix: str) -> re.Pattern[str]:
    """As pytest's own --must-run reads it (tests/conftest.py)."""
    return re.compile(re.escape(prefix).replace(r"\*", ".*"))
