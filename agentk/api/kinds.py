"""Every kind agentk knows: its names, where it lives in the API and what a listing shows of it.

A new kind is one entry here and one schema in `schemas/`.
"""

from agentk.api import errors
from agentk.api.corekinds import CONFIGMAP as CONFIGMAP
from agentk.api.corekinds import EVENT as EVENT
from agentk.api.corekinds import NAMESPACE as NAMESPACE
from agentk.api.corekinds import SECRET as SECRET
from agentk.api.kind import AGE as _AGE
from agentk.api.kind import API_VERSION as API_VERSION
from agentk.api.kind import GROUP as GROUP
from agentk.api.kind import NAME as _NAME
from agentk.api.kind import VERSION as VERSION
from agentk.api.kind import Column as Column
from agentk.api.kind import Kind as Kind

FINAL_PHASES = ("Succeeded", "Failed")  # of an Agent: no box of it is started again by itself
ENDED_PHASES = (*FINAL_PHASES, "Cancelled")  # of a Task

AGENT = Kind(
    GROUP,
    VERSION,
    "Agent",
    "agents",
    "agent",
    ("ag",),
    True,
    "agent.json",
    True,
    (
        _NAME,
        Column("Phase", "string", ".status.phase", description="Where the agent is in its life."),
        Column("Ready", "boolean", ".status.ready", description="Whether its readiness probe passes."),
        Column("Restarts", "integer", ".status.restartCount", description="How often it was started again."),
        Column("Reason", "string", ".status.reason", description="Why it is in this phase."),
        Column("Runtime", "string", ".spec.runtimeRef.name", description="The Runtime that holds it."),
        _AGE,
        Column("CPU", "string", ".spec.resources.limits.cpu", True, "Limit of CPU."),
        Column("Memory", "string", ".spec.resources.limits.memory", True, "Limit of memory."),
        Column("Attempt", "integer", ".status.attempt", True, "Number of the latest process."),
        Column("Exit", "integer", ".status.exitCode", True, "Exit code of the latest process."),
        Column("Image", "string", ".status.image.reference", True, "What its box is made of."),
        Column("Box", "string", ".status.boxID", True, "Id of the latest box."),
    ),
)
RUNTIME = Kind(
    GROUP,
    VERSION,
    "Runtime",
    "runtimes",
    "runtime",
    ("rt",),
    False,
    "runtime.json",
    True,
    (
        _NAME,
        Column("Type", "string", ".spec.type", description="What makes the boxes."),
        Column("Available", "boolean", ".status.available", description="Whether this host can run it."),
        Column(
            "Enforcement", "string", ".spec.enforcement", description="What happens to limits it cannot hold."
        ),
        _AGE,
        Column("Reason", "string", ".status.reason", True, "Why it is not available."),
    ),
)
POLICY = Kind(
    GROUP,
    VERSION,
    "Policy",
    "policies",
    "policy",
    ("pol",),
    False,
    "policy.json",
    False,
    (
        _NAME,
        Column("Level", "string", ".spec.level", description="Isolation level."),
        Column("Seccomp", "string", ".spec.isolation.seccomp", description="Least strict seccomp profile."),
        _AGE,
    ),
)
QUOTA = Kind(
    GROUP,
    VERSION,
    "Quota",
    "quotas",
    "quota",
    (),
    True,
    "quota.json",
    True,
    (
        _NAME,
        Column("Used-Agents", "integer", ".status.used.agents", description="Running agents."),
        Column("Agents", "integer", ".spec.hard.agents", description="Most agents running at once."),
        Column("Used-CPU", "string", ".status.used.cpu", description="Sum of CPU limits of running agents."),
        Column("CPU", "string", ".spec.hard.cpu", description="Most CPU."),
        Column("Used-Memory", "string", ".status.used.memory", description="Sum of memory limits."),
        Column("Memory", "string", ".spec.hard.memory", description="Most memory."),
        _AGE,
    ),
)
MODELROUTE = Kind(
    GROUP,
    VERSION,
    "ModelRoute",
    "modelroutes",
    "modelroute",
    ("mr",),
    True,
    "modelroute.json",
    False,
    (
        _NAME,
        Column(
            "Strategy", "string", ".spec.strategy", description="Which of several ways to a model is taken."
        ),
        Column("Max-Concurrent", "integer", ".spec.maxConcurrent", description="Most calls at once."),
        Column("RPM", "integer", ".spec.rpm", True, "Most calls a minute."),
        Column("TPM", "integer", ".spec.tpm", True, "Most tokens a minute."),
        _AGE,
    ),
)
POOL = Kind(
    GROUP,
    VERSION,
    "Pool",
    "pools",
    "pool",
    (),
    True,
    "pool.json",
    True,
    (
        _NAME,
        Column("Size", "integer", ".spec.size", description="Boxes kept waiting."),
        Column("Ready", "integer", ".status.ready", description="Boxes that can be handed out at once."),
        Column("Claimed", "integer", ".status.claimed", description="Agents that run in a box of it."),
        Column("p95", "string", ".status.handOut.p95Ms", description="Milliseconds of 95 of 100 hand-outs."),
        _AGE,
        Column("Runtime", "string", ".spec.runtimeRef.name", True, "The Runtime that makes the boxes."),
        Column("Creating", "integer", ".status.creating", True, "Boxes being made."),
        Column("Handed-Out", "integer", ".status.handOut.count", True, "Boxes handed out so far."),
        Column("Cold", "integer", ".status.handOut.cold", True, "Agents that started cold instead."),
        Column("p50", "string", ".status.handOut.p50Ms", True, "Milliseconds of half of the hand-outs."),
    ),
)
TOOL = Kind(
    GROUP,
    VERSION,
    "Tool",
    "tools",
    "tool",
    (),
    True,
    "tool.json",
    True,
    (
        _NAME,
        Column("Ready", "string", ".status.conditions.Ready", description="Whether it could last be asked."),
        Column("Offers", "integer", ".status.offers", description="How many tools it offers, once known."),
        Column("Idempotent", "string", ".spec.idempotent", description="Whether a call may be made again."),
        _AGE,
        Column(
            "Pinned", "string", ".status.conditions.Pinned", True, "Whether a server lists what was pinned."
        ),
        Column("Sharing", "string", ".spec.sharing", True, "Who shares a box of its own."),
        Column("Timeout", "string", ".spec.timeout", True, "Longest time of one call."),
        Column("Description", "string", ".spec.description", True, "What it is for."),
        Column("Error", "string", ".status.lastError", True, "Why it could last not be used."),
    ),
)
TASK = Kind(
    GROUP,
    VERSION,
    "Task",
    "tasks",
    "task",
    (),
    True,
    "task.json",
    True,
    (
        _NAME,
        Column("Phase", "string", ".status.phase", description="Where the work is."),
        Column("Reason", "string", ".status.reason", description="Why it is in this phase."),
        Column("Agent", "string", ".status.agentName", description="The agent that does it."),
        Column("Attempts", "integer", ".status.attempts", description="How often that was started."),
        _AGE,
        Column("Tokens", "integer", ".status.usage.tokens", True, "Tokens it used."),
        Column("Cost", "string", ".status.usage.costUsd", True, "US dollars it used."),
        Column("Exit", "integer", ".status.exitCode", True, "Exit code of the agent's last process."),
        Column("Completed", "date", ".status.completionTime", True, "Time since its end."),
    ),
)
SCHEDULE = Kind(
    GROUP,
    VERSION,
    "Schedule",
    "schedules",
    "schedule",
    ("sched",),
    True,
    "schedule.json",
    True,
    (
        _NAME,
        Column("Schedule", "string", ".spec.schedule", description="When, as cron has it."),
        Column("Time-Zone", "string", ".spec.timeZone", description="Where the clock is that it means."),
        Column("Suspend", "boolean", ".spec.suspend", description="Whether it makes no more Tasks."),
        Column("Active", "integer", ".status.active", description="Tasks that have not ended."),
        Column("Last", "date", ".status.lastScheduleTime", description="Time since the latest was due."),
        _AGE,
        Column("Next", "string", ".status.nextScheduleTime", True, "When the next is due."),
        Column("Concurrency", "string", ".spec.concurrencyPolicy", True, "What happens when one goes on."),
        Column("Success", "date", ".status.lastSuccessfulTime", True, "Time since one last succeeded."),
    ),
)
SKILL = Kind(
    GROUP,
    VERSION,
    "Skill",
    "skills",
    "skill",
    (),
    True,
    "skill.json",
    False,
    (
        _NAME,
        Column("Version", "integer", ".spec.version", description="Counts what agents saved."),
        Column("Description", "string", ".spec.description", description="What it is for."),
        _AGE,
    ),
)
MEMORY = Kind(
    GROUP,
    VERSION,
    "Memory",
    "memories",
    "memory",
    ("mem",),
    True,
    "memory.json",
    True,
    (
        _NAME,
        Column("Pages", "integer", ".status.pages", description="Pages kept."),
        Column("Agents", "integer", ".status.agents", description="Agents that have pages."),
        Column("Hit-Rate", "string", ".status.hitRate", description="Searches that found something."),
        _AGE,
        Column("Bytes", "integer", ".status.bytes", True, "Bytes of their contents."),
        Column("Embedder", "string", ".status.embedding.embedder", True, "What makes their vectors."),
    ),
)
CHECKPOINT = Kind(
    GROUP,
    VERSION,
    "Checkpoint",
    "checkpoints",
    "checkpoint",
    ("ckpt",),
    True,
    "checkpoint.json",
    True,
    (
        _NAME,
        Column("Agent", "string", ".spec.agentRef.name", description="Whose it is."),
        Column("Phase", "string", ".status.phase", description="Ready once it can be restored."),
        Column("Pages", "integer", ".status.pages", description="Pages of memory in it."),
        Column("Files", "integer", ".status.files", description="Files of the workspace in it."),
        Column("Bytes", "integer", ".status.bytes", description="Bytes of both."),
        _AGE,
        Column("Consistency", "string", ".status.consistency", True, "What the agent did meanwhile."),
        Column("Message", "string", ".status.message", True, "Why it is not Ready."),
    ),
)
APPROVAL = Kind(
    GROUP,
    VERSION,
    "Approval",
    "approvals",
    "approval",
    ("apv",),
    True,
    "approval.json",
    True,
    (
        _NAME,
        Column("Agent", "string", ".spec.agentRef.name", description="Who asks."),
        Column("Call", "string", ".spec.summary", description="What it wants to do."),
        Column("Phase", "string", ".status.phase", description="Pending until it is answered."),
        Column("Waiting", "boolean", ".status.waiting", description="Whether the call waits now."),
        Column("By", "string", ".status.by.name", description="Who answered."),
        _AGE,
        Column("Deadline", "string", ".spec.deadline", True, "Until when it can be answered."),
        Column("Default", "string", ".spec.default", True, "What it becomes then."),
        Column("Rule", "string", ".spec.rule", True, "The rule that asks."),
        Column(
            "Remembered", "boolean", ".status.remembered", True, "Whether the answer stands for later calls."
        ),
        Column("Reason", "string", ".status.reason", True, "What was said with the answer."),
    ),
    ("delete", "deletecollection", "get", "list", "watch"),  # the gate makes them, and nobody edits one
)

