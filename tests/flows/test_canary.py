"""Two random secrets that agents use and never hold: nothing that a guest can read, and nothing that is written, has
them in any form.

The provider and the host are hostile: both send what they were given back, in answers and in errors. Where the secrets
have to be is left out of the search: the store, whose Secrets they are, and the memory of the daemon and its worker.
"""

import base64
import contextlib
import json
import os
import re
import secrets
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.broker import policy
from tests.flows import household, loopback
from tests.flows.household import Space, manifest, python

pytestmark = [*household.needs, pytest.mark.skipif(os.geteuid() != 0, reason="reads the memory of others")]

# What Podman writes of any container; layers are images, which nobody writes.
PODMANS = ("/var/lib/containers/storage", "/run/containers", "/run/libpod")
LAYERS = ("/var/lib/containers/storage/overlay", "/var/lib/containers/storage/vfs")
MARK = b"found-wherever-it-is"

PROGRAM = """
import json, os, urllib.error, urllib.request
import agentk.sdk.client as sdk

def tried(what, ask):
    try:
        print(what, json.dumps(ask(), default=str), flush=True)
    except Exception as error:
        print(what, "failed:", type(error).__name__, error, flush=True)

def openai(model):
    body = json.dumps({"model": model, "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]}).encode()
    to = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
    asked = urllib.request.Request(to, body, {"content-type": "application/json"})
    try:
        return urllib.request.urlopen(asked).read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()

agent = sdk.connect()
HOST = os.environ["HOST"]
tried("think", lambda: agent.think("hi", model="good", max_tokens=20))
tried("refused", lambda: agent.think("hi", model="bad", max_tokens=20))
tried("translated", lambda: agent.think("hi", model="claude", max_tokens=20))
tried("http", lambda: openai("bad"))
tried("request", lambda: agent.http_request(HOST + "/echo").body)
tried("refused request", lambda: agent.http_request(HOST + "/refuse").body)
tried("exec", lambda: agent.exec_shell("env; cat /proc/self/environ").stdout)
tried("state", lambda: agent.state_put("seen", os.environ["MARK"]))
print("ready", flush=True)
agent.message_recv(wait_seconds=300)
"""


