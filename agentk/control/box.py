"""An Agent and what it refers to, as the box a runtime makes. Pure.

What cannot be made is told as problems, all at once, each with the object and field that is to be mended.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, quantities
from agentk.control import images, isolation, logins, prepared, programs, references, skills
from agentk.control.plans import Problem
from agentk.runtime import box as boxes

CERTIFICATES = "/opt/certificates"  # what is believed in a box whose requests the gate reads along
SOURCE = "/app"  # where spec.source is seen, and where the program starts when there is one
WORKSPACE = "/workspace"
CONFIG_ERROR = "ConfigError"

_BASE_ENV = {
    "HOME": WORKSPACE,
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",  # or `logs -f` shows nothing of a Python program until it ends
    # HOME is the workspace: who may only write a file there may not have it run by the next Python that starts.
    "PYTHONNOUSERSITE": "1",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
}
_GATE = "http://127.0.0.1:8700"  # the loopback door (runtime/launcher/doors.py)
_NO_KEY = "agentk-holds-the-key"  # clients refuse to start without one
_BUNDLE = "ca.pem"
# Where OpenSSL, requests, curl, Node, git and pip look for what to believe.
_BELIEVE = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
)
_NO_PROXY = "127.0.0.1,localhost,::1"
_FIELD = re.compile(r"metadata\.(?:(name|namespace|uid)|(labels|annotations)\['([^']+)'\])")
_EXPANSION = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")


class Unfit(Exception):
    """No box can be made from this agent as things are."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


@dataclass(frozen=True)
class Attempt:
    """What is not in any object."""

    number: int
    token: str
    run_id: str
    host_uid: int = -1
    source_path: str = ""  # where spec.source.digest was staged
    certificates: str = ""  # PEM of what its programs must believe; "": what the machine believes
    given: prepared.Prepared = prepared.NOTHING  # of spec.environment
    door: str = "/run/agentk/gate.sock"  # where its gate is; without a jail it is a place of the host


def build(agent: Mapping[str, Any], found: references.Found, attempt: Attempt) -> boxes.Box:
    """Raises Unfit."""
    problems: list[Problem] = list(isolation.problems(agent["spec"], found.runtime, found.policy))
    metadata, spec = agent["metadata"], agent["spec"]
    root = attempt.given.chosen.image if attempt.given.chosen else None
    env = _environment(agent, found, attempt, problems)
    problems += _missing_secrets(spec, found)
    mounts = [*_source(spec, found, attempt, problems), *_volumes(spec, found, problems)]
    mounts += programs.mounts(spec, found, _content, problems)
    mounts += skills.mounts(found, metadata["namespace"], problems)
    skills.on_the_path(env, found.skills)
    if attempt.certificates:
        pem = base64.b64encode(attempt.certificates.encode()).decode()
        mounts.append(boxes.Mount("files", CERTIFICATES, files={_BUNDLE: pem}))
    runtime: Mapping[str, Any] = (found.runtime or {}).get("spec") or {}
    limits = _limits(spec, runtime, problems)
    log = _log_limits(spec, problems)
    tmp = _quantity(runtime.get("tmpSize", "64Mi"), "Runtime spec.tmpSize", problems)
    problems += _unfit_for(spec, runtime)
    if images.wanted(spec, runtime):
        pull_entries(spec, found, problems)
    if problems:
        raise Unfit(problems)
    env = prepared.environment(env, attempt.given)
    place = SOURCE if spec.get("source") else (root.cwd if root else "") or WORKSPACE
    if "program" in spec:
        place = programs.FOLDER
    workspace = boxes.Mount("workspace", WORKSPACE, read_only=False, size_bytes=limits.storage_bytes or 0)
    return boxes.Box(
        id=f"{metadata['uid']}-{attempt.number}",
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        attempt=attempt.number,
        argv=[expand(word, env) for word in programs.argv(spec)],
        runtime=runtime.get("type", "nsjail"),
        env=env,
        cwd=spec.get("workingDir") or place,
        hostname=spec.get("hostname") or metadata["name"][:63].replace(".", "-"),
        host_uid=attempt.host_uid,
        mounts=[workspace, *attempt.given.mounts, *mounts],
        limits=limits,
        log=log,
        seccomp=isolation.seccomp(runtime, found.policy or {}),
        enforcement=runtime.get("enforcement", "Strict"),
        oci_runtime=runtime.get("ociRuntime", ""),
        image=root.id if root else "",
        prefix="" if root else runtime.get("pythonPrefix", ""),
        tmp_bytes=tmp,
        stdin=bool(spec.get("stdin")),
        annotations={
            "name": metadata["name"],
            "generation": str(metadata.get("generation", 0)),
            "token": attempt.token,
            **prepared.annotations(attempt.given),
        },
    )


