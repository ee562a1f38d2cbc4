"""Examples do what they show: each is applied as a person would, in jails, with the answers of its scripted route."""

import re
from collections.abc import Callable
from pathlib import Path

from agentk.api import kinds
from tests.flows import household
from tests.flows.household import Household, Space

pytestmark = household.needs
EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def output(
    home: Household,
    example: str,
    agent: str,
    meanwhile: Callable[[], None] = lambda: None,
    manifest: Path | None = None,
) -> list[str]:
    """What one agent of an example printed; applied, waited for, and deleted."""
    path = str(manifest or EXAMPLES / example / "manifest.yaml")
    home.agentk("apply", "-f", path)
    try:
        meanwhile()
        home.agentk("wait", f"agent/{agent}", "-n", example, "--for=condition=Finished", "--timeout=100s")
        found = home.api.get(kinds.AGENT, example, agent)
        lines = home.agentk("logs", agent, "-n", example).lines
        assert found["status"]["reason"] == "Completed", lines
        return lines
    finally:
        home.agentk("delete", "-f", path)


def test_a_conversation_is_remembered(home: Household) -> None:
    lines = output(home, "conversation", "visitor")
    assert [line.partition(":")[0] for line in lines] == ["visitor", "guide"] * 3
    assert "Tram 28" in lines[3] and "answer 3" in lines[5]


def test_a_conversation_goes_on_when_the_guide_is_restarted(home: Household) -> None:
    def restart() -> None:
        there = Space(home, "conversation")
        household.until("it has begun", lambda: any("guide:" in line for line in there.log("visitor")))
        there.agentk("restart", "guide")

    lines = output(home, "conversation", "visitor", restart)
    assert [line.partition(":")[0] for line in lines] == ["visitor", "guide"] * 3
    assert "answer 3" in lines[5]


def test_a_discussion_takes_up_what_others_said(home: Household) -> None:
    lines = output(home, "multi-agent-discussion", "moderator")
    told = [line.split(":")[0].strip() for line in lines]
    panel = ["engineer", "optimist", "shopkeeper"]
    assert told[:9] == ["round 1", *panel, "round 2", *panel, "summary"]
    assert "weekends" in lines[6] and "before ten" in lines[7]
    assert any(re.match('level=info msg="?discussed', line) for line in lines)


def test_a_task_is_planned_run_and_partly_given_away(home: Household) -> None:
    lines = output(home, "autonomous-task", "worker")
    assert [line.partition(":")[0] for line in lines] == ["thinks", "run", "thinks", "delegate", "finishes"]
    assert lines[1] == "run: 25" and "differ by two" in lines[3]
    assert lines[4] == "finishes: 25 primes below 100. " + lines[3].removeprefix("delegate: ")


def test_a_person_is_asked_twice(home: Household) -> None:
    def answer() -> None:
        for verb in ("approve", "deny"):
            words = (verb, "-n", "ask-a-person", "-l", "agentk.dev/agent=gardener", "--reason", "so be it")
            household.until(f"it can {verb}", lambda words=words: home.agentk(*words).out)  # type: ignore[misc]

    lines = output(home, "ask-a-person", "gardener", answer)
    assert lines[0] == "echo rake > leaves; cat leaves -> rake"
    assert lines[1].startswith("rm -rf roses -> no:") and "so be it" in lines[1]


def test_a_clerk_finds_and_calls_tools(home: Household) -> None:
    lines = output(home, "tools", "clerk")
    assert lines[0].startswith("found: ") and "files__write" in lines[0] and "prices__total" in lines[0]
    assert lines[1:4] == [
        "ada ordered: 2 times",
        "all of it: 91.2",
        "the catalogue: text of 3000 lines in a file; lamp is there 1000 times",
    ]
    assert lines[4].startswith("no: spec.tools[files].arguments[0] refuses")


def test_agents_start_in_boxes_that_wait(home: Household) -> None:
    path = str(EXAMPLES / "warm-pool" / "manifest.yaml")
    home.agentk("apply", "-f", path)
    there = Space(home, "warm-pool")
    try:
        home.agentk("wait", "pool/quick", "-n", "warm-pool", "--for=condition=Ready", "--timeout=100s")
        there.agentk("delete", "agent", "hello")
        home.agentk("apply", "-f", path)
        for name in ("hello", "other"):
            there.agentk("wait", f"agent/{name}", "--for=condition=Finished", "--timeout=100s")
        status = there.status("hello")
        assert (status["reason"], status["start"]["type"]) == ("Completed", "Warm"), there.log("hello")
        assert there.agentk("logs", "hello").lines == [
            "hello from hello; email.message was loaded already",
            "the gate answers: yes",
        ]
        other = there.status("other")["start"]
        assert other["type"] == "Cold" and "open files" in other["message"]
        assert "email.message was not loaded" in there.agentk("logs", "other").out
        assert "quick" in there.agentk("get", "pools").out
        assert "Hand Out" in there.agentk("describe", "pool", "quick").out
    finally:
        home.agentk("delete", "-f", path)


def test_a_pair_works_in_the_background_and_is_collected_later(home: Household) -> None:
    path = str(EXAMPLES / "background-tasks" / "manifest.yaml")
    there = Space(home, "background-tasks")
    home.agentk("apply", "-f", path)
    try:
        told = {
            one["name"]: one["result"] for one in there.agentk("task", "wait", "--all", "-o", "json").json
        }
        assert told["big-fibonacci"]["value"].startswith("2222322446294204455297398934619")
        assert told["rainfall"] == {"title": "rain in mm", "mean": 4.5, "peaks": [7]}
        words = ("task", "run", "fibonacci", "--each", "-", "--json", "--wait", "-o", "json")
        more = there.agentk(*words, stdin="10\n20\n").json
        assert [one["result"]["value"] for one in more] == ["55", "6765"]
        assert "100 of 300" in there.agentk("task", "logs", "big-fibonacci").out
    finally:
        home.agentk("delete", "-f", path)


def test_a_report_is_scheduled_and_one_made_now(home: Household) -> None:
    path = str(EXAMPLES / "scheduled-report" / "manifest.yaml")
    there = Space(home, "scheduled-report")
    home.agentk("apply", "-f", path)
    try:
        ran = there.agentk("task", "run", "--from", "schedule/report", "--wait", "-o", "json").json
        assert ran["result"]["report"].startswith("Two of three") and ran["usage"]["tokens"] > 0
        home.agentk("wait", "schedule/report", "-n", "scheduled-report", "--for=condition=Ready")
        found = home.api.get(kinds.SCHEDULE, "scheduled-report", "report")
        assert re.fullmatch(r".*T0[56]:30:00Z", found["status"]["nextScheduleTime"])
    finally:
        home.agentk("delete", "-f", path)


def test_an_editor_has_colleagues_as_tools(home: Household) -> None:
    def counted() -> bool:
        status = home.api.get(kinds.AGENT, "agent-as-tool", "editor").get("status") or {}
        return bool((status.get("usage") or {}).get("tokens"))

    def used() -> None:
        household.until("what colleagues used is the editor's, who asked no model", counted)

    lines = output(home, "agent-as-tool", "editor", used)
    assert lines == [
        "researcher: storks winter in africa, and come back in march.",
        "proofreader: Storks winter in Africa, and come back in March.",
    ]
