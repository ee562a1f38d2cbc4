"""What people mean by `agents`, `ag web`, `agent/web`, `agents,secrets` and `all`."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentk.api import errors, kinds
from agentk.cli import usage


@dataclass(frozen=True)
class Target:
    """One kind, and one name or ("") all of them."""

    kind: kinds.Kind
    name: str = ""

    def __str__(self) -> str:
        """`agent.agentk.dev/web`, as `-o name` prints it."""
        return f"{typed(self.kind)}/{self.name}"


def parse(words: Sequence[str]) -> list[Target]:
    """Targets in the order typed. Raises NotFound for an unknown kind, Usage for a mixture that means nothing."""
    if not words:
        raise usage.Usage("say which kind", hint="for example: agents; agentk api-resources lists them")
    slashed = ["/" in word for word in words]
    if all(slashed):
        return [_slashed(word) for word in words]
    if any(slashed):
        raise usage.Usage(
            "KIND/NAME and plain words do not mix", hint=f"write every one as KIND/NAME: {' '.join(words)}"
        )
    try:
        chosen = [kind for word in words[0].split(",") if word for kind in _kinds(word)]
    except errors.NotFound as error:
        if len(words) == 1 and "did you mean" not in error.hint:
            error.hint = f"KIND/NAME, such as agent/{words[0]}; agentk api-resources lists the kinds"
        raise
    names = words[1:] or [""]
    if not chosen:
        raise usage.Usage(f"{words[0]!r} names no kind")
    return [Target(kind, name) for kind in dict.fromkeys(chosen) for name in names]


def typed(kind: kinds.Kind) -> str:
    """`agent.agentk.dev`; core kinds have no group."""
    return f"{kind.singular}.{kind.group}" if kind.group else kind.singular


def _kinds(word: str) -> list[kinds.Kind]:
    if (
        word == "all"
    ):  # like kubectl's: what runs, not what it reads, nor what nothing brings back once it is deleted
        ours = (kind for kind in kinds.KINDS if kind.namespaced and kind.group == kinds.GROUP)
        return [kind for kind in ours if kind not in (kinds.MEMORY, kinds.CHECKPOINT)]
    return [kinds.resource(word)]


def _slashed(word: str) -> Target:
    kind, _, name = word.partition("/")
    if not kind or not name or "/" in name:
        raise usage.Usage(f"{word!r} is not KIND/NAME")
    return Target(kinds.resource(kind), name)
