"""What a schema cannot say of Tasks and Schedules, and what a Task makes of an Agent's spec. Pure."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from agentk.api import crons, errors, kinds, objects, quantities
from agentk.api.problems import Path, Problem

Spec = Mapping[str, Any]

INPUT_BYTES = 256 * 1024
TASK = "agentk.dev/task"  # label of the agent of a Task
SCHEDULE = "agentk.dev/schedule"  # label of a Task of a Schedule
SCHEDULED_AT = "agentk.dev/scheduled-at"  # annotation: the time it was made for
BATCH = "agentk.dev/batch"  # label of Tasks that were sent together
# Of the agent, and what says it in its place.
OWN = {
    "task": "input",
    "restartPolicy": "retries",
    "backoffLimit": "retries",
    "activeDeadlineSeconds": "timeout",
    "ttlSecondsAfterFinished": "ttlSecondsAfterFinished",
    "suspend": "suspend",
}


def problems(spec: Spec) -> Iterator[Problem]:
    """Of a Task's spec, its template apart."""
    yield from given(spec, "input", ("spec",))
    text = spec.get("timeout")
    if isinstance(text, str):
        try:
            if quantities.parse_duration(text) <= 0:
                yield Problem(("spec", "timeout"), f'expected more than nothing, found "{text}"')
        except errors.Invalid:
            pass  # told already, by its format
    for field in (spec.get("template") or {}).get("spec") or {}:
        if field in OWN:
            message = f"is the Task's to say: spec.{OWN[field]}"
            yield Problem(("spec", "template", "spec", field), message, at_key=True)


def given(spec: Spec, field: str, where: Path) -> Iterator[Problem]:
    """What is given to an agent to do is not endless."""
    if field not in spec:
        return
    size = len(json.dumps(spec[field], ensure_ascii=False, separators=(",", ":")).encode())
    if size > INPUT_BYTES:
        hint = "put files into its source, or a ConfigMap, and name them here"
        yield Problem((*where, field), f"{size} bytes as JSON: at most 256 KiB", hint)


def schedule_problems(spec: Spec) -> Iterator[Problem]:
    """Of a Schedule's spec, its template apart."""
    for field, read in (("schedule", crons.parse), ("timeZone", crons.zone)):
        text = spec.get(field)
        if isinstance(text, str):
            try:
                read(text)
            except errors.Invalid as error:
                yield Problem(("spec", field), error.message, error.hint)


def cancelled(task: dict[str, Any]) -> dict[str, Any]:
    """The Task, once somebody has taken it back."""
    return objects.replace(kinds.TASK, task, {**task, "spec": {**task["spec"], "cancel": True}})


def agent_spec(task: Spec, base: Spec) -> dict[str, Any]:
    """The spec of the agent that does it. `base`: the template's, or that of the Agent it names."""
    made = {key: value for key, value in base.items() if key not in OWN}
    retries = int(task.get("retries", 0))
    made["restartPolicy"] = "OnFailure" if retries else "Never"
    if retries:
        made["backoffLimit"] = retries
    if task.get("timeout"):
        made["activeDeadlineSeconds"] = max(1, math.ceil(quantities.parse_duration(str(task["timeout"]))))
    if task.get("suspend"):
        made["suspend"] = True
    if "input" in task or "task" in base:
        made["task"] = task["input"] if "input" in task else base["task"]
    return made
