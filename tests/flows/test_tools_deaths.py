"""kill -9 at every step of a tool's call: what may not be repeated never is, and what may be is done after all."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from agentk.broker import crash
from tests.flows import household
from tests.flows.household import Household, Space, python
from tests.flows.test_mcp_servers import SERVER
from tests.flows.test_tools import command, tool

pytestmark = household.needs

# Two calls; what each answers is how often the tool has done its work by then.
TWICE = """
from agentk.sdk import client, errors
agent = client.connect()
for _ in range(2):
    try:
        print(str(agent.tool_call("work")).split("It begins:\\n")[1].split("\\n")[0], flush=True)
    except errors.OutcomeUnknown:
        print("OutcomeUnknown", flush=True)
"""
WORK = "echo x >>done; wc -l <done; seq 200"
# By then it has not worked, or has.
BEFORE = ("call.intended", "tool.counted", "tool.making", "tool.made")
AFTER = ("tool.ran", "tool.kept", "call.handled")


@pytest.fixture(scope="module")
def fragile() -> Iterator[Household]:
    with household.household() as home:
        yield home


@pytest.fixture
def broken(fragile: Household) -> Iterator[Space]:
    with household.space(fragile) as made:
        yield made


def test_every_step_is_tried() -> None:
    assert {*BEFORE, *AFTER} == {*crash.TOOLING, "call.intended", "call.handled"}


@pytest.mark.parametrize(
    ("point", "idempotent"),
    [*((point, False) for point in (*BEFORE, *AFTER)), ("tool.made", True), ("call.handled", True)],
)
def test_the_daemon_dies_in_a_call_of_a_tool(broken: Space, point: str, idempotent: bool) -> None:
    limits = {"resources": {"limits": dict(household.TINY)}}
    broken.apply(command("work", "sh", "-c", WORK, idempotent=idempotent, resultBytes=800, jail=limits))
    (broken.home.crashes / point).touch()
    broken.apply(python("a", TWICE, tools=[{"ref": {"name": "work"}, "maxCalls": 3}]))
    assert broken.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(broken.log("a"))
    done = 0 if point in BEFORE else 1
    expected = [str(done + 1), str(done + 2)] if idempotent else ["OutcomeUnknown", str(done + 1)]
    assert broken.log("a") == expected
    assert not (broken.home.crashes / point).exists(), "nobody came by"


# Each tells by which keys it was called so far, itself included.
KEPT = "f = open('/workspace/keys', 'a+'); f.write(%s + '\\n'); f.seek(0); keys = f.read().split()"
FUNCTION = f"def work(idempotency_key: str) -> list:\n    {KEPT % 'idempotency_key'}\n    return keys"
METHOD = SERVER.replace(
    '        if given.get("act") == "die":',
    f"""        {KEPT % 'params["_meta"]["agentk.dev/idempotency-key"]'}; f.close()
        say(id=told["id"], result={{"content": [{{"type": "text", "text": json.dumps(keys)}}]}})
        continue
        if given.get("act") == "die":""",
)
SHELL = 'echo "\\"$IDEMPOTENCY_KEY\\"" >>keys; echo "[$(paste -sd, keys)]"'
ONCE = """
import json
from agentk.sdk import client
told = client.connect().tool_call("work")
print(json.dumps([told.is_error, str(told)]), flush=True)
"""


class Keys(http.server.BaseHTTPRequestHandler):
    kept: list[str]

    def do_POST(self) -> None:
        self.kept.append(self.headers["Idempotency-Key"])
        said = json.dumps(self.kept).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def keeping() -> Iterator[str]:
    """The address of a server that keeps the keys it is sent."""
    server = http.server.HTTPServer(("127.0.0.1", 0), type("Kept", (Keys,), {"kept": []}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("kind", ["command", "python", "mcp", "http"])
def test_a_call_that_comes_again_after_a_death_has_the_key_that_it_had(broken: Space, kind: str) -> None:
    limits = {"resources": {"limits": dict(household.TINY)}}
    app = {**limits, "source": {"inline": {"files": {"server.py": METHOD}}}}
    with keeping() as url:
        work = {
            "command": {"command": {"argv": ["sh", "-c", SHELL]}, "jail": limits},
            "python": {
                "python": {"functions": ["m:work"], "source": {"inline": {"files": {"m.py": FUNCTION}}}},
                "jail": limits,
            },
            "mcp": {"mcp": {"stdio": {"command": "python3", "args": ["/app/server.py"]}}, "jail": app},
            "http": {"http": {"url": url, "method": "POST", "privateAddresses": True}},
        }[kind]
        broken.apply(tool("work", idempotent="key", **work))
        (broken.home.crashes / "call.handled").touch()
        script = ONCE.replace('"work"', '"work__echo"') if kind == "mcp" else ONCE
        broken.apply(python("a", script, tools=[{"ref": {"name": "work"}}]))
        assert broken.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(broken.log("a"))
    (line,) = broken.log("a")
    wrong, said = json.loads(line)
    keys = json.loads(said)
    assert not wrong and len(keys) == 2 and len(set(keys)) == 1 and len(keys[0]) > 16, said
    assert not (broken.home.crashes / "call.handled").exists(), "nobody came by"
