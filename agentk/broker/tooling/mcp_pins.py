"""What a server lists, against what it listed when somebody first looked, or last accepted it. Pure.

A description is read by a model as words of people it trusts, so a changed one never reaches it: in its place stands
that it changed, and a call is refused as ToolDrift. `agentk tool accept NAME` writes the digest of the listing that a
person saw into an annotation; another listing than that one is not accepted by it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentk.api import errors
from agentk.broker.tooling import kinds as words
from agentk.broker.tooling.kinds import Object
from agentk.tools import offers
from agentk.tools.offers import Offered

ACCEPTED = "agentk.dev/accepted"  # annotation of a Tool: digest of the listing that a person accepted
_TOLD_BYTES = 1024
_DRIFT_TOLD = 100


@dataclass(frozen=True)
class Judged:
    """`shown` is what agents may know of, `pins` what is pinned from now on."""

    shown: tuple[Offered, ...]
    pins: Mapping[str, str]
    drift: offers.Drift


def subject(tool: Object) -> str:
    """Digest of what a person wrote about the server: a change of it is an answer to what follows from it."""
    mcp = {key: value for key, value in words.spec(tool)["mcp"].items() if key not in ("pins", "drift")}
    return hashlib.sha256(json.dumps(mcp, sort_keys=True).encode()).hexdigest()


def listing(told: Sequence[Offered]) -> str:
    """Digest of everything that is listed."""
    return digest({one.name: one.digest for one in told})


def digest(pins: Mapping[str, str]) -> str:
    """The same as of the listing that they are of."""
    return hashlib.sha256(json.dumps(sorted(pins.items())).encode()).hexdigest()


def allows(tool: Object) -> bool:
    """Whether a person allows whatever the server lists."""
    return bool(words.spec(tool)["mcp"].get("drift") == "Allow")


def of_manifest(tool: Object) -> Mapping[str, str] | None:
    """Pins that a person wrote, where they count."""
    own = None if allows(tool) else words.spec(tool)["mcp"].get("pins")
    return None if own is None else {str(name): str(digest) for name, digest in own.items()}


def known(tool: Object) -> Mapping[str, str] | None:
    """What is pinned; None: the next listing will be."""
    if (own := of_manifest(tool)) is not None:
        return own
    status = tool.get("status") or {}
    if status.get("pinned") != subject(tool) or "pins" not in status:
        return None
    return {str(name): str(digest) for name, digest in status["pins"].items()}


def judged(tool: Object, told: Sequence[Offered], pinned: Mapping[str, str] | None) -> Judged:
    """A person's `drift: Allow` and acceptance count; pins of the spec are only changed there."""
    now = {one.name: one.digest for one in told}
    accepted = (tool["metadata"].get("annotations") or {}).get(ACCEPTED) == listing(told)
    if pinned is None or allows(tool) or (accepted and of_manifest(tool) is None):
        return Judged(tuple(told), now, offers.Drift())
    drift = offers.drift(pinned, told)
    wrong = {*drift.changed, *drift.added}
    shown = tuple(_instead(tool, one, drift) if one.name in wrong else one for one in told)
    return Judged(shown, dict(pinned), drift)


def refusal(tool: Object, name: str, drift: offers.Drift) -> errors.ToolDrift | None:
    """Why it may not be called."""
    if name not in drift.changed and name not in drift.added:
        return None
    what = (
        "is not what it was when it was pinned"
        if name in drift.changed
        else "was not there when the Tool was pinned"
    )
    return errors.ToolDrift(f'"{name}" of Tool "{words.name(tool)}" {what}', hint=_hint(tool))


def of_status(told: Sequence[Offered], drift: offers.Drift) -> list[dict[str, Any]]:
    """For a Tool's status.drift."""
    now = {one.name: one for one in told}
    found: list[dict[str, Any]] = []
    for change, names in (("Changed", drift.changed), ("Added", drift.added), ("Gone", drift.gone)):
        for name in names:
            entry: dict[str, Any] = {"name": name, "change": change}
            if one := now.get(name):
                entry["digest"] = one.digest
                entry["description"] = one.description.encode()[:_TOLD_BYTES].decode("utf-8", "ignore")
            found.append(entry)
    return found[:_DRIFT_TOLD]


def _instead(tool: Object, one: Offered, drift: offers.Drift) -> Offered:
    what = "changed since" if one.name in drift.changed else "is new since"
    told = f"Cannot be called: it {what} the Tool was pinned, and nobody has looked at it yet. {_hint(tool)}."
    return offers.offered(one.name, told, {"type": "object"})


def _hint(tool: Object) -> str:
    mcp = words.spec(tool)["mcp"]
    if "pins" in mcp:
        return f"a person compares spec.mcp.pins of Tool {words.name(tool)} with its status.drift"
    return f"a person looks at it with: agentk tool accept {words.name(tool)} -n {words.namespace(tool)}"
