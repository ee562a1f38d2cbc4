"""What a caller may send by mistake or malice. The daemon answers, and goes on."""

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest

from agentk.daemon import bodies, serving
from tests.daemon.conftest import AGENTS, Api, Connection, agent

CONFIGS = "/api/v1/namespaces/default/configmaps"


def _alive(api: Api) -> bool:
    return api.get("/healthz").status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"metadata": {"name": "c"}, "metadata": {"name": "d"}}',
        b'{"metadata": {"name": "c"}, "data": {"k": NaN}}',
        b'{"metadata": {"name": "\\ud800"}}',
        b'{"kind": "\\ud800"}',
        b'{"n": ' + b"9" * 5000 + b"}",
        b"[" * 200_000,
        b'{"a":' * 50_000,
        b'{"metadata": {"name": "c"}, "data": ' + b"[" * 80 + b"]" * 80 + b"}",
    ],
    ids=range(14),
)
def test_body_that_is_no_object_is_a_bad_request(lasting: Api, body: bytes) -> None:
    told = lasting.fails(400, "POST", CONFIGS, body)
    assert told["message"]
    assert _alive(lasting)


@pytest.mark.parametrize(
    "text",
    [
        b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(b"b%d: &b%d [*a,*a,*a,*a]\n" % (n, n) for n in range(9)),
        b"{" * 10_000,
        b"!!python/object/apply:os.system ['true']",
        b"metadata: {name: c}\n---\nmetadata: {name: d}\n",
        b"- a\n",
    ],
    ids=["aliases", "depth", "tag", "two", "list"],
)
def test_hostile_yaml_is_refused(lasting: Api, text: bytes) -> None:
    answer = lasting.call("POST", CONFIGS, text, headers={"Content-Type": "application/yaml"})
    assert answer.status in (400, 422)
    assert _alive(lasting)


def test_yaml_of_one_object_is_welcome(api: Api) -> None:
    headers = {"Content-Type": "application/yaml; charset=utf-8"}
    assert api.ok("POST", CONFIGS, b"metadata:\n  name: c\ndata: {a: b}\n", headers=headers)["data"] == {
        "a": "b"
    }


def test_foreign_media_types_are_refused(api: Api) -> None:
    told = api.fails(
        415, "POST", CONFIGS, b"x", headers={"Content-Type": "application/vnd.kubernetes.protobuf"}
    )
    assert "application/json" in told["details"]["hint"]
    api.fails(415, "PATCH", f"{CONFIGS}/c", {}, headers={"Content-Type": "application/json"})


def test_body_beyond_the_limit_is_refused_before_it_is_read(api: Api) -> None:
    connection = api.connect()
    connection.putrequest("POST", CONFIGS)
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(bodies.MAX_BYTES + 1))
    connection.endheaders()
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["reason"]) == (413, "RequestEntityTooLarge")
    connection.close()


def test_chunked_body_beyond_the_limit_is_refused(api: Api) -> None:
    connection = api.connect()
    chunks = (b"x" * 65536 for _ in range(bodies.MAX_BYTES // 65536 + 1))
    connection.request("POST", CONFIGS, chunks, {"Content-Type": "application/json"}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()
    assert _alive(api)


def test_object_beyond_what_can_be_stored_is_refused(api: Api) -> None:
    notes = {f"k{n}": "x" * 250_000 for n in range(7)}
    owners = [{"apiVersion": "v1", "kind": "X", "name": value, "uid": key} for key, value in notes.items()]
    api.fails(413, "POST", CONFIGS, {"metadata": {"name": "c", "ownerReferences": owners}})


def test_large_headers_get_a_status(api: Api) -> None:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(30)
        caller.connect(str(api.path))
        caller.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000)
        answer = b"".join(iter(lambda: caller.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400") and b'"kind": "Status"' in answer


@pytest.mark.parametrize("text", [b"\x16\x03\x01\x02\x00\x01\x00", b"{}\r\n\r\n", b"GET / SPDY/9\r\n\r\n"])
def test_what_is_no_http_gets_a_status(lasting: Api, text: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(30)
        caller.connect(str(lasting.path))
        caller.sendall(text + b"\r\n\r\n")
        assert caller.recv(65536).startswith(b"HTTP/1.1 400")
    assert _alive(lasting)


def test_caller_who_sends_no_request_is_let_go(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_HEAD_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(30)
        caller.connect(str(api.path))
        caller.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
        assert caller.recv(1) == b""


def test_caller_who_stops_in_the_middle_of_a_body_is_let_go(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_CHUNK_SECONDS", 0.1)
    connection = api.connect()
    connection.putrequest("POST", CONFIGS)
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"{")
    assert connection.getresponse().status == 504
    connection.close()


def test_caller_who_hangs_up_in_the_middle_of_a_body_costs_nothing(api: Api) -> None:
    before = len(asyncio.all_tasks(api.loop))
    for _ in range(5):
        connection = api.connect()
        connection.putrequest("POST", CONFIGS)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"{")
        connection.close()
    assert api.settled(lambda: len(asyncio.all_tasks(api.loop)) <= before + 1)
    assert _alive(api)


def test_expectation_is_answered_before_the_body(api: Api) -> None:
    body = json.dumps({"metadata": {"name": "c"}}).encode()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(30)
        caller.connect(str(api.path))
        head = f"POST {CONFIGS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
        caller.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        assert caller.recv(65536).startswith(b"HTTP/1.1 100")
        caller.sendall(body)
        assert caller.recv(65536).startswith(b"HTTP/1.1 201")


def test_requests_may_follow_each_other_on_one_connection(api: Api) -> None:
    connection = api.connect()
    for name in ("a", "b", "a"):
        connection.request("POST", AGENTS, json.dumps(agent(name)), {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
    assert response.status == 409
    connection.close()


def test_paths_cannot_climb(api: Api) -> None:
    for path in (
        "/api/v1/../../etc/passwd",
        "/api/v1/namespaces/%2e%2e/secrets/x",
        "/api/v1//secrets",
        "//api",
    ):
        assert api.call("GET", path).status == 404


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_another_uid_is_refused_even_when_it_can_connect(api: Api, tmp_path: Path) -> None:
    _open_to_all(api.path)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            connection = Connection(api.path)
            connection.request("GET", "/api/v1/namespaces/default/secrets")
            response = connection.getresponse()
            os.write(write, f"{response.status} {response.read().decode()}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        answer = told.read()
    os.waitpid(child, 0)
    assert answer.startswith("403 ")
    assert "uid 65534 may not" in answer
    assert _alive(api)


def _open_to_all(path: Path) -> None:
    """Undo what keeps others out, so that the check of credentials is what refuses."""
    path.chmod(0o666)
    for parent in path.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
