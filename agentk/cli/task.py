"""`agentk task …`: work sent to agents, many pieces at once, and what came of it."""

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from agentk.api import errors, kinds
from agentk.cli import asking, collecting, connect, logs, options, show, telling, usage, waiting
from agentk.client import client, watching

app = typer.Typer(
    **options.APP,
    help="""Send work to agents, wait for it, and read what came of it.

    Examples:

    \b
      agentk task run agent/summarise --input "What changed?" --wait
      agentk task run agent/summarise --each questions.txt --wait -o json
      agentk task get
      agentk task cancel summarise-1f09ab
    """,
)
_Names = Annotated[
    list[str] | None, typer.Argument(metavar="[TASK…]", help="Names of Tasks.", show_default=False)
]
_All = Annotated[bool, typer.Option("--all", help="All Tasks of the namespace.")]


@app.command()
def run(
    agent: Annotated[
        str,
        typer.Argument(
            metavar="[AGENT]", help="Whose spec is taken; it may be suspended.", show_default=False
        ),
    ] = "",
    files: options.MaybeFiles = None,
    origin: Annotated[
        str, typer.Option("--from", metavar="schedule/NAME", help="As the Schedule makes them, now.")
    ] = "",
    given: Annotated[str | None, typer.Option("--input", metavar="TEXT", help="What is to be done.")] = None,
    each: Annotated[
        str, typer.Option("--each", metavar="FILE", help="A Task for each of its lines; - is stdin.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Inputs are JSON, not text.")] = False,
    name: Annotated[str, typer.Option("--name", help="Of the Task; default: whose it is, and chance.")] = "",
    retries: Annotated[
        int | None, typer.Option("--retries", metavar="COUNT", min=0, help="Starts after a failure.")
    ] = None,
    limit: Annotated[
        str, typer.Option("--task-timeout", metavar="TIME", help="Longest time of each Task's agent.")
    ] = "",
    ttl: Annotated[
        str, typer.Option("--ttl", metavar="TIME", help="Delete each Task so long after its end.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Until they have ended, and print results.")] = False,
    timeout: options.Timeout = "",
    namespace: options.Namespace = "",
    output: options.Output = "",
) -> int:
    """Send Tasks, and with --wait collect what they give: 0 when all have succeeded.

    Without --wait their names are printed. Ctrl-C ends the waiting, not the Tasks.

    Examples:

    \b
      agentk task run agent/summarise --input "What changed?" --wait
      agentk task run summarise --each questions.txt --wait -o json
      agentk task run -f task.yaml --input '{"day": 3}' --json
      agentk task run --from schedule/nightly --wait
    """
    form = show.parse(output, ("json", "yaml", "name"))
    where = options.namespace(namespace)
    own = {"retries": retries, "timeout": limit or None}
    own |= {"ttlSecondsAfterFinished": options.seconds(ttl, "--ttl")}
    inputs, origins = asking.inputs(given, each, as_json), asking.Origin(agent, tuple(files or ()), origin)
    api = connect.connect()
    wanted = asking.tasks(api, origins, where, namespace, name, own, inputs)
    if wait and len({one.namespace for one in wanted}) > 1:
        raise usage.Usage("--wait takes Tasks of one namespace", hint="agentk task wait -n NAMESPACE")
    sent = asking.send(api, wanted, origins)
    if not wait:
        return _sent(sent, form, len(wanted))
    names = [obj["metadata"]["name"] for obj in sent]
    code = _collected(api, wanted[0].namespace, names, timeout, form, single=len(wanted) == 1)
    return code if len(sent) == len(wanted) else 1


@app.command()
def get(
    tasks: _Names = None,
    labels: options.Labels = "",
    namespace: options.Namespace = "",
    output: options.Output = "",
    no_headers: options.NoHeaders = False,
) -> int:
    """Show Tasks: how far they are, and what they gave. 'agentk get tasks' shows the objects.

    Examples:

    \b
      agentk task get
      agentk task get summarise-1f09ab
      agentk task get -o json
    """
    form = show.parse(output, ("json", "yaml", "name"))
    where, api = options.namespace(namespace), connect.connect()
    names = _task_names(tasks)
    if names:
        found = [api.get(kinds.TASK, where, one) for one in names]
    else:
        found = api.list(client.Selection(kinds.TASK, where, labels)).items
    if not found:
        show.say(f"No tasks found in {where} namespace.")
        return 0
    show.write(collecting.drawn(found, form, single=len(names) == 1, headers=not no_headers))
    return 0


@app.command("wait")
def wait_(
    tasks: _Names = None,
    labels: options.Labels = "",
    everything: _All = False,
    timeout: options.Timeout = "",
    namespace: options.Namespace = "",
    output: options.Output = "",
) -> int:
    """Wait until Tasks have ended, and print what they gave: 0 when all have succeeded.

    Examples:

    \b
      agentk task wait summarise-1f09ab
      agentk task wait --all --timeout 10m -o json
    """
    form = show.parse(output, ("json", "yaml", "name"))
    where, api = options.namespace(namespace), connect.connect()
    names = _chosen(api, where, tasks, labels, everything)
    return _collected(api, where, names, timeout, form, single=len(_task_names(tasks)) == 1)


