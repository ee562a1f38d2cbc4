"""What a schema cannot say: fields that must fit each other, and amounts and paths that make no sense.

Each check gets an object that has its schema's shape, and yields what is wrong. Fields may be missing.
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentk.api import (
    environments,
    errors,
    images,
    kinds,
    memoryspecs,
    mountspecs,
    parts,
    policyspecs,
    pools,
    programs,
    quantities,
    skillspecs,
    taskspecs,
    toolspecs,
)
from agentk.api.problems import Path, Problem, shown

_MAX_DATA_BYTES = 1024 * 1024  # of a ConfigMap, a Secret or inline files, as in Kubernetes
_MAX_ANNOTATION_BYTES = 256 * 1024  # as in Kubernetes
_MAX_ARGUMENT_BYTES = 1024 * 1024  # Linux takes 2 MiB of arguments and environment together
_MAX_CPU_MILLIS = 4096 * 1000
_MAX_BYTES = 2**50  # 1 PiB: above it somebody mistyped

_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_LABEL_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)

Checks = Iterator[Problem]


def check(kind: kinds.Kind, obj: Mapping[str, Any]) -> list[Problem]:
    """Everything wrong across the fields of one object of a kind."""
    found = list(_metadata(obj.get("metadata") or {}))
    own = _BY_KIND.get(kind.kind)
    return found + (list(own(obj)) if own else [])


def _metadata(metadata: Mapping[str, Any], where: Path = ("metadata",)) -> Checks:
    for field in ("labels", "annotations"):
        for key in metadata.get(field) or {}:
            if not _LABEL_KEY.fullmatch(key):
                message = "expected a key such as app or example.com/app: at most 63 letters, digits, '-', '_' and '.'"
                yield Problem((*where, field, key), message, at_key=True)
    size = sum(len(key) + len(text.encode()) for key, text in (metadata.get("annotations") or {}).items())
    if size > _MAX_ANNOTATION_BYTES:
        yield Problem((*where, "annotations"), f"{size} bytes together: at most 256 KiB")


def _agent(obj: Mapping[str, Any]) -> Checks:
    spec = obj.get("spec") or {}
    yield from _program(spec)
    yield from _image(spec)
    yield from _source(spec.get("source") or {}, ("spec", "source"))
    yield from mountspecs.of_agent(spec)
    yield from _volume_sizes(spec)
    yield from _ports(spec)
    yield from _environment(spec.get("environment") or {}, ("spec", "environment"))
    yield from _limits((spec.get("resources") or {}).get("limits") or {}, ("spec", "resources", "limits"))
    logs = spec.get("logs") or {}
    yield from _bytes(logs, "maxSize", ("spec", "logs"), 4096)
    yield from _bytes(logs, "maxRate", ("spec", "logs"), 1024)
    backoff = spec.get("restartBackoff") or {}
    first, longest = backoff.get("initialSeconds"), backoff.get("maxSeconds")
    if first is not None and longest is not None and longest < first:
        message = f"expected at least initialSeconds ({first}), found {longest}"
        yield Problem(("spec", "restartBackoff", "maxSeconds"), message)
    yield from _positive_duration(spec, "restartWindow", ("spec",))
    yield from _checkpoint(spec.get("checkpoint"))
    for probe in ("livenessProbe", "readinessProbe"):
        yield from _probe(spec.get(probe) or {}, ("spec", probe))
    yield from toolspecs.grants(spec)
    yield from memoryspecs.of_agent(spec)
    yield from taskspecs.given(spec, "task", ("spec",))
    yield from programs.problems(spec)


def _checkpoint(wish: Mapping[str, Any] | None) -> Checks:
    if wish is None:
        return
    every = wish.get("every")
    if every is None and "steps" not in wish:
        yield Problem(("spec", "checkpoint"), "expected every, steps or both", reason="FieldValueRequired")
    seconds = _parsed(quantities.parse_duration, every) if isinstance(every, str) else None
    if seconds is not None and seconds < 1:
        yield Problem(("spec", "checkpoint", "every"), f"expected at least 1s, found {shown(every)}")


def _program(spec: Mapping[str, Any]) -> Checks:
    command = spec.get("command") or []
    if command and not command[0].strip():
        yield Problem(("spec", "command", 0), "the program must not be empty")
    size = sum(len(text.encode()) + 1 for text in (*command, *(spec.get("args") or ())))
    for variable in spec.get("env") or ():
        size += len(variable.get("name", "")) + len(variable.get("value", "").encode()) + 2
    if size > _MAX_ARGUMENT_BYTES:
        yield Problem(("spec", "command"), f"command, args and env have {size} bytes together: at most 1 MiB")
    if "workingDir" in spec:
        yield from mountspecs.clean_path(spec["workingDir"], ("spec", "workingDir"))


def _image(spec: Mapping[str, Any]) -> Checks:
    for at, one in enumerate(spec.get("imagePullSecrets") or ()):
        path: Path = ("spec", "imagePullSecrets", at)
        for field in ("registry", "username"):
            if "secretKeyRef" in one and field not in one:
                yield Problem((*path, field), "is needed with secretKeyRef", reason="FieldValueRequired")
            elif "name" in one and field in one:
                yield Problem((*path, field), "is only for secretKeyRef", at_key=True)
        if "registry" in one and not images.is_registry(one["registry"]):
            yield Problem(
                (*path, "registry"), f"expected a host such as ghcr.io, found {shown(one['registry'])}"
            )
        if any(letter == ":" or ord(letter) < 32 for letter in one.get("username") or ""):
            yield Problem((*path, "username"), "a user's name holds neither ':' nor control characters")


def _ports(spec: Mapping[str, Any]) -> Checks:
    taken: dict[Any, int] = {}
    for at, port in enumerate(spec.get("ports") or ()):
        number = port.get("hostPort")
        if number is not None and number in taken:
            yield Problem(
                ("spec", "ports", at, "hostPort"), f"{number} is the hostPort of ports[{taken[number]}] too"
            )
        taken.setdefault(number, at)


def _source(source: Mapping[str, Any], path: Path) -> Checks:
    if "digest" in source and "path" not in source:
        yield Problem((*path, "digest"), "is only for source.path", at_key=True)
    files = (source.get("inline") or {}).get("files") or {}
    for name in files:
        if reason := parts.bad_file_name(name):
            yield Problem(
                (*path, "inline", "files", name), f"expected a relative file name: {reason}", at_key=True
            )
        elif any(name[:at] in files for at, letter in enumerate(name) if letter == "/"):
            yield Problem((*path, "inline", "files", name), "a part of its path is a file too", at_key=True)
    yield from _data_size(files, (*path, "inline", "files"))


def _volume_sizes(spec: Mapping[str, Any]) -> Checks:
    for at, volume in enumerate(spec.get("volumes") or ()):
        path: Path = ("spec", "volumes", at, "emptyDir")
        yield from _bytes(volume.get("emptyDir") or {}, "sizeLimit", path, 4096)


def _environment(environment: Mapping[str, Any], where: Path) -> Checks:
    for path, message, hint in environments.problems(environment):
        yield Problem((*where, *path), message, hint)
    yield from mountspecs.of_venv(environment, where)


def _limits(limits: Mapping[str, Any], path: Path) -> Checks:
    if "cpu" in limits:
        millis = _parsed(quantities.parse_cpu, limits["cpu"])
        if millis is not None and not 1 <= millis <= _MAX_CPU_MILLIS:
            yield Problem(
                (*path, "cpu"),
                f'expected between 1m and {_MAX_CPU_MILLIS // 1000} CPUs, found "{limits["cpu"]}"',
            )
    yield from _bytes(limits, "memory", path, 2**20)
    yield from _bytes(limits, "ephemeral-storage", path, 2**16)


def _bytes(held: Mapping[str, Any], field: str, path: Path, least: int) -> Checks:
    """An amount of bytes that is neither nothing nor more than any machine has."""
    text = held.get(field)
    size = _parsed(quantities.parse_quantity, text) if text is not None else None
    if size is None or least <= size <= _MAX_BYTES:
        return
    hint = ""
    if isinstance(text, str) and text.endswith("m"):
        hint = f"'m' is a thousandth: did you mean '{text[:-1]}Mi'?"
    elif isinstance(text, str) and text.isdigit() and size < least:
        hint = f"did you mean '{text}Mi'?"
    bound = f"least {quantities.format_quantity(least)}" if size < least else "most 1024Ti"
    yield Problem((*path, field), f'expected at {bound} (bytes), found "{text}"', hint)


def _positive_duration(held: Mapping[str, Any], field: str, path: Path) -> Checks:
    text = held.get(field)
    if isinstance(text, str) and _parsed(quantities.parse_duration, text) == 0:
        yield Problem((*path, field), f'expected more than nothing, found "{text}"')


def _parsed(parse: Callable[[str], float], text: str) -> Any:
    try:
        return parse(text)
    except errors.Invalid:  # told already, by its format
        return None


def _probe(probe: Mapping[str, Any], path: Path) -> Checks:
    command = (probe.get("exec") or {}).get("command")
    if command and not command[0].strip():
        yield Problem((*path, "exec", "command", 0), "the program must not be empty")
    heartbeat = probe.get("heartbeat") or {}
    if "file" in heartbeat:
        yield from mountspecs.clean_path(heartbeat["file"], (*path, "heartbeat", "file"))


def _runtime(obj: Mapping[str, Any]) -> Checks:
    spec = obj.get("spec") or {}
    if "pythonPrefix" in spec:
        yield from mountspecs.clean_path(spec["pythonPrefix"], ("spec", "pythonPrefix"))
    if "ociRuntime" in spec and spec.get("type", "podman") != "podman":
        yield Problem(("spec", "ociRuntime"), "only a Runtime of type podman has one", at_key=True)
    if "image" in spec and spec.get("type") not in (None, "podman"):
        yield Problem(("spec", "image"), "only a Runtime of type podman shows an image", at_key=True)
    yield from _bytes(spec, "tmpSize", ("spec",), 4096)
    resources = (spec.get("defaults") or {}).get("resources") or {}
    yield from _limits(resources.get("limits") or {}, ("spec", "defaults", "resources", "limits"))


def _pool(obj: Mapping[str, Any]) -> Checks:
    spec = obj.get("spec") or {}
    template: Mapping[str, Any] = spec.get("template") or {}
    where: Path = ("spec", "template")
    yield from pools.problems(spec)
    yield from _source(template.get("source") or {}, (*where, "source"))
    yield from _environment(template.get("environment") or {}, (*where, "environment"))
    limits = (template.get("resources") or {}).get("limits") or {}
    yield from _limits(limits, (*where, "resources", "limits"))


def _tool(obj: Mapping[str, Any]) -> Checks:
    spec = obj.get("spec") or {}
    yield from toolspecs.problems(obj.get("metadata") or {}, spec)
    # What its boxes are made of, as an Agent has it.
    yield from _moved(_agent({"spec": spec.get("jail") or {}}), ("spec", "jail"))


def _task(obj: Mapping[str, Any]) -> Checks:
    spec = obj.get("spec") or {}
    yield from taskspecs.problems(spec)
    template = spec.get("template") or {}
    yield from _metadata(template.get("metadata") or {}, ("spec", "template", "metadata"))
    yield from _moved(_agent(template), ("spec", "template", "spec"))


def _schedule(obj: Mapping[str, Any]) -> Checks:
    spec = obj.get("spec") or {}
    yield from taskspecs.schedule_problems(spec)
    template, where = spec.get("taskTemplate") or {}, ("spec", "taskTemplate")
    yield from _metadata(template.get("metadata") or {}, (*where, "metadata"))
    yield from _moved(_task(template), (*where, "spec"))


def _moved(found: Checks, where: Path) -> Checks:
    """What is wrong with the spec of an object that is part of another, with its place there."""
    for one in found:
        yield Problem((*where, *one.path[1:]), one.message, one.hint, one.at_key, one.reason)


def _policy(obj: Mapping[str, Any]) -> Checks:
    yield from policyspecs.problems(obj.get("spec") or {})
    isolation = (obj.get("spec") or {}).get("isolation") or {}
    for at, allowed in enumerate(isolation.get("hostPaths") or ()):
        if "pathPrefix" in allowed:
            path = ("spec", "isolation", "hostPaths", at, "pathPrefix")
            yield from mountspecs.clean_path(allowed["pathPrefix"], path)


def _namespace(obj: Mapping[str, Any]) -> Checks:
    name = (obj.get("metadata") or {}).get("name") or "a"
    if len(name) > 63 or "." in name:
        yield Problem(("metadata", "name"), "a namespace has at most 63 letters, digits and '-', and no '.'")
    if name == "tasks":
        yield Problem(("metadata", "name"), "every cgroup (v1) has a file of that name", "take another")


def _secret(obj: Mapping[str, Any]) -> Checks:
    yield from _data(obj, "data", "stringData")


def _configmap(obj: Mapping[str, Any]) -> Checks:
    yield from _data(obj, "data", "binaryData")
    for key in set(obj.get("data") or ()) & set(obj.get("binaryData") or ()):
        yield Problem(
            ("binaryData", key), "the same key is in data", at_key=True, reason="FieldValueDuplicate"
        )


def _data(obj: Mapping[str, Any], *fields: str) -> Checks:
    for field in fields:
        for key in obj.get(field) or {}:
            if not _DATA_KEY.fullmatch(key) or key in (".", ".."):
                message = "expected a key of at most 253 letters, digits, '-', '_' and '.'"
                yield Problem((field, key), message, at_key=True)
    both = {f"{field}/{key}": text for field in fields for key, text in (obj.get(field) or {}).items()}
    yield from _data_size(both, (fields[0],))


def _data_size(texts: Mapping[str, str], path: Path) -> Checks:
    size = sum(len(key.encode()) + len(text.encode()) for key, text in texts.items())
    if size > _MAX_DATA_BYTES * 4 // 3:  # base64 is a third longer
        yield Problem(path, f"{size} bytes together: at most 1 MiB")


def folded(obj: dict[str, Any]) -> dict[str, Any]:
    """A Secret with stringData moved into data, as the API keeps it."""
    texts = obj.get("stringData")
    if not isinstance(texts, dict):
        return obj
    made = {key: value for key, value in obj.items() if key != "stringData"}
    made["data"] = {**(obj.get("data") or {})}
    for key, text in texts.items():
        made["data"][key] = base64.b64encode(text.encode()).decode()
    return made


_BY_KIND: dict[str, Callable[[Mapping[str, Any]], Checks]] = {
    "Agent": _agent,
    "Runtime": _runtime,
    "Policy": _policy,
    "Pool": _pool,
    "Tool": _tool,
    "Task": _task,
    "Schedule": _schedule,
    "Skill": skillspecs.problems,
    "Memory": memoryspecs.of_memory,
    "Namespace": _namespace,
    "Secret": _secret,
    "ConfigMap": _configmap,
}
