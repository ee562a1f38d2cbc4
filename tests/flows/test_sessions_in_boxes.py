"""A Python that stays in its agent's box, in a jail and in a container: what it keeps, what limits it, when it ends."""

import json

from tests.flows import household
from tests.flows.household import Space, python

pytestmark = [*household.needs, household.on_both]

STEPS = """
import json, sys
from agentk.sdk import client
agent = client.connect()
for code in json.loads(sys.argv[1]):
    ran = agent.exec(code, session="main", timeout_seconds=600)
    said = ran.stdout.strip() or ran.stderr.strip().splitlines()[-1]
    print(json.dumps([ran.session, ran.reason, said]), flush=True)
if len(sys.argv) > 2:
    import time
    time.sleep(1000)
"""
FORKS = """
import os, signal
made = []
try:
    while True:
        made.append(os.fork())
        if not made[-1]:
            signal.pause()
except OSError as error:
    print(type(error).__name__, len(made) < 24)
finally:
    for one in made:
        os.kill(one, 9), os.waitpid(one, 0)
"""
LIMITS = {"cpu": "1", "memory": "96Mi", "pids": 24, "ephemeral-storage": "4Mi"}


def test_what_a_step_made_is_kept_and_the_limits_of_the_box_hold(space: Space) -> None:
    steps = [
        "import os\nx = [1]\nhere = os.getpid()\nopen('kept', 'w').write('a')",
        "x.append(2)\nprint(x, here == os.getpid(), open('kept').read(), os.getcwd())",
        FORKS,
        "print(x)\nheld = b'x' * 500_000_000",
        "'x' in globals(), open('kept').read()",
    ]
    made = python("a", STEPS, resources={"limits": LIMITS})
    made["spec"]["command"].append(json.dumps(steps))
    space.apply(made)
    status = space.phase("a", "Succeeded", "Failed")
    log = space.log("a")
    assert status["reason"] == "Completed", log
    told = [json.loads(line) for line in log]
    assert told[0] == ["New", "Completed", "1"] and told[1] == [
        "Kept",
        "Completed",
        "[1, 2] True a /workspace",
    ]
    assert told[2] == ["Kept", "Completed", "BlockingIOError True"]
    assert told[3] == ["Ended", "OOMKilled", "[1, 2]"] and told[4] == ["New", "Completed", "(False, 'a')"], (
        told
    )


def test_it_ends_with_its_box(space: Space) -> None:
    begins = "import os\nos.fork() or __import__('time').sleep(1000)\nprint('stays')"
    made = python("a", STEPS, resources={"limits": LIMITS})
    made["spec"]["command"] += [json.dumps([begins]), "and waits"]
    space.apply(made)
    space.logged("a", json.dumps(["New", "Completed", "stays"]))
    uid = space.get("a")["metadata"]["uid"]
    assert any(one.startswith("process") for one in space.home.traces(uid))
    space.delete("a")
    space.home.clean(uid)