@app.command()
def cancel(
    tasks: _Names = None,
    labels: options.Labels = "",
    everything: _All = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until they have ended.")] = True,
    timeout: options.Timeout = "60s",
    namespace: options.Namespace = "",
) -> int:
    """Give Tasks up: their agents are ended. What they did is not undone.

    Examples:

    \b
      agentk task cancel summarise-1f09ab
      agentk task cancel -l agentk.dev/schedule=nightly
    """
    where, api = options.namespace(namespace), connect.connect()
    names, failed = [], False
    for one in _chosen(api, where, tasks, labels, everything):
        there = api.get(kinds.TASK, where, one)
        phase = (there.get("status") or {}).get("phase")
        if phase in kinds.ENDED_PHASES:
            if everything or labels:
                continue
            failed = True
            telling.error(errors.Conflict(f"task/{one} has ended: {str(phase).lower()}"))
            continue
        api.patch(kinds.TASK, where, one, {"spec": {"cancel": True}})
        names.append(one)
    if not wait:
        for one in names:
            print(f"task.agentk.dev/{one} is to be cancelled")
        return int(failed)
    end = waiting.deadline(options.seconds(timeout, "--timeout"))
    ended = collecting.ended(api, where, names, end)
    for one in names:
        obj = ended[one]
        if obj is None:
            failed = True
            telling.error(errors.Timeout(f"task/{one} has not ended yet", hint=f"agentk describe task {one}"))
            continue
        print(f"task.agentk.dev/{one} {obj['status']['phase'].lower()}")
    return int(failed)


@app.command("logs")
def logs_(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Name of the Task.", show_default=False)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended.")] = False,
    tail: Annotated[int, typer.Option("--tail", metavar="LINES", help="The last ones; -1 is all.")] = -1,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="With the time of each line.")] = False,
    namespace: options.Namespace = "",
) -> int:
    """Print what the agent of a Task wrote.

    Examples:

    \b
      agentk task logs summarise-1f09ab
      agentk task logs -f summarise-1f09ab
    """
    where, api = options.namespace(namespace), connect.connect()
    (name,) = _task_names([task])
    agent = _agent_of(api, where, name, follow)
    return logs.logs(
        [agent], follow=follow, since="", tail=tail, previous=False, timestamps=timestamps, labels="",
        prefix=None, namespace=where,
    )  # fmt: skip


def _agent_of(api: client.Client, namespace: str, name: str, patient: bool) -> str:
    api.get(kinds.TASK, namespace, name)  # raises the daemon's own NotFound
    selection = client.Selection(kinds.TASK, namespace, "", f"metadata.name={name}")
    for obj in watching.states(api, selection):
        status = (obj or {}).get("status") or {}
        if status.get("agentName"):
            return str(status["agentName"])
        if not patient or obj is None or status.get("phase") in kinds.ENDED_PHASES:
            break
    hint = f"agentk describe task {name}"
    raise errors.Conflict(f"task/{name} has had no agent so far", hint=hint)


def _sent(sent: Sequence[show.Object], form: show.Format, wanted: int) -> int:
    if form.name:
        show.write(show.objects(sent, form, single=wanted == 1))
    else:
        for obj in sent:
            print(f"task.agentk.dev/{obj['metadata']['name']} created")
    return 0 if len(sent) == wanted else 1


def _collected(
    api: client.Client, where: str, names: Sequence[str], timeout: str, form: show.Format, *, single: bool
) -> int:
    began = time.monotonic()
    end = waiting.deadline(options.seconds(timeout, "--timeout"))
    ended = collecting.ended(api, where, names, end)
    found = [obj for one in names if (obj := ended.get(one)) is not None]
    late = [one for one in names if ended.get(one) is None]
    if found:
        show.write(collecting.drawn(found, form, single=single, result=single))
    for obj in found:
        collecting.tell_failure(obj)
    if late:
        took = f"after {time.monotonic() - began:.0f} s"
        told = f"{len(late)} of {len(names)} tasks have not ended {took}: {', '.join(late[:5])}"
        hint = f"agentk task wait -n {where} {' '.join(late[:5])}"
        telling.error(errors.Timeout(told, hint=hint))
    return 0 if not late and all(obj["status"]["phase"] == "Succeeded" for obj in found) else 1


def _chosen(
    api: client.Client, where: str, tasks: list[str] | None, labels: str, everything: bool
) -> list[str]:
    names = _task_names(tasks)
    if bool(names) + bool(labels) + everything != 1:
        raise usage.Usage("say which ones", hint="TASK…, -l LABELS or --all; agentk task get shows them")
    if names:
        return names
    found = api.list(client.Selection(kinds.TASK, where, labels)).items
    if not found:
        show.say(f"No tasks found in {where} namespace.")
    return [str(obj["metadata"]["name"]) for obj in found]


def _task_names(words: list[str] | None) -> list[str]:
    names = []
    for word in words or []:
        kind, slash, name = word.rpartition("/")
        if slash and kinds.resource(kind) is not kinds.TASK:
            raise usage.Usage(f"{word} is not a task", hint="agentk task get  # shows those there are")
        if not name:
            raise usage.Usage(f"{word!r} names no task")
        names.append(name)
    return names
