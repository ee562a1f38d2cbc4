"""agentk for people's own programs: `from agentk import Client`. What the command line does, as plain functions.

    from agentk import Client

    with Client() as agentk:
        agentk.apply("agent.yaml")
        agentk.wait("triage", "Finished", timeout=600)
        print(agentk.get("triage")["status"]["reason"])
        for line in agentk.logs("triage"):
            print(line)

Objects are plain dicts, as in a manifest. Everything that goes wrong is an `agentk.AgentkError` with `code`, `message`
and `hint`. Synchronous; one client is for one thread.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agentk.api import errors, kinds
from agentk.client import client, outcome, sources, watching
from agentk.client.client import Event
from agentk.data import places
from agentk.sdk import calls
from agentk.sdk.results import Thought

Object = dict[str, Any]
Manifest = str | Path | Mapping[str, Any]

_THINK_SECONDS = 600.0  # as the schema's default
_MARGIN_SECONDS = 10.0  # the daemon says that it took too long before we say so


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    name: str
    ok: bool
    exit_code: int  # as `agentk run` gives it: 128+N for signal N, 124 for the timeout, 122 for the budget
    reason: str  # Completed, Error, OOMKilled, DeadlineExceeded, BudgetExceeded …
    message: str
    output: str  # what its last attempt wrote, stdout and stderr
    usage: Mapping[str, Any]
    agent: Mapping[str, Any]  # the object as it was at the end

    def __str__(self) -> str:
        return self.output


class Client:
    """The daemon of this user, started on first use unless `start` is False.

    `namespace`: where everything is meant that names no other; AGENTK_NAMESPACE, else default.
    """

    def __init__(self, namespace: str = "", *, socket: str | Path = "", start: bool = True) -> None:
        self.namespace = namespace or os.environ.get("AGENTK_NAMESPACE") or "default"
        self._places = places.places(os.environ, os.getuid())
        self._socket = Path(socket) if socket else self._places.socket
        # A socket that was named is of somebody's own daemon.
        self._on_down = self._start if start and not socket else None
        self._api = client.Client(self._socket, self._on_down)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._api.close()

    def apply(self, *manifests: Manifest, namespace: str = "", force: bool = False) -> list[Object]:
        """Create or change objects. Each is a file or a directory, YAML text of several lines, or a dict.

        agentk.apply("agents/", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {}})
        """
        found = [one for given in manifests for one in sources.read(given)]
        where = namespace or self.namespace
        return [sources.apply(self._api, one, where, force=force) for one in sources.ordered(found)]

    def get(self, name: str, kind: str = "agent", *, namespace: str = "") -> Object:
        """One object. Raises NotFound.  `agentk.get("triage")["status"]["phase"]`"""
        found = kinds.resource(kind)
        return self._api.get(found, self._where(found, namespace), name)

    def list(
        self,
        kind: str = "agents",
        *,
        labels: str = "",
        fields: str = "",
        namespace: str = "",
        all_namespaces: bool = False,
    ) -> list[Object]:
        """Objects of a kind.  `agentk.list(labels="tier=web", fields="status.phase=Running")`"""
        return self._api.list(self._selection(kind, labels, fields, namespace, all_namespaces)).items

    def watch(
        self,
        kind: str = "agents",
        *,
        labels: str = "",
        fields: str = "",
        namespace: str = "",
        all_namespaces: bool = False,
        timeout: float | None = None,
    ) -> Iterator[Event]:
        """What is there as ADDED, then each change, for ever or for `timeout` seconds; outlives the daemon's restarts.

        for event in agentk.watch(labels="tier=web"):
            print(event.type, event.obj["metadata"]["name"], event.obj["status"].get("phase"))
        """
        asked = self._selection(kind, labels, fields, namespace, all_namespaces)
        listing = self._api.list(asked)
        end = None if timeout is None else time.monotonic() + timeout
        return self._watched(asked, listing, end)

    def logs(
        self,
        name: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        previous: bool = False,
        timestamps: bool = False,
        namespace: str = "",
    ) -> Iterator[str]:
        """Lines an agent wrote: the last `tail` ones, of the last `since` seconds. `follow`: until it has ended.

        for line in agentk.logs("triage", follow=True):
            print(line)
        """
        query = {"previous": "true"} if previous else {}
        if tail is not None:
            query["tailLines"] = str(tail)
        if since is not None:
            query["sinceSeconds"] = str(max(1, int(since)))
        where = namespace or self.namespace
        if follow:
            from agentk.client import following

            lines = following.lines(self._api, where, name, query, timestamps)
        else:
            lines = self._api.logs(
                where, name, query | ({"timestamps": "true"} if timestamps else {})
            ).lines()
        return (line.decode("utf-8", "replace").removesuffix("\n") for line in lines)

    def delete(
        self, name: str, kind: str = "agent", *, namespace: str = "", timeout: float | None = 60.0
    ) -> None:
        """Delete an object and wait until it is gone; `timeout` 0 only asks. Raises NotFound, Timeout.

        agentk.delete("triage")
        """
        found = kinds.resource(kind)
        where = self._where(found, namespace)
        uid = self._api.get(found, where, name)["metadata"]["uid"]
        self._api.delete(found, where, name)
        if timeout == 0:
            return
        for obj in self._states(found, where, name, timeout):
            if obj is None or obj["metadata"]["uid"] != uid:
                return
        raise errors.Timeout(f"{found.singular}/{name} is still being deleted")

    def wait(
        self,
        name: str,
        until: str | Callable[[Object], bool] = "Finished",
        *,
        kind: str = "agent",
        namespace: str = "",
        timeout: float | None = None,
    ) -> Object:
        """The object once a condition of it is True (or `Ready=False`), or once your own function says so.

        Raises NotFound, Timeout, and Conflict as soon as it has ended and can never become it.

        agentk.wait("triage", "Ready", timeout=30)
        agentk.wait("triage", lambda agent: agent["status"].get("restartCount", 0) > 2)
        """
        found = kinds.resource(kind)
        where = self._where(found, namespace)
        existed = False
        for obj in self._states(found, where, name, timeout):
            if obj is None:
                if existed:
                    raise errors.NotFound(f"{found.singular}/{name} was deleted")
                self._api.get(found, where, name)  # raises the daemon's own NotFound
                continue
            existed = True
            if until(obj) if callable(until) else watching.is_current(obj) and _has(obj, until):
                return obj
            if watching.is_current(obj) and _has(obj, "Finished"):
                status = obj.get("status") or {}
                told = f"it has {str(status.get('phase', 'ended')).lower()} ({status.get('reason', '')})"
                raise errors.Conflict(f"{found.singular}/{name} will never be so: {told}")
        raise errors.Timeout(f"timed out waiting for {found.singular}/{name}")

    def run(
        self, agent: Manifest, *, namespace: str = "", timeout: float | None = None, keep: bool = False
    ) -> Result:
        """Run one agent to its end, and delete it unless `keep`. Without a name it gets one. An agent that fails is
        no error: look at `ok`.

        result = agentk.run({"command": ["python", "-c", "print(6 * 7)"]}, timeout=60)
        print(result.ok, result.exit_code, result.output)
        """
        found = sources.read(_as_agent(agent) if isinstance(agent, Mapping) else agent)
        agents = [one for one in found if one.kind is kinds.AGENT]
        if len(agents) != 1:
            raise errors.BadRequest(f"run takes one Agent, found {len(agents)}")
        if timeout is not None:
            agents[0].obj["spec"]["activeDeadlineSeconds"] = max(1, int(timeout))
        where = agents[0].namespace(namespace or self.namespace)
        if self._exists(agents[0].name, where):
            raise errors.AlreadyExists(f"agent/{agents[0].name} is there already")
        try:
            for one in sources.ordered(found):
                sources.apply(self._api, one, namespace or self.namespace)
            obj = self.wait(agents[0].name, namespace=where)
            output = "\n".join(self.logs(agents[0].name, namespace=where))
        finally:
            if not keep and self._exists(agents[0].name, where):
                self.delete(agents[0].name, namespace=where)
        ended = outcome.of(obj)
        return Result(
            agents[0].name,
            ended.exit_code == 0,
            ended.exit_code,
            ended.reason,
            ended.message,
            output,
            ended.usage or {},
            obj,
        )

    def think(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[dict[str, Any]] | None = None,
        route: str = "default",
        policy: str = "baseline",
        namespace: str = "",
        **options: Any,
    ) -> Thought:
        """Ask a model through the gate, as agents do: the keys stay in the daemon, the Policy and the namespace's
        Quota hold, and it is in the journal (`agentk audit @host`). More options are those of `agentk.sdk`'s think.

        answer = agentk.think("Which of these is urgent?", route="default", max_tokens=200)
        print(answer, answer.usage.cost_usd)
        """
        asked = calls.think(prompt, messages=messages, **options)
        where = namespace or self.namespace
        body = {"route": route, "policy": policy, "params": asked.params}
        seconds = float(options.get("timeout_seconds") or _THINK_SECONDS) + _MARGIN_SECONDS
        api = client.Client(self._socket, self._on_down, seconds)
        try:
            return asked.parse(api.request("POST", f"/agentk/v1/think/{where}", body=body))
        finally:
            api.close()

    def approve(self, name: str, *, reason: str = "", remember: bool = False, namespace: str = "") -> Object:
        """Let a call through that waits for a person. Raises Conflict when it was answered before.

        for one in agentk.list("approvals"):
            if one["spec"]["method"] == "exec":
                agentk.approve(one["metadata"]["name"], reason="it only reads")
        """
        return self._answered(name, "approve", {"reason": reason, "remember": remember}, namespace)

    def deny(self, name: str, *, reason: str = "", remember: bool = False, namespace: str = "") -> Object:
        """Refuse a call that waits for a person. Raises Conflict when it was answered before."""
        return self._answered(name, "deny", {"reason": reason, "remember": remember}, namespace)

    def answer(self, name: str, text: str, *, namespace: str = "") -> Object:
        """Answer a question of an agent. Raises Invalid when it takes other answers."""
        return self._answered(name, "answer", {"text": text}, namespace)

    def _answered(self, name: str, verb: str, body: Object, namespace: str) -> Object:
        path = kinds.APPROVAL.path(self._where(kinds.APPROVAL, namespace), name, verb)
        return dict(self._api.request("POST", path, body=body))

    def _start(self) -> None:
        from agentk.client import lifecycle  # only when it is down

        lifecycle.ensure_daemon(self._places, os.environ)

    def _where(self, kind: kinds.Kind, namespace: str) -> str:
        return (namespace or self.namespace) if kind.namespaced else ""

    def _selection(
        self, kind: str, labels: str, fields: str, namespace: str, everywhere: bool
    ) -> client.Selection:
        found = kinds.resource(kind)
        return client.Selection(found, "" if everywhere else self._where(found, namespace), labels, fields)

    def _watched(
        self, asked: client.Selection, listing: client.Listing, end: float | None
    ) -> Iterator[Event]:
        yield from (Event("ADDED", obj) for obj in listing.items)
        yield from watching.watch(self._api, asked, listing, end)

    def _states(
        self, kind: kinds.Kind, namespace: str, name: str, timeout: float | None
    ) -> Iterator[Object | None]:
        """The object as it is now (None: not there), and after every change, until the time is over."""
        asked = client.Selection(kind, namespace, "", f"metadata.name={name}")
        end = None if timeout is None else time.monotonic() + timeout
        return watching.states(self._api, asked, end)

    def _exists(self, name: str, namespace: str) -> bool:
        try:
            self._api.get(kinds.AGENT, namespace, name)
        except errors.NotFound:
            return False
        return True


def _as_agent(given: Mapping[str, Any]) -> Object:
    """A whole object, or the spec alone."""
    whole = dict(given) if "spec" in given or "kind" in given else {"spec": dict(given)}
    spec = {"restartPolicy": "Never", **whole.get("spec", {})}
    metadata = {"name": f"run-{secrets.token_hex(4)}", **whole.get("metadata", {})}
    return {"apiVersion": kinds.API_VERSION, "kind": "Agent", **whole, "metadata": metadata, "spec": spec}


def _has(obj: Object, wanted: str) -> bool:
    name, _, value = wanted.partition("=")
    return bool(watching.condition(obj, name).get("status", "").lower() == (value or "True").lower())