KINDS: tuple[Kind, ...] = (
    AGENT,
    RUNTIME,
    POLICY,
    QUOTA,
    MODELROUTE,
    POOL,
    TOOL,
    TASK,
    SCHEDULE,
    SKILL,
    MEMORY,
    CHECKPOINT,
    NAMESPACE,
    SECRET,
    CONFIGMAP,
    EVENT,
    APPROVAL,
)

_BY_TYPE = {(kind.api_version, kind.kind): kind for kind in KINDS}
_BY_WORD = {
    word.lower(): kind
    for kind in KINDS
    for word in (kind.kind, kind.plural, kind.singular, *kind.short_names)
}


def find(api_version: str, kind: str) -> Kind:
    """The Kind of an object's apiVersion and kind. Raises BadRequest with what is supported."""
    found = _BY_TYPE.get((api_version, kind))
    if found:
        return found
    same_name = next((k for k in KINDS if k.kind == kind), None)
    if same_name:
        raise errors.BadRequest(
            f'no kind "{kind}" in apiVersion "{api_version}"',
            hint=f"use apiVersion: {same_name.api_version}",
            field="apiVersion",
        )
    known = sorted(k.kind for k in KINDS)
    raise errors.BadRequest(f'unknown kind "{kind}"', hint=did_you_mean(kind, known), field="kind")


def resource(word: str) -> Kind:
    """The Kind of a word people type: plural, singular, short name, Kind or `plural.group`, in any case."""
    lower = word.lower()
    plural, _, group = lower.partition(".")
    found = _BY_WORD.get(lower) or _BY_WORD.get(plural)
    if found and (not group or group in (found.group, f"{found.version}.{found.group}")):
        return found
    known = sorted({word for kind in KINDS for word in (kind.plural, kind.singular)})
    raise errors.NotFound(f'no resource type "{word}"', hint=did_you_mean(lower, known, "resource types"))


def did_you_mean(word: str, known: list[str], what: str = "kinds") -> str:
    """A hint: the nearest known word, else all of them."""
    import difflib  # heavy, and only for errors

    lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(word.lower()[:100], list(lower), n=1, cutoff=0.6)
    if near:
        return f"did you mean '{lower[near[0]]}'?"
    return f"supported {what}: {', '.join(known)}"
