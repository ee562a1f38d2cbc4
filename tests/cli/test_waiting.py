"""When waiting ends: met, or as soon as it can no longer come true. Pure, case by case."""

from typing import Any

import pytest

from agentk.cli import usage, waiting


def obj(generation: int = 1, observed: int = 1, leaving: bool = False, **status: Any) -> dict[str, Any]:
    conditions = [{"type": key, "status": value} for key, value in status.pop("conditions", {}).items()]
    metadata = {"name": "a", "generation": generation} | ({"deletionTimestamp": "x"} if leaving else {})
    return {
        "metadata": metadata,
        "status": {"observedGeneration": observed, "conditions": conditions} | status,
    }


READY = obj(phase="Running", conditions={"Ready": "True", "Finished": "False"})
STARTING = obj(phase="Starting", conditions={"Ready": "False", "Finished": "False"})
FAILED = obj(phase="Failed", reason="OOMKilled", conditions={"Ready": "False", "Finished": "True"})
DONE = obj(phase="Succeeded", reason="Completed", conditions={"Finished": "True"})
STALE = obj(generation=2, phase="Failed", conditions={"Ready": "False", "Finished": "True"})
LEAVING = obj(leaving=True, phase="Terminating", conditions={"Ready": "False", "Finished": "False"})
PATH = "jsonpath='{.status.phase}'=Running"


@pytest.mark.parametrize(
    ("want", "now", "state"),
    [
        ("condition=Ready", READY, "met"),
        ("condition=ready", READY, "met"),
        ("condition=Ready", STARTING, "open"),
        ("condition=Ready=False", STARTING, "met"),
        ("condition=Ready", FAILED, "lost"),
        ("condition=Ready", DONE, "lost"),
        ("condition=Ready", LEAVING, "lost"),
        ("condition=Ready", STALE, "open"),
        ("condition=Ready=False", STALE, "open"),
        ("condition=Ready", None, "lost"),
        ("condition=Finished", FAILED, "met"),
        ("condition=Finished", LEAVING, "open"),
        ("condition=Suspended", FAILED, "lost"),
        ("delete", READY, "open"),
        ("delete", None, "met"),
        ("create", None, "open"),
        ("create", STARTING, "met"),
        (PATH, READY, "met"),
        (PATH, STARTING, "open"),
        (PATH, FAILED, "lost"),
        ("jsonpath={.status.phase}=Failed", FAILED, "met"),
        ("jsonpath={.status.phase}", STARTING, "met"),
        ("jsonpath={.status.exitCode}", STARTING, "open"),
        ("jsonpath=.status.phase=Succeeded", DONE, "met"),
        ('jsonpath={.status.conditions[?(@.type=="Ready")].status}=True', READY, "met"),
    ],
)
def test_judge(want: str, now: dict[str, Any] | None, state: str) -> None:
    text = want.replace("'", "")
    assert waiting.judge(waiting.parse(text), now, existed=True).state == state


def test_the_reason_is_told() -> None:
    verdict = waiting.judge(waiting.parse("condition=Ready"), FAILED, existed=True)
    assert verdict.why == "it has failed (OOMKilled)"


@pytest.mark.parametrize("text", ["", "Ready", "condition", "condition=", "jsonpath=", "gone"])
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(usage.Usage, match="not understood"):
        waiting.parse(text)