class Hostile(loopback.Answering):
    """Tells everything it was told, as often and in as many forms as it can."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._tell(401 if "refuse" in self.path else 200)

    def do_POST(self) -> None:
        body = json.loads(self.asked())
        self._tell(401 if body.get("model") == "bad" else 500)

    def _tell(self, status: int) -> None:
        given = " ".join(str(value) for value in self.headers.values())
        key = re.sub(r".*(canary-[0-9a-f]+).*", r"\1", given, flags=re.DOTALL)
        self.server.seen.append(key)
        told = json.dumps(
            {"error": {"message": f"wrong key: {key}", "raw": given, "forms": sorted(forms(key))}}
        )
        self.answer(told.encode(), status, x_echo=key)


def forms(key: str) -> set[str]:
    data = key.encode()
    return {key, base64.b64encode(data).decode(), urllib.parse.quote(key, safe=""), data.hex()} - {data.hex()}


@pytest.fixture
def hostile() -> Iterator[loopback.Server]:
    with loopback.serving(loopback.Server(Hostile)) as server:
        yield server


def objects(port: int, model_key: str, web_key: str) -> list[household.Object]:
    rules = [
        {"name": rule.name, "effect": rule.effect, "methods": ["*"]}
        for rule in policy.level_rules("privileged").rules[:1]
    ]
    rules.append(
        {"name": "here", "effect": "Allow", "methods": ["http.request"], "features": ["privateAddresses"]}
    )
    secret = {"name": "models", "key": "key"}
    items = [
        {"modelName": name, "litellmParams": {"model": model, "apiBase": base, "apiKeySecretRef": secret}}
        for name, model, base in (
            ("good", "openai/good", f"http://127.0.0.1:{port}/v1"),
            ("bad", "openai/bad", f"http://127.0.0.1:{port}/v1"),
            ("claude", "anthropic/claude-sonnet-4-5", f"http://127.0.0.1:{port}"),
        )
    ]
    egress = {"allow": [{"host": "127.0.0.1", "ports": [port], "privateAddresses": True}]}
    inject = {"host": "127.0.0.1", "header": "Authorization", "prefix": "Bearer "}
    return [
        manifest("Secret", "models", stringData={"key": model_key}),
        manifest("Secret", "web", stringData={"token": web_key}),
        manifest("ModelRoute", "default", spec={"modelList": items, "retries": 0}),
        manifest("Policy", "canary", spec={"level": "baseline", "rules": rules}),
        python(
            "a",
            PROGRAM,
            policyRef={"name": "canary"},
            network={"egress": egress},
            secrets=[{"name": "web", "key": "token", "inject": inject}],
            env=[
                {"name": "HOST", "value": f"http://127.0.0.1:{port}"},
                {"name": "MARK", "value": MARK.decode()},
            ],
        ),
    ]


@household.on_both
def test_no_secret_is_where_a_guest_or_a_file_could_tell_it(space: Space, hostile: loopback.Server) -> None:
    keys = [f"canary-{secrets.token_hex(20)}" for _ in range(2)]
    space.apply(*objects(hostile.server_port, *keys))
    space.logged("a", "ready")
    assert set(hostile.seen) == set(keys), "\n".join(space.log("a"))
    needles = [form.encode() for key in keys for form in forms(key)]
    told = space.agentk("audit", "a", "-o", "json").out + space.agentk("logs", "a").out
    told += space.agentk("describe", "agent", "a").out + space.agentk("get", "ag", "a", "-o", "yaml").out
    told += space.agentk("events").out + space.agentk("trace", "a").out
    found = [f"told to people: {needle!r}" for needle in needles if needle in told.encode()]
    places = [*written(space), *running(space)]
    for kind in ("journal.db", "environ of", "memory of"):  # or the search would prove nothing
        assert any(kind in name and MARK in data for name, data in places), kind
    for name, data in places:
        found += [f"{name}: {needle!r}" for needle in needles if needle in data]
    assert found == []


def written(space: Space) -> Iterator[tuple[str, bytes]]:
    """Every file there is, but those of the store's objects."""
    for top in (space.home.places.state, space.home.places.run, *PODMANS):
        for folder, names, files in os.walk(top):
            if folder.endswith("/backups") or folder in LAYERS:
                names.clear()
                continue
            for file in files:
                path = Path(folder) / file
                if path.is_file() and not file.startswith("state.db"):
                    with contextlib.suppress(FileNotFoundError):  # Podman's are those of other tests too
                        yield str(path), path.read_bytes()


def running(space: Space) -> Iterator[tuple[str, bytes]]:
    """What every process was started with; of the agent's also its memory."""
    uid = space.get("a")["metadata"]["uid"]
    state = str(space.home.places.state)
    seen = 0
    for pid, argv in household.processes():
        boxed = uid in household.read(Path(f"/proc/{pid}/cgroup"))
        if not boxed and not any(state in word or uid in word for word in argv):
            continue
        with contextlib.suppress(OSError):
            yield f"environ of {argv[0]}", Path(f"/proc/{pid}/environ").read_bytes()
            yield f"command line of {argv[0]}", Path(f"/proc/{pid}/cmdline").read_bytes()
        if boxed:
            seen += 1
            for where, page in memory(pid):
                yield f"memory of {argv[:1]} at {where:x}", page
    assert seen, "the agent was not running"


def memory(pid: int) -> Iterator[tuple[int, bytes]]:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            bounds, rights = line.split()[:2]
            first, last = (int(part, 16) for part in bounds.split("-"))
            if rights.startswith("rw"):
                with contextlib.suppress(OSError, ValueError, OverflowError):
                    mem.seek(first)
                    yield first, mem.read(last - first)
