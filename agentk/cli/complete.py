"""What the completion scripts ask: the words that may stand where the cursor is. Starts no daemon, never fails."""

import importlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from agentk.api import errors, kinds
from agentk.cli import connect, main, options
from agentk.client import client

app = typer.Typer(**options.APP)

_KIND_VERBS = frozenset({"get", "describe", "delete", "wait", "explain"})
_HANDS = frozenset({"exec", "attach", "port-forward"})  # of one agent; what follows is not ours to know
_AGENT_VERBS = frozenset({"logs", "kill", "restart", "suspend", "resume", "top", "audit", "trace", "budget"})
_GROUPS = frozenset({"task", "tool", "skill", "daemon", "auth", "mcp", "image", "compat"})
_NAMED: dict[str, kinds.Kind] = {
    **dict.fromkeys(("approve", "deny", "answer"), kinds.APPROVAL),
    **dict.fromkeys(("tool call", "tool list", "tool test", "tool accept"), kinds.TOOL),
    **dict.fromkeys(("skill show", "skill test", "skill rm"), kinds.SKILL),
    **dict.fromkeys(("task get", "task wait", "task cancel", "task logs"), kinds.TASK),
    "task run": kinds.AGENT,
}
_SWITCHES = frozenset({"suspend", "resume"})  # of Schedules too, as KIND/NAME
_OUTPUTS = ("json", "yaml", "name", "wide", "jsonpath=", "custom-columns=")
_OWN_WORDS = {"audit": ("verify", "head"), "budget": ("add",)}
_SECONDS = 2.0


@app.command()
def complete(words: Annotated[list[str] | None, typer.Argument()] = None) -> int:
    """Print the words that may come last."""
    typed = words or [""]
    for word in sorted(set(candidates(typed))):
        if word.startswith(typed[-1]):
            print(word)
    return 0


def candidates(words: Sequence[str]) -> Iterable[str]:
    """What the last of `words` may become; more than fit, the caller narrows."""
    *before, last = words
    if not before:
        return main.NAMES
    verb, previous = before[0], before[-1]
    if verb in _GROUPS and len(before) == 1 and not last.startswith("-"):
        return _words_of(verb)
    if verb == "completion":
        return ("bash", "zsh", "fish")
    if previous in ("-o", "--output"):
        return _OUTPUTS
    if previous in ("-n", "--namespace"):
        return _names(kinds.NAMESPACE, "")
    if previous == "--as":
        return [f"agent/{name}" for name in _names(kinds.AGENT, _namespace(before))]
    if last.startswith("-"):
        return _options(verb)
    namespace = _namespace(before)
    kind = _NAMED.get(verb) or _NAMED.get(" ".join(before[:2]))
    if kind:
        fields = "status.phase=Pending" if kind is kinds.APPROVAL else ""
        return _names(kind, namespace, fields)
    if verb in _SWITCHES and "/" in last:
        return _kinds_and_names((), last, namespace)
    if verb in _AGENT_VERBS:
        own = _OWN_WORDS.get(verb, ()) if len(before) == 1 else ()
        return [*own, *_names(kinds.AGENT, namespace)]
    named = [word for word in before[1:] if not word.startswith("-")]
    if verb in _HANDS:
        return [] if named else [*_names(kinds.AGENT, namespace), *_full_names(last, namespace)]
    if verb == "cp":
        return [f"{name}:/" for name in _names(kinds.AGENT, namespace)]
    if verb in _KIND_VERBS:
        return _kinds_and_names(named, last, namespace)
    return ()


def _full_names(last: str, namespace: str) -> list[str]:
    return [f"agent/{name}" for name in _names(kinds.AGENT, namespace)] if "/" in last else []


def _kinds_and_names(before: Sequence[str], last: str, namespace: str) -> Iterable[str]:
    if "/" in last:
        word = last.partition("/")[0]
        return [f"{word}/{name}" for name in _names(kinds.resource(word), namespace)]
    if not before:
        return [word for kind in kinds.KINDS for word in (kind.plural, *kind.short_names)]
    try:
        return _names(kinds.resource(before[0]), namespace)
    except errors.NotFound:
        return ()


def _names(kind: kinds.Kind, namespace: str, fields: str = "") -> list[str]:
    api = client.Client(connect.here().socket, timeout_seconds=_SECONDS)
    try:
        table = api.table(client.Selection(kind, namespace, "", fields))
    except errors.AgentkError:
        return []
    return [row["object"]["metadata"]["name"] for row in table["rows"]]


def _namespace(words: Sequence[str]) -> str:
    for at, word in enumerate(words[:-1]):
        if word in ("-n", "--namespace"):
            return words[at + 1]
    return options.namespace("")


def _command(verb: str) -> Any:
    """None: there is none of that name."""
    try:
        module: Any = importlib.import_module(f"agentk.cli.{verb.replace('-', '_')}")
    except ModuleNotFoundError:
        return None
    return typer.main.get_command(module.app)


def _words_of(verb: str) -> list[str]:
    return list(getattr(_command(verb), "commands", {}))


def _options(verb: str) -> list[str]:
    """Every option of a verb."""
    command = _command(verb)
    if command is None:
        return []
    params = [param for one in (command, *getattr(command, "commands", {}).values()) for param in one.params]
    options_ = [option for param in params for option in (*param.opts, *param.secondary_opts)]
    return [*(option for option in options_ if option.startswith("-")), "--help"]
