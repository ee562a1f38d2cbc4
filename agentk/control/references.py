"""What an Agent's spec refers to by name. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from agentk.broker import skilling

DEFAULT_RUNTIME = "nsjail"
DEFAULT_POLICY = "baseline"


class Ref(NamedTuple):
    kind: Literal["Runtime", "Policy", "Secret", "ConfigMap", "Skill", "Memory"]
    namespace: str  # "" for kinds that have none
    name: str


@dataclass(frozen=True)
class Found:
    """What the references lead to; None or absent: it does not exist."""

    runtime: Mapping[str, Any] | None = None
    policy: Mapping[str, Any] | None = None
    secrets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    config_maps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    memory: Mapping[str, Any] | None = None  # of a machine, which reads there how large its context is
    skills: Sequence[Mapping[str, Any]] = ()  # those it may use
    skills_size: int = 0  # of their files; too large a number, and they were not read
    skills_missing: Sequence[skilling.Key] = ()  # it names them, and may not use them


def runtime_name(spec: Mapping[str, Any]) -> str:
    return str((spec.get("runtimeRef") or {}).get("name") or DEFAULT_RUNTIME)


def policy_name(spec: Mapping[str, Any]) -> str:
    return str((spec.get("policyRef") or {}).get("name") or DEFAULT_POLICY)


def names(agent: Mapping[str, Any]) -> frozenset[Ref]:
    """Every object the agent cannot start without, optional ones included."""
    spec, namespace = agent["spec"], str(agent["metadata"].get("namespace", ""))
    runtime, policy = Ref("Runtime", "", runtime_name(spec)), Ref("Policy", "", policy_name(spec))
    return frozenset({runtime, policy, *_in_namespace(spec, namespace)})


def _in_namespace(spec: Mapping[str, Any], namespace: str) -> Iterator[Ref]:
    for one in (spec.get("skills") or {}).get("use") or ():
        if skilling.is_name(one["name"]):
            yield Ref("Skill", str(one.get("namespace") or namespace), one["name"])
    for one in spec.get("env") or ():
        source = one.get("valueFrom") or {}
        if "secretKeyRef" in source:
            yield Ref("Secret", namespace, source["secretKeyRef"]["name"])
        if "configMapKeyRef" in source:
            yield Ref("ConfigMap", namespace, source["configMapKeyRef"]["name"])
    for one in spec.get("secrets") or ():
        yield Ref("Secret", namespace, one["name"])
    for one in spec.get("imagePullSecrets") or ():
        yield Ref("Secret", namespace, one["name"] if "name" in one else one["secretKeyRef"]["name"])
    for volume in spec.get("volumes") or ():
        if "secret" in volume:
            yield Ref("Secret", namespace, volume["secret"]["secretName"])
        if "configMap" in volume:
            yield Ref("ConfigMap", namespace, volume["configMap"]["name"])
    for one in spec.get("context") or ():
        if "configMapRef" in one:
            yield Ref("ConfigMap", namespace, one["configMapRef"]["name"])
    if spec.get("program") == "machine" and (memory := (spec.get("memory") or {}).get("ref")):
        yield Ref("Memory", namespace, memory["name"])
    if "configMapRef" in (spec.get("source") or {}):
        yield Ref("ConfigMap", namespace, spec["source"]["configMapRef"]["name"])


class Index:
    """Which agents refer to what."""

    def __init__(self) -> None:
        self._by: dict[Ref, set[tuple[str, str]]] = {}
        self._refs: dict[tuple[str, str], frozenset[Ref]] = {}  # by agent

    def of(self, ref: Ref) -> list[tuple[str, str]]:
        return list(self._by.get(ref, ()))

    def keep(self, key: tuple[str, str], refs: frozenset[Ref]) -> None:
        """All that an agent refers to now."""
        for ref in self._refs.pop(key, frozenset()) - refs:
            keys = self._by.get(ref, set())
            keys.discard(key)
            if not keys:
                self._by.pop(ref, None)
        for ref in refs:
            self._by.setdefault(ref, set()).add(key)
        if refs:
            self._refs[key] = refs
