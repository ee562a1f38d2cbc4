"""What a URL path of the API means: a kind's collection, one object, or a part of it. Pure."""

from dataclasses import dataclass

from agentk.api import errors, kinds

# Parts of an agent beyond Kubernetes' own; `log` is a Pod's in Kubernetes.
_HANDS = ("exec", "attach", "portforward", "files")
AGENT_PARTS = (
    "log",
    "signal",
    "restart",
    "restore",
    "counters",
    "audit",
    "trace",
    "windows",
    "budget",
    "can-i",
    "pages",
    *_HANDS,
)
QUOTA_PARTS = ("budget",)
APPROVAL_PARTS = ("approve", "deny", "answer")
TOOL_PARTS = ("offers", "call")
MEMORY_PARTS = ("pages",)
CHECKPOINT_PARTS = ("object",)


@dataclass(frozen=True)
class Target:
    """`name` "" is the collection; `namespace` "" is all of them, or a cluster-scoped kind."""

    kind: kinds.Kind
    namespace: str = ""
    name: str = ""
    part: str = ""  # "", "status", "log", …


def find(path: str) -> Target:
    """The target of an absolute path below /api/v1 or /apis/GROUP/VERSION. Raises NotFound with a hint."""
    words = path.strip("/").split("/")
    if words[0] == "api":
        group, version, rest = "", words[1:2], words[2:]
    elif words[0] == "apis" and len(words) > 2:
        group, version, rest = words[1], words[2:3], words[3:]
    else:
        raise _unknown(path)
    known = [kind for kind in kinds.KINDS if kind.group == group and [kind.version] == version]
    if not known:
        versions = sorted({kind.api_version for kind in kinds.KINDS})
        raise _unknown(path, f"served API versions: {', '.join(versions)}")
    if not rest or not all(rest):
        raise _unknown(path)
    namespace = ""
    # namespaces/NAME and its parts are the Namespace object; anything else below is inside it.
    if rest[0] == "namespaces" and len(rest) > 2 and not _part_of_namespace(group, rest):
        namespace, rest = rest[1], rest[2:]
    kind = next((kind for kind in known if kind.plural == rest[0]), None)
    if kind is None:
        raise _unknown(path, kinds.did_you_mean(rest[0], [kind.plural for kind in known], "resources"))
    if namespace and not kind.namespaced:
        raise _unknown(path, f"{kind.plural} belong to no namespace: {kind.path()}")
    return _below(kind, namespace, rest[1:], path)


def _below(kind: kinds.Kind, namespace: str, rest: list[str], path: str) -> Target:
    if not rest:
        return Target(kind, namespace)
    if kind.namespaced and not namespace:
        raise _unknown(path, f"name the namespace: {kind.path('NAMESPACE', rest[0])}")
    if len(rest) == 1:
        return Target(kind, namespace, rest[0])
    if len(rest) == 2 and rest[1] in parts(kind):
        return Target(kind, namespace, rest[0], rest[1])
    had = ", ".join(parts(kind)) or "none"
    raise _unknown(path, f"parts of {kind.plural}: {had}")


def parts(kind: kinds.Kind) -> tuple[str, ...]:
    """The subresources of a kind."""
    status = ("status",) if kind.has_status else ()
    more = {
        kinds.AGENT: AGENT_PARTS,
        kinds.QUOTA: QUOTA_PARTS,
        kinds.APPROVAL: APPROVAL_PARTS,
        kinds.TOOL: TOOL_PARTS,
        kinds.MEMORY: MEMORY_PARTS,
        kinds.CHECKPOINT: CHECKPOINT_PARTS,
    }
    return status + more.get(kind, ())


def _part_of_namespace(group: str, rest: list[str]) -> bool:
    return not group and len(rest) == 3 and rest[2] in parts(kinds.NAMESPACE)


def _unknown(path: str, hint: str = "see /api and /apis for what is served") -> errors.NotFound:
    return errors.NotFound(f'the server has nothing at "{path[:200]}"', hint=hint)
