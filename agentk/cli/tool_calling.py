"""Tools called, listed and tried by a person."""

import json
import sys
from typing import Any

from agentk.api import errors, kinds, toolspecs
from agentk.cli import columns, connect, options, show, starting, telling, usage
from agentk.client import client

_BETWEEN = "__"  # of a Tool's name and one of several that it offers, as agents call it
_ARGUMENTS_BYTES = 1024 * 1024

Told = dict[str, Any]


def call(name: str, arguments: str, who: str, timeout: str, namespace: str, output: str) -> int:
    form = show.parse(output, ("json", "yaml"))
    own, inner = _split(name)
    body: Told = {"tool": inner, "arguments": _arguments(arguments)}
    if who:
        body["as"] = options.agent_names([who])[0]
    if (seconds := options.seconds(timeout, "--timeout")) is not None:
        body["timeoutSeconds"] = seconds
    api = connect.connect(timeout_seconds=None)
    with _boxes_of(namespace, own):
        told = api.request("POST", kinds.TOOL.path(namespace, own, "call"), body=body)
    if form.name:
        show.write(show.document(told, form))
    else:
        _write(told)
    return 1 if told["isError"] else 0


def listed(name: str, refresh: bool, namespace: str, output: str) -> int:
    form = show.parse(output, ("json", "yaml"))
    told = _offers(connect.connect(timeout_seconds=None), namespace, name.removeprefix("tool/"), refresh)
    if form.name:
        show.write(show.document({"kind": "ToolOffers", "items": told}, form))
        return 0
    rows = [[one["calledAs"], _line(one["description"])] for one in told]
    show.write(columns.draw(("Name", "Description"), rows))
    return 0


def test(names: list[str], namespace: str) -> int:
    api = connect.connect(timeout_seconds=None)
    failed = False
    for name in names:
        own = name.removeprefix("tool/")
        try:
            failed |= not _tried(api, namespace, own)
        except errors.AgentkError as error:
            failed = True
            telling.error(error)
    return 1 if failed else 0


def _tried(api: client.Client, namespace: str, name: str) -> bool:
    """Whether all of it went well; every step is printed."""
    obj = api.get(kinds.TOOL, namespace, name)
    offered = _offers(api, namespace, name, refresh=True)
    print(f"{name}: offers {len(offered)}")
    well = bool(offered)
    for one in offered:
        why = one["problem"] or (
            "" if one["description"] else "it has no description, and models choose by it"
        )
        print(f"{name}: {columns.safe(one['name'])}: {columns.safe(why) or 'ok'}")
        well = well and not one["problem"]
    for at, example in enumerate(obj["spec"].get("examples") or ()):
        body = {"tool": example.get("tool", ""), "arguments": example.get("arguments") or {}}
        with _boxes_of(namespace, name):
            told = api.request("POST", kinds.TOOL.path(namespace, name, "call"), body=body)
        why = _wrong(example, told)
        print(f"{name}: examples[{at}]: {columns.safe(why) or 'ok'}")
        well = well and not why
    return well


def _wrong(example: Told, told: Told) -> str:
    text = _texts(told)
    if told["isError"] != example.get("isError", False):
        return f"isError is {str(told['isError']).lower()}: {text[:500]}"
    wanted = example.get("contains", "")
    return "" if wanted in text else f"{wanted!r} is not in {text[:500]!r}"


def _offers(api: client.Client, namespace: str, name: str, refresh: bool) -> list[Told]:
    query = {"refresh": "true"} if refresh else {}
    path = kinds.TOOL.path(namespace, name, "offers")
    with _boxes_of(namespace, name):
        told: list[Told] = api.request("GET", path, query=query)["items"]
    return told


def _boxes_of(namespace: str, name: str) -> starting.Starting:
    """A package has to be fetched, perhaps, or an image: whoever waits sees how far that is."""
    return starting.Starting(
        client.Selection(kinds.AGENT, namespace, f"{toolspecs.LABEL}={toolspecs.label(name)}")
    )


def _write(told: Told) -> None:
    """Texts as they are; of what is no text, what it is."""
    for block in told["content"]:
        if block.get("type") == "text":
            text = str(block.get("text", ""))
            if sys.stdout.isatty():  # a tool's words never drive the terminal
                text = "\n".join(map(columns.safe, text.splitlines()))
            show.write(text if text.endswith("\n") else f"{text}\n")
        else:
            about = block.get("mimeType") or (block.get("resource") or {}).get("mimeType") or "data"
            show.say(f"{block.get('type')}: {columns.safe(str(about))} (-o json has it)")


def _texts(told: Told) -> str:
    return "\n".join(str(one.get("text", "")) for one in told["content"] if one.get("type") == "text")


def _split(name: str) -> tuple[str, str]:
    """NAME, NAME/TOOL, NAME__TOOL or tool/NAME."""
    whole = name.removeprefix("tool/")
    own, slash, inner = whole.partition(
        "/" if "/" in whole else _BETWEEN
    )  # as `tool list` tells it, or a person
    if not own or (slash and not inner):
        raise usage.Usage(f"{name!r} names no tool", hint="agentk tool call NAME or NAME/TOOL")
    return own, inner


def _arguments(text: str) -> Any:
    if text == "-":
        text = sys.stdin.read(_ARGUMENTS_BYTES + 1)
    try:
        given = json.loads(text or "{}")
    except ValueError as error:
        raise usage.Usage(f"--args: {error}", hint="""--args '{"name": "value"}'""") from None
    if not isinstance(given, dict):
        raise usage.Usage("--args: expected an object", hint="""--args '{"name": "value"}'""")
    return given


def _line(text: str) -> str:
    return text.strip().partition("\n")[0]
