"""`agentk run`: one agent from start to end, for CI. Its output is ours, its exit code too.

By default in a daemon and a state of its own, which end with this process, however that ends.
"""

import contextlib
import os
import secrets
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from agentk.api import errors, kinds, manifest
from agentk.cli import manifests, options, running, show, usage
from agentk.client import outcome

app = typer.Typer(**options.APP)

# Everything after the command's first word is the command's own.
_CONTEXT = {**options.APP["context_settings"], "allow_interspersed_args": False}


@app.command(context_settings=_CONTEXT)
def run(
    command: Annotated[list[str] | None, typer.Argument(metavar="[COMMAND…]", show_default=False)] = None,
    files: options.MaybeFiles = None,
    recursive: options.Recursive = False,
    name: Annotated[str, typer.Option("--name", help="Of the agent; default: run- and chance.")] = "",
    timeout: options.Timeout = "",
    memory: Annotated[str, typer.Option("--memory", "-m", metavar="SIZE", help="For example 256Mi.")] = "",
    cpu: Annotated[str, typer.Option("--cpu", metavar="CPUS", help="For example 500m or 2.")] = "",
    pids: Annotated[
        int | None, typer.Option("--pids", metavar="COUNT", help="Processes and threads.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="NAME[=VALUE]", help="Without a value: ours.")
    ] = None,
    source: Annotated[
        str, typer.Option("--source", metavar="PATH", help="Packed, and where it starts.")
    ] = "",
    runtime: Annotated[str, typer.Option("--runtime", metavar="NAME", help="A Runtime object.")] = "",
    use_daemon: Annotated[
        bool, typer.Option("--use-daemon", "--context", help="In the running daemon, not one of its own.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep/--rm", help="With --use-daemon: leave the agent there at the end.")
    ] = False,
    namespace: options.Namespace = "",
    output: options.Output = "",
) -> int:
    """Run one agent to its end: its output, then its exit code.

    128+N: ended by signal N; 122: budget exceeded; 123: a person would have to be asked, and nobody can be here;
    124: timeout; 125: agentk itself failed. With -o json the result is on stdout and the agent's output on stderr.

    Examples:

    \b
      agentk run -f agent.yaml
      agentk run --memory 128Mi --timeout 60s --source . python3 main.py
      agentk run -o json -- sh -c 'exit 7'
    """
    form = show.parse(output, ("json",))
    if bool(command) == bool(files):
        raise usage.Usage("say what to run", hint="a COMMAND or -f FILE, one of the two")
    where = options.namespace(namespace)
    if files:
        wanted = manifests.read(files, recursive, namespace, where)
    else:
        limits = {"memory": memory, "cpu": cpu, "pids": pids}
        obj = agent(command or [], name, limits, env or [], source, runtime)
        wanted = [manifests.resolve(manifest.Manifest(obj, "command line"), namespace, where)]
    wanted = _with_deadline(wanted, options.seconds(timeout, "--timeout"))
    return _carry_out(wanted, use_daemon, keep, form)


def agent(
    command: Sequence[str],
    name: str,
    limits: dict[str, Any],
    env: Sequence[str],
    source: str,
    runtime: str,
) -> dict[str, Any]:
    """The Agent object that a command line means."""
    # The words are meant as they are: nothing is expanded in them, as a manifest would have it.
    words = [word.replace("$", "$$") for word in command]
    spec: dict[str, Any] = {"command": words, "restartPolicy": "Never"}
    given = {key: value for key, value in limits.items() if value not in ("", None)}
    if given:
        spec["resources"] = {"limits": given}
    if env:
        spec["env"] = [_variable(one) for one in env]
    if source:
        spec["source"] = {"path": str(Path(source).resolve())}
    if runtime:
        spec["runtimeRef"] = {"name": runtime}
    metadata = {"name": name or f"run-{secrets.token_hex(4)}"}
    return {"apiVersion": kinds.API_VERSION, "kind": "Agent", "metadata": metadata, "spec": spec}


def _carry_out(wanted: list[manifests.Wanted], use_daemon: bool, keep: bool, form: show.Format) -> int:
    """Run it, tell how it ended, and give its exit code."""
    try:
        with _interruptible():
            result = running.run(wanted, use_daemon, keep, logs_to_stderr=bool(form.name))
    except running.Interrupted as told:
        result = outcome.interrupted(told.number)
    except errors.AgentkError as error:
        if form.name:
            show.write(
                show.json_text(outcome.Outcome("Error", outcome.AGENTK, error.code, error.message).envelope())
            )
        raise
    if form.name:
        show.write(show.json_text(result.envelope()))
    elif result.exit_code and result.message and result.reason != "Error":  # its own failures it tells itself
        show.say(f"agentk: {result.reason}: {result.message}")
    return result.exit_code


def _variable(text: str) -> dict[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        if name not in os.environ:
            raise usage.Usage(f"--env {name}: it is not set here", hint=f"--env {name}=VALUE")
        value = os.environ[name]
    return {"name": name, "value": value}


def _with_deadline(wanted: list[manifests.Wanted], seconds: int | None) -> list[manifests.Wanted]:
    agents = [one for one in wanted if one.kind is kinds.AGENT]
    if len(agents) != 1:
        raise usage.Usage(f"run takes one Agent, found {len(agents)}", hint="agentk apply takes any number")
    spec = agents[0].obj.get("spec")
    if seconds is not None and isinstance(spec, dict):
        spec["activeDeadlineSeconds"] = max(1, seconds)
    return wanted


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM (what CI sends) ends us the way Ctrl-C does: the agent is asked to end first."""

    def interrupt(number: int, _frame: object) -> None:
        raise running.Interrupted(number)

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
