"""What `approve` and `deny` share: the same answer to each Approval named."""

from typing import Annotated, Any

import typer

from agentk.api import errors, kinds
from agentk.cli import connect, options, show, telling, usage
from agentk.client import client

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME…]", help="Names of Approvals.", show_default=False)
]
Remember = Annotated[
    bool,
    typer.Option("--remember", help="Answer the same call of this agent so from now on, without asking."),
]
Match = Annotated[
    list[str] | None,
    typer.Option(
        "--match",
        metavar="NAME=GLOB",
        help="With --remember: calls like it too, whose argument NAME fits and whose others are the same. Of a program "
        "(code, command) no * stands for what begins another, such as ';' or a new line. Repeatable.",
    ),
]
_AGENT = "agentk.dev/agent"  # label of an Approval: who asks
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Told to the agent, and kept.")]


def said(remember: bool, match: list[str] | None, reason: str) -> dict[str, Any]:
    """What is sent. Raises Usage."""
    globs = dict(_pair(word) for word in match or [])
    if globs and not remember:
        raise usage.Usage("--match goes with --remember", hint="say --remember --match code='ls *'")
    return {"remember": remember, "reason": reason} | ({"match": globs} if globs else {})


def _pair(word: str) -> tuple[str, str]:
    name, _, glob = word.partition("=")
    if not name or not glob:
        raise usage.Usage(f"{word!r} is not NAME=GLOB", hint="for example argv='git log *'")
    return name, glob


def each(names: list[str] | None, labels: str, namespace: str, verb: str, body: dict[str, Any]) -> int:
    """Answer every Approval meant; one that fails keeps no other from it."""
    where = options.namespace(namespace)
    chosen = [_name(word) for word in names or []]
    if bool(chosen) == bool(labels):
        raise usage.Usage("say which ones", hint=f"agentk {verb} NAME…, or -l LABELS; agentk get approvals")
    api = connect.connect()
    if labels:
        found = api.list(client.Selection(kinds.APPROVAL, where, labels)).items
        pending = [one for one in found if (one.get("status") or {}).get("phase", "Pending") == "Pending"]
        chosen = [one["metadata"]["name"] for one in pending]
        if not chosen:
            show.say(f"No pending approvals found in {where} namespace.")
    failed = False
    for name in chosen:
        try:
            made = api.request("POST", kinds.APPROVAL.path(where, name, verb), body=body)
        except (errors.NotFound, errors.Conflict, errors.Invalid) as error:
            failed = True
            if isinstance(error, errors.NotFound) and _asks(api, where, name):
                error.hint = (
                    f"{name} is an agent: agentk get approvals -l {_AGENT}={name}  # shows what it asks"
                )
            telling.error(error)
            continue
        done = "answered" if verb == "answer" else made["status"]["phase"].lower()
        print(f"approval.agentk.dev/{name} {done}")
        if verb != "deny" and not made["status"].get("waiting"):
            until = made["spec"]["deadline"]
            show.say(f"nobody waits for it now: the same call, made again until {until}, is let through")
    return 1 if failed else 0


def _asks(api: client.Client, namespace: str, agent: str) -> bool:
    """Whether there is an Approval of an agent of that name, which people type for it."""
    try:
        return bool(api.list(client.Selection(kinds.APPROVAL, namespace, f"{_AGENT}={agent}")).items)
    except errors.AgentkError:
        return False  # what was said before it is enough


def _name(word: str) -> str:
    kind, slash, name = word.rpartition("/")
    if slash and kinds.resource(kind) is not kinds.APPROVAL:
        raise usage.Usage(f"{word} is not an approval", hint="agentk get approvals  # shows those there are")
    if not name:
        raise usage.Usage(f"{word!r} names no approval")
    return name
