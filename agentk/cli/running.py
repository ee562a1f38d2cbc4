"""The acts of `agentk run`: a daemon, the objects, the output, the end."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from agentk.api import errors, kinds
from agentk.cli import connect, manifests, sending, waiting
from agentk.client import client, following, lifecycle, outcome, watching

_DRAIN_SECONDS = 10.0  # for the last lines, once the agent has ended
_GRACE_EXTRA_SECONDS = 5.0
_DEFAULT_GRACE_SECONDS = 10
_ON_THE_WAY = ("NoBox", "Starting", "Running")


class Interrupted(BaseException):
    """A signal told us to end. Not an Exception: nothing on the way may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Unanswered(Exception):
    """A person has to be asked, and in a daemon of our own there is nobody."""


def run(
    wanted: Sequence[manifests.Wanted], use_daemon: bool, keep: bool, logs_to_stderr: bool
) -> outcome.Outcome:
    """Run the one agent among `wanted` to its end. Raises AgentkError when it is agentk that fails."""
    with _daemon(use_daemon) as connect_:
        one = next(one for one in wanted if one.kind is kinds.AGENT)
        api = connect_()
        if use_daemon and _exists(api, one):
            raise errors.AlreadyExists(f"{one} is there already", hint="choose another --name")
        if not use_daemon:
            _make_namespaces(api, wanted)
        created = False
        try:
            for result in sending.Sender(connect_).send(wanted):
                if isinstance(result, errors.AgentkError):
                    raise result
            created = True
            return _to_the_end(connect_, api, one, private=not use_daemon, logs_to_stderr=logs_to_stderr)
        finally:
            if created and use_daemon and not keep:
                with contextlib.suppress(errors.NotFound):
                    api.delete(one.kind, one.namespace, one.name)


def _make_namespaces(api: client.Client, wanted: Sequence[manifests.Wanted]) -> None:
    """A daemon of our own has only `default`, whatever the manifest or AGENTK_NAMESPACE says."""
    for name in sorted({one.namespace for one in wanted if one.namespace}):
        with contextlib.suppress(errors.AlreadyExists):
            api.create(kinds.NAMESPACE, "", {"metadata": {"name": name}})


def _to_the_end(
    connect_: Callable[[], client.Client],
    api: client.Client,
    one: manifests.Wanted,
    private: bool,
    logs_to_stderr: bool,
) -> outcome.Outcome:
    output = _Output(connect_, one, logs_to_stderr)
    output.start()
    try:
        result = outcome.of(_finished(api, one, private))
    except Interrupted as told:
        _ask_to_end(api, one, told.number)
        output.finish()
        raise
    except Unanswered as unanswered:
        _ask_to_end(api, one, signal.SIGTERM)
        result = outcome.Outcome("Failed", outcome.APPROVAL, "ApprovalRequired", str(unanswered))
    output.finish()  # one that never ran, which raises above, has no last lines to wait for
    return result


def _finished(api: client.Client, one: manifests.Wanted, private: bool) -> dict[str, Any]:
    """The agent once it has ended. Raises when it can never start."""
    selection = client.Selection(one.kind, one.namespace, "", f"metadata.name={one.name}")
    told = ""
    for obj in watching.states(api, selection, None):
        if obj is None:
            raise errors.NotFound(f"{one} was deleted before it ended")
        told = _tell_asked(obj, _tell_packages(obj, told))
        if private and (why := _unanswered(api, one, obj)):
            raise Unanswered(why)
        if watching.condition(obj, "Finished").get("status") == "True":
            return obj
        if private and (why := _never(obj)):
            raise errors.RuntimeRefused(why, hint=_mend(obj))
    raise errors.Unavailable("the daemon ended")


def _tell_packages(obj: dict[str, Any], told: str) -> str:
    """Say which stage its packages are at, once a stage: they can take minutes."""
    packages = watching.condition(obj, "EnvironmentReady")
    reason = str(packages.get("reason", ""))
    if packages.get("status") == "False" and reason not in (told, "EnvironmentFailed"):
        print(f"agentk: {packages.get('message')}", file=sys.stderr, flush=True)
    return reason


def _tell_asked(obj: dict[str, Any], told: str) -> str:
    """Say what waits for a person, once: whoever runs it may be the one to answer."""
    asked = watching.condition(obj, "AwaitingApproval")
    message = str(asked.get("message", ""))
    if asked.get("status") != "True" or message == told:
        return told
    print(f"agentk: waits for a person: {message}", file=sys.stderr, flush=True)
    return message


