"""The kinds that are Kubernetes' own and stay as they are there. `kinds` has them with all the others."""

from agentk.api.kind import AGE as _AGE
from agentk.api.kind import NAME as _NAME
from agentk.api.kind import Column, Kind

NAMESPACE = Kind(
    "",
    "v1",
    "Namespace",
    "namespaces",
    "namespace",
    ("ns",),
    False,
    "namespace.json",
    True,
    (_NAME, Column("Status", "string", ".status.phase", description="Active or Terminating."), _AGE),
)
SECRET = Kind(
    "",
    "v1",
    "Secret",
    "secrets",
    "secret",
    (),
    True,
    "secret.json",
    False,
    (
        _NAME,
        Column("Type", "string", ".type", description="What the Secret is for."),
        Column("Data", "integer", ".data", description="Number of keys."),
        _AGE,
    ),
)
CONFIGMAP = Kind(
    "",
    "v1",
    "ConfigMap",
    "configmaps",
    "configmap",
    ("cm",),
    True,
    "configmap.json",
    False,
    (_NAME, Column("Data", "integer", ".data", description="Number of keys."), _AGE),
)
EVENT = Kind(
    "",
    "v1",
    "Event",
    "events",
    "event",
    ("ev",),
    True,
    "event.json",
    False,
    (
        Column("Last Seen", "date", ".lastTimestamp", description="Time since it last happened."),
        Column("Type", "string", ".type", description="Normal or Warning."),
        Column("Reason", "string", ".reason", description="Short word for what happened."),
        Column("Object", "string", ".involvedObject", description="What it happened to."),
        Column("Message", "string", ".message", description="What happened."),
        Column("Count", "integer", ".count", description="How often."),
        Column("Source", "string", ".source.component", True, "Who said so."),
        Column("First Seen", "date", ".firstTimestamp", True, "Time since it first happened."),
        Column("Name", "string", ".metadata.name", True, "Name of the event."),
    ),
)