def expand(text: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` as Kubernetes does it: `$$` is a dollar, an unknown name stays as it is."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else env.get(name, match[0])

    return _EXPANSION.sub(value, text)


def _environment(
    agent: Mapping[str, Any], found: references.Found, attempt: Attempt, problems: list[Problem]
) -> dict[str, str]:
    metadata = agent["metadata"]
    env = _base(attempt.given)
    env |= {
        "AGENTK_AGENT": metadata["name"],
        "AGENTK_NAMESPACE": metadata["namespace"],
        "AGENTK_RUN_ID": attempt.run_id,
        "AGENTK_SOCKET": attempt.door,
        "TRACEPARENT": _traceparent(attempt),
    }
    if (found.runtime or {}).get("spec", {}).get("type", "nsjail") != "process":
        env |= _loopback(agent["spec"])
    if attempt.certificates:
        env |= dict.fromkeys(_BELIEVE, f"{CERTIFICATES}/{_BUNDLE}")
    for one in agent["spec"].get("env") or ():
        name, source = one["name"], one.get("valueFrom")
        if source is None:
            env[name] = expand(str(one.get("value", "")), env)
            continue
        value = _from_source(metadata, source, found, f"env {name}", problems)
        if value is None:
            continue
        if "\0" in value:
            problems.append(Problem(CONFIG_ERROR, f"env {name}: the value holds a NUL byte"))
        env[name] = value
    return env


def _base(given: prepared.Prepared) -> dict[str, str]:
    """What a box has before anybody asks for something. An image knows where its programs are, not where home is."""
    if given.chosen is None:
        return dict(_BASE_ENV)
    theirs = {name: value for name, value in given.chosen.image.env.items() if not name.startswith("AGENTK_")}
    return {**_BASE_ENV, **theirs, "HOME": WORKSPACE}


def _unfit_for(spec: Mapping[str, Any], runtime: Mapping[str, Any]) -> Iterator[Problem]:
    """What this Runtime cannot give."""
    kind = runtime.get("type", "nsjail")
    if spec.get("environment") and kind == "process":
        yield Problem(CONFIG_ERROR, "environment: only a Runtime with a jail can show packages")
    if (spec.get("skills") or {}).get("use") and kind == "process":
        yield Problem(CONFIG_ERROR, "skills: only a Runtime with a jail can show Skills")
    if spec.get("image") and kind != images.PODMAN:
        told = (
            f"image: a Runtime of type {kind} shows the host's own files, not an image; "
            "name one of type podman in runtimeRef, or leave image to such a Runtime's spec.image"
        )
        yield Problem(CONFIG_ERROR, told)
    if images.wanted(spec, runtime) and (spec.get("environment") or {}).get("python"):
        told = (
            "environment.python: its packages are built for the host's Python, which an image does not show"
        )
        yield Problem(CONFIG_ERROR, f"{told}; install them in the image")


def _loopback(spec: Mapping[str, Any]) -> dict[str, str]:
    """What unmodified clients look for, leading to the gate. Without a jail the address is somebody else's."""
    env = {
        "OPENAI_BASE_URL": f"{_GATE}/v1",
        "OPENAI_API_KEY": _NO_KEY,
        "ANTHROPIC_BASE_URL": _GATE,
        "ANTHROPIC_API_KEY": _NO_KEY,
    }
    egress = (spec.get("network") or {}).get("egress") or {}
    if egress.get("allow") or egress.get("default") == "Allow":
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            env |= {name: _GATE, name.lower(): _GATE}
        env |= {"NO_PROXY": _NO_PROXY, "no_proxy": _NO_PROXY}
    return env


def _traceparent(attempt: Attempt) -> str:
    """W3C trace context: one trace a run, one span an attempt."""
    trace = hashlib.sha256(attempt.run_id.encode()).hexdigest()[:32]
    span = hashlib.sha256(f"{attempt.run_id}/{attempt.number}".encode()).hexdigest()[:16]
    return f"00-{trace}-{span}-01"


def _from_source(
    metadata: Mapping[str, Any],
    source: Mapping[str, Any],
    found: references.Found,
    where: str,
    problems: list[Problem],
) -> str | None:
    """The value, or None: left out, or told among the problems."""
    if "fieldRef" in source:
        return _field(metadata, source["fieldRef"]["fieldPath"], where, problems)
    secret = "secretKeyRef" in source
    ref = source["secretKeyRef"] if secret else source["configMapKeyRef"]
    kind, objects = ("Secret", found.secrets) if secret else ("ConfigMap", found.config_maps)
    held = objects.get(ref["name"])
    content = _content(held) if held is not None else {}
    if ref["key"] not in content:
        if not ref.get("optional"):
            what = f'has no key "{ref["key"]}"' if held is not None else "does not exist"
            problems.append(Problem(CONFIG_ERROR, f'{where}: {kind} "{ref["name"]}" {what}'))
        return None
    try:
        return content[ref["key"]].decode()
    except UnicodeDecodeError:
        told = f'{where}: key "{ref["key"]}" of {kind} "{ref["name"]}" is not text'
        problems.append(Problem(CONFIG_ERROR, told))
        return None


def _missing_secrets(spec: Mapping[str, Any], found: references.Found) -> Iterator[Problem]:
    """Of those the gate would inject: better known now than at the first request."""
    for at, one in enumerate(spec.get("secrets") or ()):
        held = found.secrets.get(one["name"])
        if held is None:
            yield Problem(CONFIG_ERROR, f'secrets[{at}]: Secret "{one["name"]}" does not exist')
        elif one["key"] not in _content(held):
            yield Problem(CONFIG_ERROR, f'secrets[{at}]: Secret "{one["name"]}" has no key "{one["key"]}"')


def pull_entries(
    spec: Mapping[str, Any], found: references.Found, problems: list[Problem]
) -> list[logins.Entry]:
    """Who may ask registries for its image."""
    secrets = {name: _content(found.secrets[name]) for name in logins.names(spec) if name in found.secrets}
    return logins.entries(spec, secrets, problems)


def _field(metadata: Mapping[str, Any], path: str, where: str, problems: list[Problem]) -> str | None:
    match = _FIELD.fullmatch(path)
    if match is None:
        problems.append(Problem(CONFIG_ERROR, f"{where}: there is no field {path}"))
        return None
    if match[1]:
        return str(metadata.get(match[1], ""))
    return str((metadata.get(match[2]) or {}).get(match[3], ""))


def _content(held: Mapping[str, Any]) -> dict[str, bytes]:
    """The keys of a Secret or a ConfigMap, as bytes. A value that is not base64 is left out."""
    content = {key: str(text).encode() for key, text in (held.get("stringData") or {}).items()}
    for key, value in (held.get("data") or {}).items():
        if held.get("kind") == "ConfigMap":
            content.setdefault(key, str(value).encode())
            continue
        content.setdefault(key, _decoded(value))
    for key, value in (held.get("binaryData") or {}).items():
        content.setdefault(key, _decoded(value))
    return content


def _decoded(value: Any) -> bytes:
    try:
        return base64.b64decode(str(value), validate=True)
    except binascii.Error:
        return b""


def _files(held: Mapping[str, Any]) -> dict[str, str]:
    return {key: base64.b64encode(data).decode() for key, data in _content(held).items()}


def _source(
    spec: Mapping[str, Any], found: references.Found, attempt: Attempt, problems: list[Problem]
) -> Iterator[boxes.Mount]:
    source = spec.get("source")
    if not source:
        return
    if "inline" in source:
        texts: Mapping[str, str] = source["inline"].get("files") or {}
        files = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
        yield boxes.Mount("files", SOURCE, files=files)
    elif "configMapRef" in source:
        name = source["configMapRef"]["name"]
        held = found.config_maps.get(name)
        if held is None:
            problems.append(Problem(CONFIG_ERROR, f'source: ConfigMap "{name}" does not exist'))
        else:
            yield boxes.Mount("files", SOURCE, files=_files(held))
    elif attempt.source_path:
        yield boxes.Mount("bind", SOURCE, source=attempt.source_path)


def _volumes(
    spec: Mapping[str, Any], found: references.Found, problems: list[Problem]
) -> Iterator[boxes.Mount]:
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    for mount in spec.get("volumeMounts") or ():
        volume, target = volumes.get(mount["name"]), mount["mountPath"]
        read_only = bool(mount.get("readOnly"))
        if volume is None:
            told = f'volumeMounts {target}: there is no volume "{mount["name"]}"'
            problems.append(Problem(CONFIG_ERROR, told))
        elif "emptyDir" in volume:
            size = (volume["emptyDir"] or {}).get("sizeLimit", "64Mi")
            limit = _quantity(size, f"volume {volume['name']} sizeLimit", problems)
            yield boxes.Mount("tmpfs", target, read_only=read_only, size_bytes=limit)
        elif "hostPath" in volume:
            yield boxes.Mount("bind", target, source=volume["hostPath"]["path"], read_only=read_only)
        else:
            secret = "secret" in volume
            kind = "Secret" if secret else "ConfigMap"
            name = volume["secret"]["secretName"] if secret else volume["configMap"]["name"]
            held = (found.secrets if secret else found.config_maps).get(name)
            if held is None:
                told = f'volume {volume["name"]}: {kind} "{name}" does not exist'
                problems.append(Problem(CONFIG_ERROR, told))
            else:
                yield boxes.Mount("files", target, files=_files(held), mode=0o400 if secret else 0o444)


def _limits(spec: Mapping[str, Any], runtime: Mapping[str, Any], problems: list[Problem]) -> boxes.Limits:
    defaults = ((runtime.get("defaults") or {}).get("resources") or {}).get("limits") or {}
    asked = {**defaults, **((spec.get("resources") or {}).get("limits") or {})}

    def size(key: str) -> int | None:
        return None if key not in asked else _quantity(asked[key], f"resources.limits.{key}", problems)

    cpu: int | None = None
    if "cpu" in asked:
        try:
            cpu = quantities.parse_cpu(asked["cpu"])
        except errors.Invalid as error:
            problems.append(Problem(CONFIG_ERROR, f"resources.limits.cpu: {error.message}"))
    return boxes.Limits(
        cpu_weight=(spec.get("resources") or {}).get("weight") or boxes.Limits().cpu_weight,
        cpu_millis=cpu,
        memory_bytes=size("memory"),
        pids=asked.get("pids"),
        open_files=asked.get("open-files"),
        storage_bytes=size("ephemeral-storage"),
    )


def _log_limits(spec: Mapping[str, Any], problems: list[Problem]) -> boxes.LogLimits:
    logs, usual = spec.get("logs") or {}, boxes.LogLimits()
    return boxes.LogLimits(
        max_bytes=_quantity(logs.get("maxSize", usual.max_bytes), "logs.maxSize", problems),
        max_files=logs.get("maxFiles", usual.max_files),
        bytes_per_second=_quantity(logs.get("maxRate", usual.bytes_per_second), "logs.maxRate", problems),
    )


def _quantity(value: str | int, where: str, problems: list[Problem]) -> int:
    try:
        return quantities.parse_quantity(value)
    except errors.Invalid as error:
        problems.append(Problem(CONFIG_ERROR, f"{where}: {error.message}"))
        return 0
