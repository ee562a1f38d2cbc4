"""Approvals as objects: what a person is shown of a call, and what is told of the answer. Pure.

Secrets are taken out before anything is kept; what is shown is bounded, and what is left out is said. Nothing of a
guest's is ever more than text here.
"""

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

from agentk.api import errors, kinds, quantities
from agentk.broker import approving_likeness as likeness
from agentk.broker.approving_words import Answer, Asking, Clock, Identity, Object, Terms, phase
from agentk.broker.previews import File, Preview

AGENT = "agentk.dev/agent"  # label: the name of who asks, where it is short enough for one
SHOWN_BYTES = 64 * 1024  # of the arguments, as JSON
_TEXT_MIN = 256  # letters that are left of each text when there is too much of them all
_DEPTH = 32
_ITEMS = (200, 20, 5)  # of each list, as far as that fits
_CUT_CHARS = 48  # of what says that something is left out
_LINE = 160
_SUMMARY = 400
_LABEL_MAX = 63


def made(
    asking: Asking, name: str, identity: Identity, preview: Preview, terms: Terms, clock: Clock,
    redact: Callable[[bytes], bytes],
) -> Object:  # fmt: skip
    """The object, as it is created."""
    guest, at = asking.call.guest, clock.now() + terms.timeout_seconds
    arguments, hidden = shown(redact(asking.body))
    spec: Object = {
        "agentRef": {"name": guest.name, "uid": guest.uid},
        "attempt": guest.attempt,
        "run": guest.run_id,
        "method": asking.method.name,
        "dialect": asking.call.form or asking.call.dialect,
        "summary": summary(asking.method.name, arguments),
        "arguments": arguments,
        "digest": identity.digest,
        "slot": identity.slot,
        "parts": [{"name": name, "digest": digest} for name, digest in identity.parts.items()],
        "rule": asking.verdict.rule,
        "policy": guest.policy_name,
        "reason": redact(asking.verdict.reason.encode()).decode("utf-8", "replace"),
        "deadline": clock.text(at),
        "default": terms.default,
        "retention": quantities.format_duration(terms.retention_seconds),
    }
    if clock.boot_id:
        spec["clock"] = {"bootID": clock.boot_id, "seconds": f"{at - clock.began:.3f}"}
    if hidden:
        spec["hiddenBytes"] = hidden
    if asking.method.asks:
        given = {key: arguments[key] for key in ("choices", "default") if key in arguments}
        spec["question"] = {"text": str(arguments.get("question", "")), **given}
    if preview.diff:
        spec["diff"] = redact(preview.diff.encode()).decode("utf-8", "replace")
    if preview.files:
        spec["files"] = [_file(one) for one in preview.files]
    labels = {AGENT: guest.name} if len(guest.name) <= _LABEL_MAX else {}
    owner = {"apiVersion": kinds.API_VERSION, "kind": "Agent", "name": guest.name, "uid": guest.uid}
    metadata = {"name": name, "namespace": guest.namespace, "labels": labels, "ownerReferences": [owner]}
    return {
        "apiVersion": kinds.API_VERSION,
        "kind": kinds.APPROVAL.kind,
        "metadata": metadata,
        "spec": clean(spec),
    }


# What people are shown


