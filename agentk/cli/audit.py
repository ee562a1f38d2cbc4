"""`agentk audit`: what an agent did to the world, from the journal; and the proof that nobody changed the journal."""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from agentk.api import errors, kinds
from agentk.cli import amounts, columns, connect, options, show, usage
from agentk.client import client

app = typer.Typer(**options.APP)

_PAGE = 1000
_VERIFY_SECONDS = 3600.0  # a journal of ten million records takes minutes
_HEADERS = ("Time", "Call", "About", "Status", "Rule", "Tokens", "Cost", "Took")
_WIDE = ("Record", "Effect", "Attempt", "Dialect", "Key", "Hash")


_Since = Annotated[str, typer.Option("--since", metavar="TIME", help="Not older than it, for example 10m.")]
_Limit = Annotated[int, typer.Option("--limit", metavar="CALLS", min=0, help="The last ones; 0 is all.")]
_Unknown = Annotated[
    bool, typer.Option("--unknown", help="Only calls whose outcome nobody knows, after a crash.")
]
_Uid = Annotated[str, typer.Option("--uid", metavar="UID", help="Of one agent, when several bore the name.")]
_Head = Annotated[
    str, typer.Option("--head", metavar="FILE", help="With verify: what 'audit head' printed must be in it.")
]
_Words = Annotated[
    list[str],
    typer.Argument(metavar="AGENT | verify | head | erase EFFECT", help="Whose calls.", show_default=False),
]


