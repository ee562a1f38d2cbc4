"""`agentk logs`: what agents wrote to stdout and stderr; several at once with their names before each line."""

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from agentk.api import errors, kinds
from agentk.cli import connect, options, show, starting, telling, usage
from agentk.client import client, following

app = typer.Typer(**options.APP)

_MOST = 64  # followed at once: each is a thread here and a stream in the daemon
_SELECTED_TAIL = "10"  # kubectl's: of many agents the last lines are what people want to see


@dataclass(frozen=True)
class _How:
    query: Mapping[str, str]
    follow: bool
    timestamps: bool
    prefix: bool


@app.command()
def logs(
    agents: options.SomeAgents = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with every line until it has ended.")
    ] = False,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Not older than it, for example 10m.")
    ] = "",
    tail: Annotated[
        int,
        typer.Option(
            "--tail",
            metavar="LINES",
            help="The last ones; -1 is all. With -l the default is 10.",
            show_default=False,
        ),
    ] = -2,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="Of the attempt before.")] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="With the time of each line.")] = False,
    labels: options.Labels = "",
    prefix: Annotated[
        bool | None, typer.Option("--prefix/--no-prefix", help="With the agent's name; usual for several.")
    ] = None,
    namespace: options.Namespace = "",
) -> int:
    """Print what agents wrote.

    Examples:

    \b
      agentk logs triage
      agentk logs -f triage --tail 20
      agentk logs triage --previous
      agentk logs -f -l tier=web --since 10m --timestamps
    """
    where, names = options.namespace(namespace), options.agent_names(agents or [])
    if bool(names) == bool(labels):
        raise usage.Usage("say whose logs", hint="AGENT… or -l LABELS, one of the two")
    api = connect.connect()
    if labels:
        found = api.list(client.Selection(kinds.AGENT, where, labels)).items
        names = [obj["metadata"]["name"] for obj in found]
        if not names:
            show.say(f"No resources found in {where} namespace.")
    if follow and len(names) > _MOST:
        raise usage.Usage(
            f"{len(names)} agents are too many to follow at once", hint=f"at most {_MOST}; narrow -l"
        )
    query = _query(since, tail, previous, bool(labels))
    how = _How(query, follow, timestamps, len(names) > 1 if prefix is None else prefix)
    if follow and len(names) > 1:
        return _together(where, names, how)
    failed = [name for name in names if not _one(api, where, name, how, len(names) > 1)]
    return 1 if failed else 0


def _query(since: str, tail: int, previous: bool, selected: bool) -> dict[str, str]:
    query = {"previous": "true"} if previous else {}
    if (seconds := options.seconds(since, "--since")) is not None:
        query["sinceSeconds"] = str(max(1, seconds))
    if tail >= 0:
        query["tailLines"] = str(tail)
    elif tail == -2 and selected and not since:
        query["tailLines"] = _SELECTED_TAIL
    return query


def _one(api: client.Client, namespace: str, name: str, how: _How, several: bool) -> bool:
    """Print one agent's log. With several, one that has none is told and does not stop the others."""
    try:
        for chunk in _text(api, namespace, name, how):
            _write(chunk)
    except (errors.NotFound, errors.BadRequest) as error:
        if not several:
            raise
        telling.error(error)
        return False
    return True


def _text(api: client.Client, namespace: str, name: str, how: _How) -> Iterator[bytes]:
    before = f"[agent/{name}] ".encode() if how.prefix else b""
    if how.follow:
        selection = client.Selection(kinds.AGENT, namespace, "", f"metadata.name={name}")
        with starting.Starting(selection) as waited:
            for line in following.lines(api, namespace, name, how.query, how.timestamps):
                waited.over.set()
                yield before + line
        return
    query = {**how.query, **({"timestamps": "true"} if how.timestamps else {})}
    response = api.logs(namespace, name, query)
    for piece in response.lines() if how.prefix else response.chunks():
        yield before + piece


def _together(namespace: str, names: Sequence[str], how: _How) -> int:
    """Follow several, a thread each; lines are written whole."""
    problems: list[errors.AgentkError] = []
    pen = threading.Lock()

    def follow(name: str) -> None:
        try:
            for line in _text(connect.connect(), namespace, name, how):
                with pen:
                    _write(line if line.endswith(b"\n") else line + b"\n")
        except errors.AgentkError as error:
            problems.append(error)
        except BrokenPipeError:
            pass  # who reads has enough: the others find out by themselves

    threads = [
        threading.Thread(target=follow, args=(name,), name=f"log of {name}", daemon=True) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in problems:
        telling.error(error)
    return 1 if problems else 0


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
