"""One manifest on both runtimes: people see the same, and an agent moves from one to the other."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows import household
from tests.flows.household import Household, Space, python, shell

pytestmark = household.needs
MANIFEST = Path(__file__).parent.parent.parent / "examples" / "two-runtimes" / "manifest.yaml"


@pytest.fixture
def both(home: Household) -> Iterator[tuple[Space, Space]]:
    """A namespace for each."""
    with household.space(home, "nsjail") as one, household.space(home, "podman") as other:
        yield one, other


def test_the_example_moves_by_its_runtime_alone_and_its_workspace_goes_along(
    both: tuple[Space, Space],
) -> None:
    (space, _), written = both, MANIFEST.read_text()
    moved = written.replace("runtimeRef: {name: nsjail}", "runtimeRef: {name: podman}")
    lines: list[list[str]] = []
    for attempt, text in enumerate((written, moved, written), 1):
        space.agentk("apply", "-f", "-", stdin=text)
        space.running("report", attempt)
        household.until("it is done", lambda: space.agentk("logs", "report").lines[-1:] == ["done"])
        lines.append(space.agentk("logs", "report").lines)
        assert space.get("report")["spec"]["runtimeRef"]["name"] == ("nsjail", "podman")[attempt == 2]
    assert [told[0] for told in lines] == [f"visit {count} to this workspace" for count in (1, 2, 3)]
    assert lines[0][1:] == lines[1][1:] == lines[2][1:] and "CapBnd=0000000000000000" in lines[0][1]


def test_people_are_told_the_same_of_both(both: tuple[Space, Space]) -> None:
    quiet = shell("a", "echo one; echo two >&2; printf 'no end'; exec sleep 1000")
    told = []
    for space in both:
        space.apply(quiet, shell("busy", "while :; do :; done"))
        space.running("a"), space.running("busy")
        space.logged("a", "two")
        header, *rows = space.agentk("top", "--interval", "0.5").lines
        used = [dict(zip(header.split(), row.split(), strict=True)) for row in rows]
        assert [(row["NAME"], row["PIDS"]) for row in used] == [("busy", "2"), ("a", "2")], "PID 1, and it"
        assert all(float(row["MEMORY"].removesuffix("Mi")) > 0 for row in used)
        assert float(used[0]["CPU"].rstrip("%")) > 0
        seen = [*header.split(), *space.agentk("logs", "a").lines]
        for words in (["describe", "agent", "a"], ["get", "agents", "a", "-o", "wide"]):
            seen += shape(space.agentk(*words).out, space)
        told.append(seen)
    assert told[0] == told[1]


def test_an_end_is_told_the_same_of_both(both: tuple[Space, Space]) -> None:
    hog = "x = []\nwhile True: x.append(bytearray(1 << 20))"
    ends = []
    for space in both:
        space.apply(
            shell("code", "exit 3"), shell("signal", "kill -SEGV $$"), shell("fine", "echo last words")
        )
        space.apply(python("hog", hog))
        for name in ("code", "signal", "fine", "hog"):
            status = space.phase(name, "Failed", "Succeeded")
            ends.append(
                {key: status.get(key) for key in ("phase", "reason", "exitCode", "signal", "message")}
            )
        assert space.agentk("logs", "fine").lines == ["last words"]
    assert ends[:4] == ends[4:]


def shape(text: str, space: Space) -> list[str]:
    """What a person reads, but for names, sizes and times."""
    text = text.replace(space.name, "NAMESPACE").replace(f" {space.runtime} ", " RUNTIME ")
    text = re.sub(rf"\b{space.runtime}\b", "RUNTIME", text)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID", text)
    return [re.sub(r"\d[\d.:TZ-]*( [KMG]iB)?", "N", " ".join(line.split())) for line in text.splitlines()]
