"""A parent to narrow from, and what is told of a child."""

import copy
from typing import Any

from agentk.api import problems
from agentk.broker import narrowing

Spec = dict[str, Any]


def fields(child: Spec, parent: Spec) -> list[str]:
    return [problems.field_path(one.path) for one in narrowing.narrower(child, parent)]


def told(child: Spec, parent: Spec) -> str:
    return "; ".join(one.message for one in narrowing.narrower(child, parent))


def merged(spec: Spec, path: tuple[str, ...], value: Any) -> Spec:
    made = copy.deepcopy(spec)
    inner = made
    for step in path[:-1]:
        inner = inner.setdefault(step, {})
    inner[path[-1]] = value
    return made


PARENT: Spec = {
    "command": ["python", "main.py"],
    "policyRef": {"name": "team"},
    "runtimeRef": {"name": "tight"},
    "modelRef": {"name": "cheap"},
    "image": "team/agent:1",
    "imagePullPolicy": "IfNotPresent",
    "imagePullSecrets": [{"name": "registry"}],
    "resources": {
        "weight": 100,
        "limits": {"cpu": "500m", "memory": "256Mi", "pids": 64, "ephemeral-storage": "64Mi", "open-files": 256}
    },
    "logs": {"maxSize": "1Mi", "maxFiles": 2, "maxRate": "1Mi"},
    "priority": 50,
    "preemptionPolicy": "PreemptLowerPriority",
    "onPreempted": "Freeze",
    "restartPolicy": "OnFailure",
    "backoffLimit": 3,
    "restartBackoff": {"initialSeconds": 10, "maxSeconds": 60, "resetAfterSeconds": 60},
    "maxRestarts": 5,
    "restartWindow": "10m",
    "activeDeadlineSeconds": 900,
    "deadlineWhileSuspended": "Runs",
    "ttlSecondsAfterFinished": 60,
    "terminationGracePeriodSeconds": 5,
    "depth": 2,
    "budget": {
        "maxCostUsd": "2.50",
        "maxTokens": 1000,
        "maxCalls": 10,
        "maxWallTime": "10m",
        "maxTokensPerRequest": 100,
        "per": "1h",
        "onExceeded": "Kill",
    },
    "env": [
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "gh", "key": "token"}}},
        {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "mode"}}},
    ],
    "volumes": [
        {"name": "data", "hostPath": {"path": "/data"}},
        {"name": "out", "hostPath": {"path": "/out"}},
        {"name": "tls", "secret": {"secretName": "tls"}},
        {"name": "unseen", "secret": {"secretName": "unseen"}},
        {"name": "conf", "configMap": {"name": "conf"}},
        {"name": "scratch", "emptyDir": {"sizeLimit": "16Mi"}},
    ],
    "volumeMounts": [
        {"name": "data", "mountPath": "/mnt/data", "readOnly": True},
        {"name": "out", "mountPath": "/mnt/out"},
        {"name": "tls", "mountPath": "/mnt/tls"},
        {"name": "conf", "mountPath": "/mnt/conf"},
        {"name": "scratch", "mountPath": "/mnt/scratch"},
    ],
    "network": {
        "egress": {
            "default": "Deny",
            "allow": [
                {"host": "*.example.com", "ports": [443]},
                {"host": "api.example.com", "ports": [8443]},
                {"host": "any.example"},
            ],
        }
    },
    "secrets": [{"name": "gh", "key": "api", "inject": {"host": "*.github.example", "header": "Authorization"}}],
    "environment": {"python": {"requirements": ["openai==2.0"]}},
    "tools": [{"ref": {"name": "github"}, "allow": ["get_*", "list_*"], "requireApproval": ["get_secret*"]}],
}  # fmt: skip


def child(path: tuple[str, ...] = (), value: Any = None) -> Spec:
    """The parent's bounds, and one thing more."""
    made = narrowing.inherit({"command": ["true"]}, PARENT)
    return merged(made, path, value) if path else made
