"""Reading the guest's results, without the guest."""

import pytest

from tests.vm import outcomes

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.a.test_x" file="tests/a/test_x.py" name="test_one"/>
<testcase classname="tests.a.test_x.TestC" file="tests/a/test_x.py" name="test_two[1.5]"><failure/></testcase>
<testcase classname="tests.b.test_y" file="tests/b/test_y.py" name="test_three"><skipped type="pytest.skip"/></testcase>
<testcase classname="tests.b.test_y" file="tests/b/test_y.py" name="test_four"><skipped type="pytest.xfail"/></testcase>
<testcase classname="tests.b.test_y" file="tests/b/test_y.py" name="test_five"/>
<testcase classname="tests.b.test_y" file="tests/b/test_y.py" name="test_five"><error/></testcase>
</testsuite></testsuites>"""


def suite(name: str, **tests: str) -> outcomes.Suite:
    return outcomes.Suite(name, 0, tests)


def test_node_ids_are_put_together_again() -> None:
    assert outcomes.read_junit(JUNIT) == {
        "tests/a/test_x.py::test_one": "passed",
        "tests/a/test_x.py::TestC::test_two[1.5]": "failed",
        "tests/b/test_y.py::test_three": "skipped",
        "tests/b/test_y.py::test_four": "xfailed",
        "tests/b/test_y.py::test_five": "error",
    }


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ("a", []),
        ("c", ["as root: no test ran below c", "as user: no test ran below c"]),
        ("b", ["as user: no test ran below b", "as user: had to run but was skipped: b"]),
        ("root:b", []),
        ("*b", ["as user: no test ran below *b", "as user: had to run but was skipped: b"]),
        ("user:b", ["as user: no test ran below b", "as user: had to run but was skipped: b"]),
    ],
)
def test_what_must_run_and_did_not_is_told(wish: str, told: list[str]) -> None:
    suites = [suite("root", a="passed", b="failed"), suite("user", a="passed", b="skipped")]
    assert outcomes.complaints(suites, [wish]) == told


def test_a_suite_without_an_exit_code_did_not_end() -> None:
    assert outcomes.Suite("root", None, {}).line() == "as root: nothing ran (did not end)"
