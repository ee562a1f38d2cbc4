"""The way in for people: the daemon's Kubernetes-style API as plain functions, synchronous, standard library only."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from agentk.api import errors, kinds
from agentk.client import wire

JSON = "application/json"
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1,application/json"
APPLY = "application/apply-patch+yaml"  # JSON is YAML
MERGE = "application/merge-patch+json"
MANAGER = "agentk"
_APPLIED = "agentk-applied"  # the daemon's word on what an apply did
ANSWER_SECONDS = 60.0  # the daemon answers in milliseconds; this only ends a wait for a dead one
PAGE_OBJECTS = 500


class Event(NamedTuple):
    type: str  # ADDED MODIFIED DELETED
    obj: dict[str, Any]


@dataclass(frozen=True)
class Selection:
    """Which objects of a kind are meant. An empty namespace means all of them."""

    kind: kinds.Kind
    namespace: str = ""
    labels: str = ""
    fields: str = ""

    @property
    def path(self) -> str:
        return self.kind.path(self.namespace or None)

    @property
    def query(self) -> dict[str, str]:
        pairs = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {key: value for key, value in pairs.items() if value}


@dataclass
class Listing:
    items: list[dict[str, Any]] = field(default_factory=list)
    resource_version: str = ""


@dataclass(frozen=True)
class Applied:
    obj: dict[str, Any]
    change: str  # created, configured or unchanged


class Client:
    """One daemon. `on_down` is called when nobody listens at the first request, which is then sent again.

    A daemon that has answered once and is gone later is not started again: somebody ended it.
    """

    def __init__(
        self,
        socket: Path,
        on_down: Callable[[], None] | None = None,
        timeout_seconds: float | None = ANSWER_SECONDS,
    ) -> None:
        self.socket = socket
        self._on_down = on_down
        self._connection = wire.Connection(socket, timeout_seconds)

    def close(self) -> None:
        self._connection.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Any:
        """One exchange of JSON documents. Raises the AgentkError the daemon's Status stands for."""
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = {"Accept": accept} | ({"Content-Type": content_type} if data else {})
        response = self._exchange(self._connection, method, target(path, query), headers, data)
        text = response.read()
        self._raise_for(response, text)
        return json.loads(text) if text else None

    def stream(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> wire.Response:
        """A GET on a connection of its own that may stay open for ever; close it when done.

        `timeout_seconds` bounds each silence.
        """
        connection = wire.Connection(self.socket, timeout_seconds)
        try:
            response = self._exchange(connection, "GET", target(path, query), {"Accept": JSON})
            if response.status >= 400:
                self._raise_for(response, response.read())
        except BaseException:
            connection.close()
            raise
        return response

    def kind_of(self, path: str, query: Mapping[str, str]) -> str:
        """`file` or `directory`, of files in a box; "" when nothing is there."""
        response = self._exchange(self._connection, "HEAD", target(path, query), {})
        response.read()
        if response.status == 404:
            return ""
        self._raise_for(response, b"")
        return response.headers.get("agentk-kind", "")

    def upload(self, path: str, query: Mapping[str, str], body: wire.Readable) -> Any:
        """PUT of as much as there is, on a connection of its own that may take as long as it takes."""
        connection = wire.Connection(self.socket, None)
        try:
            headers = {"Accept": JSON, "Content-Type": "application/x-tar"}
            response = self._exchange(connection, "PUT", target(path, query), headers, body, -1)
            text = response.read()
            self._raise_for(response, text)
            return json.loads(text)
        finally:
            connection.close()

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> dict[str, Any]:
        return _object(self.request("GET", kind.path(namespace, name)))

    def list(self, selection: Selection) -> Listing:
        """Every object, fetched in pages so that no answer is huge."""
        listing = Listing()
        query = selection.query | {"limit": str(PAGE_OBJECTS)}
        while True:
            page = _object(self.request("GET", selection.path, query=query))
            listing.items += [_typed(item, selection.kind) for item in page.get("items") or []]
            listing.resource_version = page["metadata"]["resourceVersion"]
            if not page["metadata"].get("continue"):
                return listing
            query["continue"] = page["metadata"]["continue"]

    def table(self, selection: Selection, name: str = "", include: str = "Metadata") -> dict[str, Any]:
        """The server's own drawing of a listing or of one object: a Kubernetes `Table`.

        `include`: what each row carries of its object, `Metadata` or `Object`.
        """
        path = f"{selection.path}/{quote(name)}" if name else selection.path
        query = selection.query | {"includeObject": include}
        return _object(self.request("GET", path, query=query, accept=TABLE))

    def create(
        self, kind: kinds.Kind, namespace: str, obj: Mapping[str, Any], dry_run: bool = False
    ) -> dict[str, Any]:
        query = _write_query(dry_run) | {"fieldManager": MANAGER}
        return _object(self.request("POST", kind.path(namespace), query=query, body=obj))

    def apply(
        self,
        kind: kinds.Kind,
        namespace: str,
        obj: Mapping[str, Any],
        *,
        force: bool = False,
        dry_run: bool = False,
    ) -> Applied:
        """Server-side apply: what this manager wrote before and leaves out now is removed."""
        query = _write_query(dry_run) | {"fieldManager": MANAGER, "force": "true" if force else "false"}
        data = json.dumps(obj, separators=(",", ":")).encode()
        path = target(kind.path(namespace, obj["metadata"]["name"]), query)
        headers = {"Accept": JSON, "Content-Type": APPLY}
        response = self._exchange(self._connection, "PATCH", path, headers, data)
        text = response.read()
        self._raise_for(response, text)
        usual = "created" if response.status == 201 else "configured"  # all that an older daemon tells
        return Applied(_object(json.loads(text)), response.headers.get(_APPLIED, usual))

    def patch(
        self, kind: kinds.Kind, namespace: str, name: str, patch: Any, *, content_type: str = MERGE
    ) -> dict[str, Any]:
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        path = kind.path(namespace, name)
        return _object(self.request("PATCH", path, query=query, body=patch, content_type=content_type))

    def delete(
        self,
        kind: kinds.Kind,
        namespace: str,
        name: str,
        *,
        cascade: str = "Background",
        grace_seconds: int | None = None,
        uid: str = "",
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Ask for deletion; the object may live on until its finalizers are done."""
        body: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": cascade}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        if uid:
            body["preconditions"] = {"uid": uid}
        query = {"dryRun": "All"} if dry_run else {}
        return _object(self.request("DELETE", kind.path(namespace, name), query=query, body=body))

    def act(self, namespace: str, name: str, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """`signal` or `restart` of one agent."""
        return _object(self.request("POST", kinds.AGENT.path(namespace, name, verb), body=body) or {})

    def logs(self, namespace: str, name: str, query: Mapping[str, str]) -> wire.Response:
        """The text of one attempt's log, as a stream; close it when done."""
        return self.stream(kinds.AGENT.path(namespace, name, "log"), query=query)

    def has_blob(self, digest: str) -> bool:
        path = f"/agentk/v1/blobs/{digest}"
        response = self._exchange(self._connection, "HEAD", path, {})
        response.read()
        if response.status == 404:
            return False
        self._raise_for(response, b"")
        return True

    def put_blob(self, digest: str, data: wire.Readable, size_bytes: int) -> None:
        """Upload; the daemon checks the digest, so doing it twice is doing it once."""
        headers = {"Content-Type": "application/octet-stream"}
        path = f"/agentk/v1/blobs/{digest}"
        response = self._exchange(self._connection, "PUT", path, headers, data, size_bytes)
        self._raise_for(response, response.read())

    def _exchange(
        self,
        connection: wire.Connection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | wire.Readable = b"",
        length: int = 0,
    ) -> wire.Response:
        on_down, self._on_down = self._on_down, None
        try:
            return connection.exchange(method, path, headers, body, length)
        except wire.Down:
            if on_down is None:
                raise
        on_down()
        return connection.exchange(method, path, headers, body, length)

    @staticmethod
    def _raise_for(response: wire.Response, text: bytes) -> None:
        if response.status < 400:
            return
        try:
            status = json.loads(text)
        except ValueError:
            status = None
        if not isinstance(status, dict) or status.get("kind") != "Status":
            words = text[:200].decode(errors="replace") or "no reason given"
            status = {"code": response.status, "message": f"the daemon answered {response.status}: {words}"}
        raise errors.from_status(status)


def target(path: str, query: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _write_query(dry_run: bool) -> dict[str, str]:
    return {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})


def _object(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise errors.Unavailable("the daemon answered with something that is not an object")
    return answer


def _typed(item: dict[str, Any], kind: kinds.Kind) -> dict[str, Any]:
    """Items of a list may come without the kind that their list already tells."""
    return {"apiVersion": kind.api_version, "kind": kind.kind} | item
