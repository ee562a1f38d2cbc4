"""Agents in real jails reach hosts through their proxy and by the gate: no key in the jail, none in any record."""

import json
import os
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.broker import hosts
from tests.flows import household
from tests.flows.household import Space, python

pytestmark = household.needs

SECRET = "s3cr3t-" + os.urandom(12).hex()  # a canary
FETCH = """
import json, os, socket, ssl, sys, urllib.error, urllib.request

def get(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]
    except urllib.error.URLError as error:
        return [0, str(error.reason)]

def call(method, **params):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(os.environ["AGENTK_SOCKET"])
        sock.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\\n")
        return json.loads(sock.makefile().readline())
"""
ONCE = (
    FETCH
    + """
port = int(sys.argv[1])
print(json.dumps({
    "read_along": get(f"https://localhost:{port}/me", Authorization="Bearer mine"),
    "gate": call("http.request", url=f"https://localhost:{port}/me")["result"],
    "carried": get(f"https://127.0.0.1:{port}/me", Authorization="Bearer mine"),
    "metadata": get("http://169.254.169.254/latest/meta-data/")[0],
    "elsewhere": get(f"https://localhost:{port + 1}/")[0],
    "environ": open("/proc/self/environ").read(),
    "certificates": open(os.environ["SSL_CERT_FILE"]).read(),
}), flush=True)
"""
)
ALWAYS = (
    FETCH
    + """
import http.client, time
port = int(sys.argv[1])
while True:
    try:
        get(f"https://localhost:{port}/me")
    except (OSError, http.client.HTTPException):
        time.sleep(0.05)  # the daemon died in the middle of it
"""
)


class Upstream(ThreadingHTTPServer):
    """Tells everybody what they sent, and remembers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Echo)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(hosts.certificate("localhost", "127.0.0.1"))
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.heard: list[str] = []
        self.more = threading.Condition()

    def hears(self) -> None:
        """Returns once one more request has come."""
        with self.more:
            count = len(self.heard)
            assert self.more.wait_for(lambda: len(self.heard) > count, household.SECONDS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none of ours."""


class _Echo(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Upstream)
        told = self.headers.get("authorization", "nobody")
        with self.server.more:
            self.server.heard.append(told)
            self.server.more.notify_all()
        body = f"you are {told}".encode()
        self.send_response(200)
        self.send_header("X-Echo", told)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not to the test's output."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def space(runtime: str) -> Iterator[Space]:
    """In a household that believes the upstream's authority."""
    with household.folder() as folder:
        folder.chmod(0o755)
        believed = folder / "ca.pem"
        believed.write_text(hosts.authority_pem())
        believed.chmod(0o644)
        with (
            household.household(AGENTK_CA_FILE=str(believed)) as home,
            household.space(home, runtime) as made,
        ):
            rules = [
                {"name": "all", "effect": "Allow", "methods": ["*"]},
                {"name": "here", "effect": "Allow", "methods": ["http.request"], "hosts": ["localhost", "127.0.0.1"],
                 "features": ["privateAddresses"]},
            ]  # fmt: skip
            made.apply(
                household.manifest("Policy", "reaches-here", spec={"level": "baseline", "rules": rules})
            )
            made.apply(household.manifest("Secret", "api", stringData={"token": SECRET}))
            yield made


def reaching(name: str, program: str, port: int) -> household.Object:
    allow = [{"host": host, "ports": [port], "privateAddresses": True} for host in ("localhost", "127.0.0.1")]
    inject = {"host": "localhost", "header": "Authorization", "prefix": "Bearer "}
    made = python(
        name,
        program,
        policyRef={"name": "reaches-here"},
        network={"egress": {"allow": allow}},
        secrets=[{"name": "api", "key": "token", "inject": inject}],
        # the box's own loopback is what these names usually are
        env=[{"name": "NO_PROXY", "value": ""}, {"name": "no_proxy", "value": ""}],
    )
    made["spec"]["args"] = [str(port)]
    return made


@household.on_both
def test_an_agent_reaches_its_hosts_with_a_secret_it_never_holds(space: Space, upstream: Upstream) -> None:
    space.apply(reaching("a", ONCE, upstream.server_address[1]))
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", space.log("a")
    told = json.loads(space.agentk("logs", "a").out)
    assert told["read_along"] == [200, "you are Bearer [redacted]"]
    assert (told["gate"]["status"], told["gate"]["body"]) == (200, "you are Bearer [redacted]")
    assert told["gate"]["headers"]["x-echo"] == "Bearer [redacted]"
    assert told["carried"] == [200, "you are Bearer mine"]
    assert (told["metadata"], told["elsewhere"]) == (403, 0)
    assert upstream.heard == [f"Bearer {SECRET}", f"Bearer {SECRET}", "Bearer mine"]
    own = "-----BEGIN" + told["certificates"].rpartition("-----BEGIN")[2]
    assert x509.load_pem_x509_certificate(own.encode()).subject.rfc4514_string().startswith("CN=agentk ")
    assert "PRIVATE KEY" not in told["certificates"]
    assert SECRET not in told["environ"] + json.dumps(told)
    assert held(space, SECRET) == []


def held(space: Space, text: str) -> list[str]:
    """Files of the daemon's, its journal and logs, that hold a text; the Secret itself is in its database."""
    found = []
    for folder, _, names in os.walk(space.home.places.state):
        for name in names:
            path = Path(folder, name)
            if not name.startswith("state.db") and path.is_file() and text.encode() in path.read_bytes():
                found.append(str(path))
    return found


def test_tunnels_are_believed_again_after_the_daemon_died(space: Space, upstream: Upstream) -> None:
    space.apply(reaching("a", ALWAYS, upstream.server_address[1]))
    space.running("a")
    upstream.hears()
    for _ in range(2):
        space.home.kill("daemon")
        space.home.answers()
        upstream.hears()
    assert set(upstream.heard) == {f"Bearer {SECRET}"}