def shown(body: bytes) -> tuple[Object, int]:
    """Arguments as an object, and how many bytes of them had to be left out.

    Long texts lose their middle, all of them at the same length, so that none is hidden behind another.
    """
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):  # a secret that was taken out took a quote with it
        whole = {"text": body.decode("utf-8", "replace")}
    whole = whole if isinstance(whole, dict) else {"value": whole}
    for items in _ITEMS:
        lengths: list[int] = []
        left = SHOWN_BYTES - _measured(whole, items, _DEPTH, lengths)
        level = _level(lengths, left)
        for most in (level, level // 4, level // 16):  # letters may take more than a byte
            if most < min(_TEXT_MIN, max(lengths, default=0)):
                break
            kept: Object = _cut(whole, most, items, _DEPTH)
            size = len(json.dumps(kept, ensure_ascii=False).encode("utf-8", "replace"))
            if size <= SHOWN_BYTES:
                return kept, max(0, len(body) - size) if kept != whole else 0
    return {}, len(body)


def _measured(value: Any, items: int, depth: int, lengths: list[int]) -> int:
    """What all takes but for its texts, whose lengths are noted; it looks no further than people do."""
    if isinstance(value, str):
        lengths.append(len(value))
        return 4
    if not isinstance(value, dict | list) or not depth:
        return 24 if not isinstance(value, int) else value.bit_length() // 3 + 8
    size, held = 64, value.values() if isinstance(value, dict) else value
    if isinstance(value, dict):
        size += sum(len(key) + 4 for key in itertools.islice(value, items))
    for one in itertools.islice(held, items):
        if size > SHOWN_BYTES:
            break
        size += _measured(one, items, depth - 1, lengths)
    return size


def _level(lengths: list[int], left: int) -> int:
    """The length that all may have so that together they have no more than is left; -1 when there is none."""
    at, many = 0, len(lengths)
    for length in sorted(lengths):
        if length * many > left - at:
            return max(-1, (left - at) // many - _CUT_CHARS)
        at, many = at + length, many - 1
    return max(lengths, default=0) if left >= 0 else -1


def _cut(value: Any, most: int, items: int, depth: int) -> Any:
    """Texts with their middle left out where they are longer, and no more of lists and levels than people read."""
    if isinstance(value, str):
        if len(value) <= most:
            return value
        half = most // 2
        return f"{value[:half]}\n[… {len(value) - 2 * half} letters are not shown …]\n{value[-half:]}"
    if not isinstance(value, dict | list):
        return value
    if not depth:
        return "[…]"
    more = len(value) - items
    if isinstance(value, list):
        kept = [_cut(one, most, items, depth - 1) for one in value[:items]]
        return kept + ([f"[… {more} more …]"] if more > 0 else [])
    left = {key: _cut(one, most, items, depth - 1) for key, one in itertools.islice(value.items(), items)}
    return left | ({"…": f"{more} more"} if more > 0 else {})


def clean(value: Any) -> Any:
    """As an object may hold it: no NUL, no half of a surrogate pair."""
    if isinstance(value, str):
        return value.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [clean(one) for one in value]
    if isinstance(value, dict):
        return {clean(key): clean(one) for key, one in value.items() if one is not None}
    return value


_TELLING = ("question", "code", "url", "path", "to", "name", "prompt", "queue", "key", "message")


def summary(method: str, arguments: Mapping[str, Any]) -> str:
    """The call in a line: `exec: git push origin main`."""
    if isinstance(arguments.get("argv"), list):
        about = " ".join(map(str, arguments["argv"]))
    elif method == "tool.call":
        given = json.dumps(arguments.get("arguments") or {}, ensure_ascii=False)
        about = f"{arguments.get('name', '')} {given}"
    else:
        about = next((str(arguments[key]) for key in _TELLING if arguments.get(key)), "")
        if "url" in arguments and "method" in arguments:
            about = f"{arguments['method']} {about}"
    first, _, more = about.strip().partition("\n")
    line = first[:_LINE] + ("…" if more or len(first) > _LINE else "")
    line = line if line.isprintable() else line.encode("unicode_escape").decode()
    return (f"{method}: {line}" if line else method)[:_SUMMARY]


def _file(one: File) -> Object:
    told: Object = {"path": one.path}
    return told | ({"sha256": one.sha256, "sizeBytes": one.size_bytes} if one.sha256 else {})


# What becomes of one


def status(obj: Mapping[str, Any], now: str, **told: Any) -> Object:
    """The object with more told of it: its conditions follow."""
    had = obj.get("status") or {}
    new: Object = {"phase": "Pending", "waiting": False, "used": False, **had, **told}
    new["observedGeneration"] = obj["metadata"].get("generation", 1)
    before = {one["type"]: one for one in had.get("conditions") or ()}
    new["conditions"] = [_condition(one, before, obj, now) for one in _conditions(obj, new)]
    return {**obj, "status": new}


def answered(obj: Mapping[str, Any], answer: Answer, now: str) -> Object:
    """Raises Conflict when it has been answered."""
    unused = phase(obj) == "Approved" and not (obj.get("status") or {}).get("used")
    if phase(obj) != "Pending" and not (answer.phase == "Expired" and unused):
        raise already(obj)
    if answer.phase == "Approved":
        fit(obj, answer)
    names = [one["name"] for one in obj["spec"].get("parts") or () if one["name"] != likeness.SORT]
    if unknown := [name for name, _ in answer.matching if name not in names]:
        told_of = f"known are {', '.join(sorted(names))[:500]}" if names else "it has too many to tell apart"
        raise errors.Invalid(f'the call has no argument "{unknown[0]}"', hint=told_of, field="match")
    by: Object = {"name": answer.name} | ({} if answer.uid is None else {"uid": answer.uid})
    told: Object = {"phase": answer.phase, "by": by, "at": now}
    if answer.reason:
        told["reason"] = answer.reason
    if answer.remember:
        told["remembered"] = True
    if answer.matching:
        told["matching"] = [{"name": name, "glob": glob} for name, glob in answer.matching]
    if answer.text is not None:
        told["answer"] = answer.text
    return status(obj, now, **told)


def fit(obj: Mapping[str, Any], answer: Answer) -> None:
    """Raises Invalid when a question is to be approved, what is none is to be answered, or the answer is no choice."""
    question, name = obj["spec"].get("question"), obj["metadata"]["name"]
    if question is None and answer.text is not None:
        raise errors.Invalid(f"approval {name} asks nothing", hint=f"agentk approve {name}")
    if question is not None and answer.text is None:
        raise errors.Invalid(f"approval {name} is a question", hint=f"agentk answer {name} --text TEXT")
    choices = (question or {}).get("choices")
    if choices and answer.text not in choices:
        raise errors.Invalid(f"approval {name} takes one of: {', '.join(choices)}", field="text")


def already(obj: Mapping[str, Any]) -> errors.Conflict:
    had = obj.get("status") or {}
    name, who = obj["metadata"]["name"], (had.get("by") or {}).get("name", "")
    return errors.Conflict(
        f"approval {name} is {phase(obj)} already" + (f", by {who} at {had.get('at', '')}" if who else ""),
        hint="an answer stands; delete the Approval to be asked again",
        kind=kinds.APPROVAL.plural,
        name=str(name),
    )


def _conditions(obj: Mapping[str, Any], told: Object) -> list[tuple[str, str, str, str]]:
    is_open, who = told["phase"] == "Pending", (told.get("by") or {}).get("name", "")
    reason = f": {told['reason']}" if told.get("reason") else ""
    sentence = "nobody has answered yet" if is_open else f"{told['phase'].lower()} by {who}{reason}"
    truth = "Unknown" if is_open else "True" if told["phase"] == "Approved" else "False"
    until = f"the agent hung up, and may make the call again until {obj['spec']['deadline']}"
    waits = ("True", "Parked", "") if told["waiting"] else ("False", "NobodyWaits", until if is_open else "")
    return [
        ("Approved", truth, str(told["phase"]), sentence),
        ("Waiting", *waits),
        ("Finished", "False" if is_open else "True", str(told["phase"]), "" if is_open else sentence),
    ]


def _condition(
    one: tuple[str, str, str, str], before: Mapping[str, Any], obj: Mapping[str, Any], now: str
) -> Object:
    type_, truth, reason, message = one
    had = before.get(type_)
    since = had["lastTransitionTime"] if had and had["status"] == truth else now
    generation = obj["metadata"].get("generation", 1)
    return {
        "type": type_,
        "status": truth,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
        "observedGeneration": generation,
    }