def _unanswered(api: client.Client, one: manifests.Wanted, obj: dict[str, Any]) -> str:
    """What of it waits for a person, and for no answer that comes by itself."""
    if watching.condition(obj, "AwaitingApproval").get("status") != "True":
        return ""
    for asked in api.list(client.Selection(kinds.APPROVAL, one.namespace)).items:
        spec, status = asked["spec"], asked.get("status") or {}
        by_itself = spec.get("default") == "Allow" or "default" in (spec.get("question") or {})
        if status.get("phase", "Pending") == "Pending" and not by_itself:
            return f"nobody can be asked here: {spec.get('summary')}; {spec.get('reason')}"
    return ""


def _mend(obj: dict[str, Any]) -> str:
    if watching.condition(obj, "Accepted").get("status") == "False":
        return "a daemon of its own knows only what -f gives it: add that to the file, or say --use-daemon"
    if watching.condition(obj, "EnvironmentReady").get("reason") == "EnvironmentFailed":
        return "packages come from the indexes of your own pip and npm configuration: pip config list"
    return "agentk doctor tells what this host lacks"


def _never(obj: dict[str, Any]) -> str:
    """Why nobody will start it: in a daemon of our own nothing will change any more."""
    accepted = watching.condition(obj, "Accepted")
    if accepted.get("status") == "False":
        return f"{accepted.get('reason')}: {accepted.get('message')}"
    packages = watching.condition(obj, "EnvironmentReady")
    if packages.get("reason") == "EnvironmentFailed":
        return f"{packages.get('reason')}: {packages.get('message')}"
    sandbox = watching.condition(obj, "SandboxReady")
    if sandbox.get("status") == "False" and sandbox.get("reason") not in _ON_THE_WAY:
        return f"{sandbox.get('reason')}: {sandbox.get('message')}"
    return ""


def _ask_to_end(api: client.Client, one: manifests.Wanted, number: int) -> None:
    """As it was asked of us; wait for its grace."""
    spec = one.obj.get("spec") or {}
    grace = spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS)
    with contextlib.suppress(errors.AgentkError):
        api.act(one.namespace, one.name, "signal", {"signal": number})
        selection = client.Selection(one.kind, one.namespace, "", f"metadata.name={one.name}")
        end = waiting.deadline(float(grace) + _GRACE_EXTRA_SECONDS)
        waiting.until_true(
            api,
            selection,
            lambda obj: not obj or watching.condition(obj, "Finished").get("status") == "True",
            end,
        )


@contextlib.contextmanager
def _daemon(use_daemon: bool) -> Iterator[Callable[[], client.Client]]:
    """Something that gives clients: of the running daemon, or of a private one that ends with this block."""
    if use_daemon:
        yield connect.connect
        return
    with lifecycle.private_daemon(os.environ) as places:
        yield lambda: client.Client(places.socket)


def _exists(api: client.Client, one: manifests.Wanted) -> bool:
    try:
        api.get(one.kind, one.namespace, one.name)
    except errors.NotFound:
        return False
    return True


@dataclass
class _Output:
    """Copies what the agent writes, all attempts, each stream to its own of ours."""

    connect: Callable[[], client.Client]
    one: manifests.Wanted
    to_stderr: bool
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        ways = {"stdout": sys.stderr if self.to_stderr else sys.stdout, "stderr": sys.stderr}
        for stream, target in ways.items():
            copy = threading.Thread(target=self._copy, args=(stream, target.buffer), name=stream, daemon=True)
            copy.start()
            self._threads.append(copy)

    def finish(self) -> None:
        """Wait for the last lines."""
        self._over.set()
        for thread in self._threads:
            thread.join(_DRAIN_SECONDS)

    def _copy(self, stream: str, target: BinaryIO) -> None:
        api = self.connect()
        attempt = 0
        while True:
            over = self._over.is_set()
            try:
                now = self._attempt(api)
                if now != attempt or not now:
                    for line in following.lines(api, self.one.namespace, self.one.name, {"stream": stream}):
                        target.write(line)
                        target.flush()
                    attempt = now or 1
            except (errors.AgentkError, BrokenPipeError):
                return  # who watches the agent finds out why
            if over:
                return
            self._over.wait(0.1)

    def _attempt(self, api: client.Client) -> int:
        status = api.get(kinds.AGENT, self.one.namespace, self.one.name).get("status") or {}
        return int(status.get("attempt") or 0)
