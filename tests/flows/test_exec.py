"""An agent in its jail has programs run beside it, through the client it finds there."""

import os

import pytest

from tests.flows import household
from tests.flows.household import Space, python

pytestmark = household.needs

RUN = """
import os
import agentk.sdk.client as sdk

with sdk.connect() as agent:
    code = "import os; print(os.getuid(), os.getpid() < 10, os.environ['AGENTK_AGENT']); open('made', 'w').write('x')"
    print(agent.exec_python(code).stdout.strip(), os.path.exists("/workspace/made"))
    shell = agent.exec_shell("grep -E '^(Cap(Eff|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status; exit 3")
    print(shell.exit_code, " ".join(shell.stdout.split()))
    print(agent.exec(argv=["cat"], stdin="fed").stdout, agent.exec_shell("ls /proc | grep -c '^[0-9]'").ok)
    print(agent.exec(argv=["sleep", "1000"], timeout_seconds=0.5).reason)
    with agent.stream(sdk.calls.exec_shell("echo one; echo two >&2")) as pieces:
        said = [piece for piece in pieces]
    print(sorted("".join(getattr(piece, name) for piece in said) for name in ("stdout", "stderr")))
    job = agent.exec(argv=["sleep", "1000"], background=True)
    print(job.state, agent.exec_cancel(job.id), agent.exec_poll(job.id).reason, agent.exec_cancel(job.id))
    inner = "import agentk.sdk.client as sdk; print(sdk.connect().exec_python('print(6 * 7)').stdout, end='')"
    print(agent.exec_python(inner).stdout.strip())
"""


BESIDE = """\
1000 True a True
3 CapEff: 0000000000000000 CapBnd: 0000000000000000 NoNewPrivs: 1 Seccomp: 2
fed True
DeadlineExceeded
['one\\n', 'two\\n']
Running True Cancelled False
42"""


@household.on_both
def test_an_agent_runs_programs_beside_itself(space: Space) -> None:
    space.apply(python("a", RUN))
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("a"))
    assert "\n".join(space.agentk("logs", "a").lines) == BESIDE


LIMIT = """
import agentk.sdk.client as sdk
with sdk.connect() as agent:
    for limits in ({"memory": "24Mi"}, None):
        ran = agent.exec("x = bytearray(40 << 20)", limits=limits)
        print(ran.exit_code, ran.reason)
    try:
        agent.exec("1", limits={"memory": "1Gi"})
    except sdk.errors.Invalid as error:
        print(error)
"""


@household.on_both
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs cgroups")
def test_a_program_has_the_limits_of_its_agent_or_lower_ones(space: Space) -> None:
    limits = {"cpu": "1", "memory": "128Mi", "pids": 32, "ephemeral-storage": "1Mi"}
    space.apply(python("a", LIMIT, resources={"limits": limits}))
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("a"))
    lower, own, wider = space.agentk("logs", "a").lines
    assert (lower, own) == ("137 OOMKilled", "0 Completed")
    assert "1073741824 is above the agent's own 134217728" in wider


LOST = """
import agentk.sdk.client as sdk
with sdk.connect() as agent:
    job = agent.exec(argv=["sleep", "1000"], background=True)
    try:
        with agent.stream(sdk.calls.exec_shell("echo >>begun; echo up; (setsid sleep 1000 &); sleep 1000")) as pieces:
            for piece in pieces:
                print(piece.stdout.strip(), flush=True)
    except sdk.errors.OutcomeUnknown:
        print("unknown", flush=True)
    try:
        agent.exec_poll(job.id)
    except sdk.errors.OutcomeUnknown:
        print("unknown too")
    print(agent.exec_shell("wc -l <begun").stdout.strip())
"""


@household.on_both
def test_after_the_daemons_death_it_is_not_known_and_not_run_again(alone: Space) -> None:
    alone.apply(python("a", LOST))
    alone.logged("a", "up")
    alone.home.kill("daemon")
    assert alone.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(alone.log("a"))
    assert alone.log("a") == ["up", "unknown", "unknown too", "1"]
    alone.home.clean("/exec-")


@household.on_both
def test_programs_end_with_their_agent(space: Space) -> None:
    run = "sdk.connect().exec(argv=['sleep', '4242'], background=True)"
    space.apply(python("a", f"import agentk.sdk.client as sdk, time; {run}; time.sleep(1000)"))
    household.until("it runs", sleeping)
    space.agentk("kill", "a")
    household.until("it is gone", lambda: not sleeping())


def sleeping() -> list[int]:
    return [pid for pid, argv in household.processes() if list(argv[-2:]) == ["sleep", "4242"]]
