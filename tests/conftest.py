"""What every suite shares: `--must-run PREFIX` turns a skip, or no test at all, below PREFIX into a failure.

A * in PREFIX stands for anything, so that one of several runtimes can be named: `tests/flows*podman`.

Property tests have no time limit of their own: a slow or emulated machine is no counterexample.

With `-n auto` files of tests are shared among a few processes; what one test sees of this host may then be another's.
"""

import os
import re
import signal

import pytest
from hypothesis import HealthCheck, settings

MOST_WORKERS = 8

settings.register_profile("agentk", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("agentk")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--must-run",
        action="append",
        default=[],
        metavar="PREFIX",
        help="fail when a test whose id starts with PREFIX is skipped, or when none ran",
    )


class MustRun:
    """Counts, for each prefix, what passed its call phase and what was skipped."""

    def __init__(self, prefixes: list[str]) -> None:
        self.ran = dict.fromkeys(prefixes, 0)
        self.skipped: list[str] = []
        self.patterns = {prefix: pattern(prefix) for prefix in prefixes}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for prefix in self.ran:
            if self.patterns[prefix].match(report.nodeid):
                if report.skipped and not hasattr(report, "wasxfail"):
                    self.skipped.append(f"{report.nodeid}: {report.longrepr}")
                elif report.when == "call":
                    self.ran[prefix] += 1

    def complaints(self) -> list[str]:
        empty = [f"no test ran below {prefix}" for prefix, count in self.ran.items() if not count]
        return empty + [f"had to run but was skipped: {what}" for what in self.skipped]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.complaints() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for complaint in self.complaints():
            terminalreporter.write_line(f"MUST RUN: {complaint}", red=True)


def pattern(prefix: str) -> re.Pattern[str]:
    """Matches what begins like `prefix`; its brackets are brackets."""
    return re.compile(re.escape(prefix).replace(r"\*", ".*"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores: most tests wait for processes. Each worker has a daemon of its own."""
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS - 1) + 1


def pytest_configure(config: pytest.Config) -> None:
    # What a shell begins in the background cannot be interrupted, nor can its children; jails of tests can be.
    for number, handler in {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGQUIT: signal.SIG_DFL,
    }.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    prefixes = config.getoption("--must-run")
    # A worker has its share only; who shares out hears of all.
    if prefixes and not hasattr(config, "workerinput"):
        config.pluginmanager.register(MustRun(prefixes), "must-run")
