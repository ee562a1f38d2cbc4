"""Options that several verbs share, spelt once."""

import os
from typing import Annotated, Any

import typer

from agentk.api import kinds
from agentk.cli import usage

# Plain help: rich would cost 30 ms and its boxes do not survive a pipe.
APP: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["--help", "-h"], "max_content_width": 110},
}

Namespace = Annotated[
    str, typer.Option("--namespace", "-n", metavar="NAME", help="Namespace; AGENTK_NAMESPACE, else default.")
]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")]
Labels = Annotated[
    str,
    typer.Option(
        "--selector", "-l", metavar="LABELS", help="For example app=web,tier!=db or 'env in (a,b)'."
    ),
]
Fields = Annotated[
    str, typer.Option("--field-selector", metavar="FIELDS", help="For example status.phase=Running.")
]
Output = Annotated[
    str,
    typer.Option(
        "--output", "-o", metavar="FORMAT", help="json, yaml, name, wide, jsonpath=… or custom-columns=…."
    ),
]
Document = Annotated[  # of verbs whose lines are not objects
    str, typer.Option("--output", "-o", metavar="FORMAT", help="json or yaml.")
]
Files = Annotated[
    list[str],
    typer.Option("--filename", "-f", metavar="FILE", help="File, directory, or - for stdin; repeatable."),
]
MaybeFiles = Annotated[
    list[str] | None,
    typer.Option("--filename", "-f", metavar="FILE", help="File, directory, or - for stdin; repeatable."),
]
Recursive = Annotated[bool, typer.Option("--recursive", "-R", help="Directories with all below them.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on with every change.")]
NoHeaders = Annotated[bool, typer.Option("--no-headers", help="Without the first line.")]
Timeout = Annotated[str, typer.Option("--timeout", metavar="TIME", help="Give up after it, for example 30s.")]
Agents = Annotated[list[str], typer.Argument(metavar="AGENT…", help="Names of agents.", show_default=False)]
SomeAgents = Annotated[
    list[str] | None, typer.Argument(metavar="[AGENT…]", help="Names of agents.", show_default=False)
]
AllAgents = Annotated[bool, typer.Option("--all", help="All agents of the namespace.")]
GracePeriod = Annotated[
    str,
    typer.Option(
        "--grace-period", metavar="SECONDS", help="Between SIGTERM and SIGKILL; default: the agent's own."
    ),
]


def namespace(option: str) -> str:
    """The namespace meant: the option, else AGENTK_NAMESPACE, else `default`."""
    return option.removeprefix("=") or os.environ.get("AGENTK_NAMESPACE") or "default"


def seconds(text: str, option: str) -> int | None:
    """A whole number of seconds, or a duration; None when the option was not given."""
    from agentk.api import errors, quantities

    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    try:
        return int(quantities.parse_duration(text))
    except errors.Invalid as error:
        raise usage.Usage(f"{option}: {error.message}", hint=error.hint) from None


def agent_names(words: list[str]) -> list[str]:
    """`NAME` or `agent/NAME`, for verbs that know only agents."""
    names = []
    for word in words:
        kind, slash, name = word.rpartition("/")
        if slash and kinds.resource(kind) is not kinds.AGENT:
            raise usage.Usage(f"{word} is not an agent", hint="agentk get agents  # shows those there are")
        if not name:
            raise usage.Usage(f"{word!r} names no agent")
        names.append(name)
    return names
