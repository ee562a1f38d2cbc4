"""The Tasks that a command line means: of an Agent, of files, or of a Schedule; one, or one for each input."""

import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentk.api import errors, kinds, manifest, objects, taskspecs
from agentk.cli import connect, manifests, options, sending, show, telling, usage
from agentk.client import client

_MOST_BYTES = 64 * 1024 * 1024  # of a file of inputs
_NAME_LETTERS = 40


@dataclass(frozen=True)
class Origin:
    """Who says what is done: exactly one of them."""

    agent: str = ""
    files: tuple[str, ...] = ()
    schedule: str = ""


def inputs(given: str | None, each: str, as_json: bool) -> list[Any] | None:
    """What the Tasks are given; None when nothing was said. Raises Usage."""
    if given is not None and each:
        raise usage.Usage("--input and --each do not go together")
    if as_json and given is None and not each:
        raise usage.Usage("--json says what --input and --each are", hint="add one of them")
    if given is not None:
        return [_read(given, as_json, "--input")]
    if not each:
        return None
    lines = [line for line in _text(each).splitlines() if line.strip()]
    if not lines:
        raise usage.Usage(f"--each {each}: there is no line in it")
    return [_read(line, as_json, f"{each}, line {at}") for at, line in enumerate(lines, 1)]


def tasks(
    api: client.Client,
    origin: Origin,
    where: str,
    namespace_option: str,
    name: str,
    own: dict[str, Any],
    given: list[Any] | None,
) -> list[manifests.Wanted]:
    """Ready to be sent. `own`: fields of the spec that the command line says itself; None for what it does not."""
    own = {key: value for key, value in own.items() if value is not None}
    if bool(origin.agent) + bool(origin.files) + bool(origin.schedule) != 1:
        raise usage.Usage("say who is to do it", hint="AGENT, -f FILE or --from schedule/NAME, one of them")
    if origin.files:
        based = manifests.read(origin.files, False, namespace_option, where)
        if any(one.kind is not kinds.TASK for one in based):
            raise usage.Usage("task run takes files of Tasks", hint="agentk apply takes everything")
        if (given or name) and len(based) > 1:
            raise usage.Usage(f"an input or a name is for one Task, and there are {len(based)}")
        if name:
            based = [_named(based[0], name)]
    else:
        if origin.agent:
            api.get(
                kinds.AGENT, where, options.agent_names([origin.agent])[0]
            )  # raises the daemon's own NotFound
        obj = _of_agent(origin.agent) if origin.agent else _of_schedule(api, where, origin.schedule)
        obj["metadata"]["name"] = name or _fresh(obj["metadata"]["name"])
        based = [manifests.resolve(manifest.Manifest(obj, "command line"), namespace_option, where)]
    based = [_with(one, own) for one in based]
    if given is None:
        return based
    if len(given) == 1:
        return [_with(based[0], {"input": given[0]})]
    batch = {taskspecs.BATCH: secrets.token_hex(4)}
    width = len(str(len(given)))
    return [
        _with(_named(based[0], f"{based[0].name}-{at:0{width}}"), {"input": one}, batch)
        for at, one in enumerate(given, 1)
    ]


def send(api: client.Client, wanted: Sequence[manifests.Wanted], origin: Origin) -> list[show.Object]:
    """Those that were taken; of the others it is told why not."""
    if origin.schedule:  # its sources were packed when it was applied, and are not here
        return [api.apply(one.kind, one.namespace, one.obj).obj for one in wanted]
    done = []
    for result in sending.Sender(connect.connect).send(wanted):
        if isinstance(result, errors.AgentkError):
            telling.error(result)
        else:
            done.append(result.obj)
    return done


def _of_agent(word: str) -> dict[str, Any]:
    (name,) = options.agent_names([word])
    spec: dict[str, Any] = {"agentRef": {"name": name}}
    return {
        "apiVersion": kinds.API_VERSION,
        "kind": kinds.TASK.kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def _of_schedule(api: client.Client, where: str, word: str) -> dict[str, Any]:
    """As it makes them itself, and among those it keeps."""
    kind, slash, name = word.rpartition("/")
    if (slash and kinds.resource(kind) is not kinds.SCHEDULE) or not name:
        raise usage.Usage(f"--from {word}: not a schedule", hint="--from schedule/NAME")
    found = api.get(kinds.SCHEDULE, where, name)
    template = found["spec"]["taskTemplate"]
    about = template.get("metadata") or {}
    return {
        "apiVersion": kinds.API_VERSION,
        "kind": kinds.TASK.kind,
        "metadata": {
            "name": name,
            "namespace": found["metadata"]["namespace"],
            "labels": {**(about.get("labels") or {}), taskspecs.SCHEDULE: name[:63].rstrip("-.")},
            "annotations": {**(about.get("annotations") or {}), taskspecs.SCHEDULED_AT: "by hand"},
            "ownerReferences": [objects.owner_reference(found)],
        },
        "spec": template["spec"],
    }


def _with(
    one: manifests.Wanted, spec: dict[str, Any], labels: dict[str, str] | None = None
) -> manifests.Wanted:
    obj = one.obj
    metadata = {**obj["metadata"]}
    if labels:
        metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    made = {**obj, "metadata": metadata, "spec": {**(obj.get("spec") or {}), **spec}}
    return replace(one, manifest=replace(one.manifest, obj=made))


def _named(one: manifests.Wanted, name: str) -> manifests.Wanted:
    made = {**one.obj, "metadata": {**one.obj["metadata"], "name": name}}
    return replace(one, manifest=replace(one.manifest, obj=made), name=name)


def _fresh(name: str) -> str:
    return f"{name[:_NAME_LETTERS].rstrip('-.')}-{secrets.token_hex(3)}"


def _read(text: str, as_json: bool, where: str) -> Any:
    if not as_json:
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise usage.Usage(f"{where} is no JSON: {error}") from None


def _text(file: str) -> str:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with open(file, "rb") as opened:
                data = opened.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise usage.Usage(f"--each {file}: it is over 64 MiB")
        return data.decode()
    except UnicodeDecodeError:
        raise usage.Usage(f"--each {file}: it is not text") from None
    except OSError as error:
        raise usage.Usage(f"--each {file}: {error.strerror}") from None