@app.command()
def audit(
    words: _Words,
    since: _Since = "",
    limit: _Limit = 100,
    unknown: _Unknown = False,
    run: Annotated[str, typer.Option("--run", metavar="ID", help="Only of one run.")] = "",
    uid: _Uid = "",
    head: _Head = "",
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="With erase: why, for the record.")
    ] = "",
    namespace: options.Namespace = "",
    output: options.Output = "",
    no_headers: options.NoHeaders = False,
) -> int:
    """Print what an agent did, oldest first: every call, the rule that decided, what it used, how it ended.

    With -o json also what was asked and answered, secrets taken out. Works for agents that are gone.

    verify proves that the journal of all namespaces is what was written: it ends with 1 and names the first record
    that was changed, dropped, moved or cut off. head prints the newest sealed head: keep it elsewhere.

    erase takes away for good what was asked and answered in one call (-o wide tells its Effect); that it was made
    stays on record.

    An agent called verify, head or erase is agent/verify.

    Examples:

    \b
      agentk audit triage
      agentk audit triage --since 1h -o json
      agentk audit triage --unknown
      agentk audit head > head.json
      agentk audit verify --head head.json
      agentk audit erase 6fd1c2a09b7e4d55 --reason "a customer asked"
    """
    form = show.parse(output, ("json", "yaml", "wide"))
    if words[0] == "erase" and len(words) == 2:
        return _erase(words[1], reason)
    if len(words) != 1 or words == ["erase"]:
        raise usage.Usage("name one agent, verify, head or erase EFFECT", hint="agentk audit --help")
    if reason:
        raise usage.Usage("--reason goes with erase", hint="agentk audit erase EFFECT --reason TEXT")
    if head and words != ["verify"]:
        raise usage.Usage("--head goes with verify", hint="agentk audit verify --head FILE")
    if words == ["verify"]:
        return _verify(form, head)
    if words == ["head"]:
        show.write(show.json_text(connect.connect().request("GET", "/agentk/v1/audit/head")))
        return 0
    query = {"unknown": "true"} if unknown else {}
    query |= {key: value for key, value in (("run", run), ("uid", uid)) if value}
    if (seconds := options.seconds(since, "--since")) is not None:
        query["since"] = (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    name, where = options.agent_names(words)[0], options.namespace(namespace)
    return _print(name, where, query, limit, form, not no_headers)


def _print(
    name: str, namespace: str, query: dict[str, str], limit: int, form: show.Format, headers: bool
) -> int:
    bodies = {"bodies": "true"} if form.name in ("json", "yaml") else {}
    newest_first = list(_calls(connect.connect(), namespace, name, query | bodies, limit))
    found = newest_first[::-1]
    if bodies:
        content = {"kind": "CallList", "items": found}
        show.write(show.document(content, form))
    elif found:
        show.write(text(found, form.name == "wide", headers))
    else:
        show.say(f"No calls of agent/{name} in {namespace} namespace.")
    return 0


def text(calls: Sequence[dict[str, Any]], wide: bool = False, headers: bool = True) -> str:
    """A line a call; why it failed, when one did, comes last."""
    failed = any(one.get("why") for one in calls)
    rows = [
        [*_row(one), *(_wide(one) if wide else ()), *([one.get("why") or "-"] if failed else ())]
        for one in calls
    ]
    names = [*_HEADERS, *(_WIDE if wide else ()), *(["Why"] if failed else ())]
    return columns.draw(names, rows, show=headers)


def _row(one: dict[str, Any]) -> list[str]:
    used, meta = one.get("used") or {}, one.get("meta") or {}
    rule = str(meta.get("rule") or "-")
    if meta.get("approvedBy"):
        rule += f" (approved by {meta['approvedBy']})"
    return [
        one["time"][:23].replace("T", " "),
        one["method"],
        one.get("about") or "-",
        one["status"],
        rule,
        amounts.number(used.get("tokens")),
        amounts.usd(used.get("costUsd")),
        amounts.seconds(one.get("durationSeconds")),
    ]


def _wide(one: dict[str, Any]) -> list[str]:
    meta = one.get("meta") or {}
    shown = (one["record"], one["effect"], one["attempt"], meta.get("dialect"), one["key"], one["hash"][:16])
    return [str(value or "-") for value in shown]


def _calls(
    api: client.Client, namespace: str, name: str, query: dict[str, str], limit: int
) -> Iterator[dict[str, Any]]:
    """Newest first, a page at a time."""
    path, left = kinds.AGENT.path(namespace, name, "audit"), limit
    while True:
        asked = query | {"limit": str(min(left, _PAGE) if limit else _PAGE)}
        page = api.request("GET", path, query=asked)
        yield from page["items"]
        left -= len(page["items"])
        cont = page["metadata"].get("continue")
        if not cont or (limit and left <= 0):
            return
        query = query | {"continue": cont}


def _verify(form: show.Format, head: str) -> int:
    body = {"head": _kept(head)} if head else {}
    told = connect.connect(timeout_seconds=_VERIFY_SECONDS).request(
        "POST", "/agentk/v1/audit/verify", body=body
    )
    if form.name in ("json", "yaml"):
        show.write(show.document(told, form))
        return 0 if told["ok"] else 1
    for note in told["notes"]:
        show.say(f"note: {note}")
    for bad in [*told["gaps"], *([told["bad"]] if told["bad"] else [])]:
        print(f"record {bad['record']}: {columns.safe(bad['reason'])}")
    if told["ok"]:
        print(f"ok: {told['records']} records, anchored through record {told['anchoredThrough']}")
    return 0 if told["ok"] else 1


def _erase(what: str, reason: str) -> int:
    body = {"what": what, "reason": reason}
    told = connect.connect().request("POST", "/agentk/v1/audit/erase", body=body)
    show.write(f"{columns.safe(what)}: {told['erased']} bodies erased\n")
    return 0


def _kept(path: str) -> dict[str, Any]:
    """A head that was exported. Raises Usage."""
    try:
        if path == "-":
            told = json.load(sys.stdin)
        else:
            with open(path, encoding="utf-8") as file:
                told = json.load(file)
    except OSError as error:
        raise errors.NotFound(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        told = None
    if not isinstance(told, dict) or not {"journal", "record", "hash"} <= set(told):
        raise usage.Usage(f"{path} is no head", hint="it is what 'agentk audit head' prints")
    return told
