"""The steward on the real store and real jails: what only the two together can get wrong."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from agentk.api import kinds
from agentk.control import clock
from agentk.runtime import jails, uids
from tests.control import cases, stories
from tests.control.stories import story
from tests.runtime import launching

pytestmark = launching.needs_jail
SLEEP = "import time; print('up', flush=True); time.sleep(1000)"
LIMITS = {"limits": {"cpu": "1", "memory": "128Mi", "pids": 32, "ephemeral-storage": "4Mi"}}


class JailHouse(stories.House):
    def __init__(self, folder: Path, there: launching.Place, runtime: jails.Jails) -> None:
        super().__init__(folder, clock.BootClock(), {"nsjail": runtime, "process": runtime})
        self.there, self.runtime = there, runtime
        self._block = uids.block(there.state, there.instance) if os.geteuid() == 0 else None

    async def host_uid(self, namespace: str, uid: str) -> int:
        if self._block is None:
            return -1
        return await self.store.host_uid(namespace, uid, self._block[1:])

    async def release_host_uid(self, uid: str) -> None:
        await self.store.release_host_uid(uid)

    async def python(self, name: str, code: str, **spec: Any) -> dict[str, Any]:
        files = {"source": {"inline": {"files": {"main.py": code}}}, "resources": LIMITS}
        return await self.agent(name, **{**files, "command": ["python", "main.py"], **spec})

    def log(self, agent: dict[str, Any], attempt: int = 1) -> list[str]:
        return self.there.log(attempt, agent["metadata"]["uid"])


@contextlib.asynccontextmanager
async def house() -> AsyncIterator[JailHouse]:
    with launching.place() as there, tempfile.TemporaryDirectory() as folder:
        there.launch()
        async with launching.connected(there) as runtime:
            made = JailHouse(Path(folder), there, runtime)
            try:
                await stories.furnish(made)
                if os.geteuid() != 0:
                    await made.change(
                        "nsjail", lambda obj: obj["spec"].update(enforcement="BestEffort"), "runtime"
                    )
                made.begin()
                yield made
            finally:
                await made.end()
                made.store.close()


@story
async def test_an_agent_from_object_to_exit_code() -> None:
    async with house() as it:
        agent = await it.python(
            "a", "import os; print(os.environ['AGENTK_AGENT']); raise SystemExit(3)", restartPolicy="Never"
        )
        status = await it.until("a", phase="Failed", reason="Error")
        assert status["exitCode"] == 3
        assert status["logPath"].endswith("1.log")
        assert it.log(agent) == ["a"]
        assert not await it.runtime.list()


@story
async def test_failures_restart_until_the_limit_in_the_same_workspace() -> None:
    async with house() as it:
        code = "import sys; f = open('/workspace/n', 'a+'); f.write('x'); f.seek(0); print(f.read()); sys.exit(1)"
        agent = await it.python("a", code, backoffLimit=2, restartBackoff={"initialSeconds": 0})
        status = await it.until("a", phase="Failed")
        assert (status["attempt"], status["restartCount"]) == (3, 2)
        assert [it.log(agent, attempt) for attempt in (1, 2, 3)] == [["x"], ["xx"], ["xxx"]]


@story
async def test_memory_is_the_reason_only_when_the_kernel_counted_it() -> None:
    async with house() as it:
        await it.python("hog", "x = bytearray(1 << 30); print(len(x))", restartPolicy="Never")
        await it.python("nine", "import os; os.kill(os.getpid(), 9)", restartPolicy="Never")
        nine = await it.until("nine", phase="Failed")
        if "memory" not in str(nine["limits"]["unenforced"]):
            hog = await it.until("hog", phase="Failed")
            assert hog["reason"] == "OOMKilled" and hog["counters"]["oomKills"] >= 1
        assert (nine["reason"], nine["exitCode"]) == ("Error", 137)


@story
async def test_kill_replace_and_delete_leave_nothing() -> None:
    async with house() as it:
        await it.python("killed", SLEEP)
        await it.python("changed", SLEEP)
        for name in ("killed", "changed"):
            await it.until(name, phase="Running")
        await it.annotate("killed", kill=cases.kill(1))
        assert (await it.until("killed", phase="Failed", reason="Killed"))["exitCode"] == 143
        await it.edit("changed", env=[{"name": "X", "value": "1"}])
        await it.until("changed", phase="Running", attempt=2)
        for name in ("killed", "changed"):
            await it.store.delete(kinds.AGENT, "default", name)
            await it.gone(name)
        assert not await it.runtime.list()
        assert not list((it.there.state / "logs").iterdir())
        assert not await it.store.host_uids()


@story
async def test_suspend_stops_the_agent_where_it_is() -> None:
    async with house() as it:
        await it.python("a", SLEEP)
        await it.until("a", phase="Running")
        await it.edit("a", suspend=True)
        if os.geteuid() != 0:
            return  # no cgroup of ours to freeze
        await it.until("a", phase="Suspended")
        assert [seen.frozen for seen in await it.runtime.list()] == [True]
        await it.annotate("a", kill=cases.kill(1))
        await it.until("a", phase="Failed", reason="Killed")


@story
async def test_probes_run_in_the_agents_own_jail() -> None:
    async with house() as it:
        beat = {"heartbeat": {"file": "/workspace/.heartbeat", "maxAgeSeconds": 1}}
        often = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 20}
        await it.python(
            "beats",
            f"open('/workspace/.heartbeat', 'w').close(); {SLEEP}",
            readinessProbe={"exec": {"command": ["test", "-f", "/workspace/.heartbeat"]}, **often},
            livenessProbe={**beat, **often, "initialDelaySeconds": 1},
        )
        await it.until("beats", phase="Running", ready=True)
        status = await it.until("beats", reason="CrashLoopBackOff")
        assert "was not touched" in status["lastTermination"]["message"]


@story
async def test_steward_and_launcher_die_and_nothing_runs_twice() -> None:
    async with house() as it:
        agents = {
            "stays": await it.python("stays", SLEEP),
            "ends": await it.python(
                "ends", "import time; time.sleep(0.5); raise SystemExit(5)", restartPolicy="Never"
            ),
        }
        for name in agents:
            await it.until(name, phase="Running")
        before = {seen.uid: seen.process for seen in await it.runtime.list()}
        await it.end()
        it.there.die()
        await launching.holds(lambda: not _alive(before[agents["ends"]["metadata"]["uid"]]))
        it.there.launch()
        it.begin()
        assert (await it.until("ends", phase="Failed"))["exitCode"] == 5
        await it.steward.idle()
        status = await it.until("stays", phase="Running")
        assert (status["attempt"], status["restartCount"]) == (1, 0)
        after = {seen.uid: seen.process for seen in await it.runtime.list()}
        stays = agents["stays"]["metadata"]["uid"]
        assert after[stays] == before[stays]


def _alive(process: Any) -> bool:
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # gone, or going while it is read
        return False
    return int(stat.rsplit(")", 1)[1].split()[19]) == process.start_ticks


@story
async def test_many_agents_at_once() -> None:
    async with house() as it:
        names = [f"a{number}" for number in range(25)]
        await asyncio.gather(*(it.python(name, "print('done')", restartPolicy="Never") for name in names))
        for name in names:
            await it.until(name, phase="Succeeded")
        await it.steward.idle()
        assert not await it.runtime.list()
