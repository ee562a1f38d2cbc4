"""What the API serves, told the way clients of Kubernetes ask for it. Pure."""

from typing import Any

from agentk.api import kinds
from agentk.daemon import paths

Document = dict[str, Any]

_PART_VERBS = {
    "status": ("get", "patch", "update"),
    "log": ("get",),
    "counters": ("get",),
    "audit": ("get",),
    "trace": ("get",),
    "windows": ("get",),
    "object": ("get",),
    "budget": ("get", "create"),
}
_CREATED = ("create",)
# "all" is what `kubectl get all` lists; Secrets and Events are not in it.
_CATEGORIES = {
    "Agent": ("all", "agentk"),
    "Runtime": ("agentk",),
    "Policy": ("agentk",),
    "Quota": ("agentk",),
    "Task": ("all", "agentk"),
    "Schedule": ("all", "agentk"),
    "Skill": ("agentk",),
    "Memory": ("agentk",),
    "Checkpoint": ("agentk",),
}


def core_versions() -> Document:
    """/api"""
    return {"kind": "APIVersions", "versions": _versions(""), "serverAddressByClientCIDRs": []}


def groups() -> Document:
    """/apis"""
    names = sorted({kind.group for kind in kinds.KINDS} - {""})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in names]}


def group(name: str) -> Document | None:
    """/apis/GROUP; None when there is no such group."""
    if not name or not _versions(name):
        return None
    return {"kind": "APIGroup", "apiVersion": "v1"} | _group(name)


def resources(name: str, version: str) -> Document | None:
    """/api/v1 and /apis/GROUP/VERSION; None when there is no such version."""
    served = [kind for kind in kinds.KINDS if (kind.group, kind.version) == (name, version)]
    if not served:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": served[0].api_version,
        "resources": [entry for kind in served for entry in _resource(kind)],
    }


def aggregated(core: bool, version: str) -> Document:
    """/api or /apis in one document (apidiscovery.k8s.io), so that clients need two requests in all."""
    names = [""] if core else sorted({kind.group for kind in kinds.KINDS} - {""})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": name or None, "creationTimestamp": None},
                "versions": [
                    {
                        "version": one,
                        "freshness": "Current",
                        "resources": [
                            _discovered(kind)
                            for kind in kinds.KINDS
                            if (kind.group, kind.version) == (name, one)
                        ],
                    }
                    for one in _versions(name)
                ],
            }
            for name in names
        ],
    }


def _versions(name: str) -> list[str]:
    return sorted({kind.version for kind in kinds.KINDS if kind.group == name})


def _group(name: str) -> Document:
    versions = [{"groupVersion": f"{name}/{version}", "version": version} for version in _versions(name)]
    return {"name": name, "versions": versions, "preferredVersion": versions[-1]}


def _resource(kind: kinds.Kind) -> list[Document]:
    whole: Document = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        whole["shortNames"] = list(kind.short_names)
    if kind.kind in _CATEGORIES:
        whole["categories"] = list(_CATEGORIES[kind.kind])
    return [whole] + [
        {
            "name": f"{kind.plural}/{part}",
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(_PART_VERBS.get(part, _CREATED)),
        }
        for part in paths.parts(kind)
    ]


def _discovered(kind: kinds.Kind) -> Document:
    meaning = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    found: Document = {
        "resource": kind.plural,
        "responseKind": meaning,
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
        "shortNames": list(kind.short_names),
        "categories": list(_CATEGORIES.get(kind.kind, ())),
    }
    if parts := paths.parts(kind):
        found["subresources"] = [
            {
                "subresource": part,
                "responseKind": meaning,
                "verbs": list(_PART_VERBS.get(part, _CREATED)),
            }
            for part in parts
        ]
    return found
