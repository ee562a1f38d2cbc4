"""The steward on the real store: from objects to boxes and back to status."""

import asyncio

from agentk.api import errors, kinds
from agentk.control import decide
from agentk.runtime import box
from tests.control import cases, stories
from tests.control.stories import story


@story
async def test_an_agent_runs_to_its_end() -> None:
    async with stories.house() as house:
        await house.agent("a", restartPolicy="Never")
        status = await house.until("a", phase="Running", ready=True)
        assert status["attempt"] == 1 and status["hostUID"] == 70000
        house.runtime.end_all(0)
        status = await house.until("a", phase="Succeeded", exitCode=0)
        assert status["observedGeneration"] == 1
        assert {"Starting", "Started", "Exited", "Succeeded"} <= set(await house.events("a"))
        assert not house.runtime.boxes, "an ended box is removed once its end is stored"


@story
async def test_a_crash_waits_and_starts_again() -> None:
    async with stories.house() as house:
        await house.agent("a")
        await house.until("a", phase="Running")
        house.runtime.end_all(1)
        await house.until("a", reason="CrashLoopBackOff")
        await house.steward.idle()
        await house.clock.advance(10)
        status = await house.until("a", phase="Running")
        assert (status["attempt"], status["restartCount"]) == (2, 1)
        assert status["lastTermination"]["exitCode"] == 1


@story
async def test_deletion_ends_releases_and_lets_go() -> None:
    async with stories.house() as house:
        agent = await house.agent("a")
        await house.until("a", phase="Running")
        obj = await house.store.get(kinds.AGENT, "default", "a")
        assert obj["metadata"]["finalizers"] == [decide.FINALIZER]
        await house.store.delete(kinds.AGENT, "default", "a")
        await house.gone("a")
        assert house.runtime.released == [agent["metadata"]["uid"]]
        assert not house.runtime.boxes and not house.host_uids


@story
async def test_an_agent_that_hears_no_signal_is_killed_after_the_grace() -> None:
    async with stories.house() as house:
        house.runtime.deaf = True
        await house.agent("a", terminationGracePeriodSeconds=7)
        await house.until("a", phase="Running")
        await house.annotate("a", kill=cases.kill(1))
        await house.until("a", phase="Terminating")
        await house.steward.idle()
        await house.clock.advance(7)
        status = await house.until("a", phase="Failed", reason="Killed")
        assert status["exitCode"] == 137


@story
async def test_a_changed_spec_replaces_the_box() -> None:
    async with stories.house() as house:
        await house.agent("a")
        await house.until("a", phase="Running")
        await house.edit("a", command=["other"])
        await house.until("a", phase="Running", attempt=2, observedGeneration=2)
        assert [list(made.argv) for made in house.runtime.made] == [["python"], ["other"]]


@story
async def test_metadata_alone_replaces_nothing() -> None:
    async with stories.house() as house:
        await house.agent("a")
        await house.until("a", phase="Running")
        await house.change("a", lambda obj: obj["metadata"].update(labels={"x": "y"}))
        await house.edit("a", priority=5)
        await house.until("a", phase="Running", observedGeneration=2)
        assert len(house.runtime.made) == 1


@story
async def test_a_missing_secret_is_waited_for() -> None:
    async with stories.house() as house:
        env = [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
        await house.agent("a", env=env)
        await house.until("a", phase="Pending", reason="ConfigError")
        await house.make("secret", "s", data={"k": "aHVzaA=="})
        await house.until("a", phase="Running")
        assert house.runtime.made[0].env["T"] == "hush"


@story
async def test_a_missing_runtime_and_a_missing_source_are_waited_for() -> None:
    async with stories.house() as house:
        house.missing_sources.add("sha256:1")
        await house.agent("a", runtimeRef={"name": "mine"}, source={"path": "x", "digest": "sha256:1"})
        await house.until("a", reason="RuntimeNotFound")
        await house.make("runtime", "mine", {"type": "nsjail"})
        await house.until("a", reason="SourceUnavailable")
        house.missing_sources.clear()
        await house.steward.idle()
        await house.clock.advance(30)
        await house.until("a", phase="Running")
        assert house.runtime.made[0].mounts[1].source == "/sources/1"


@story
async def test_a_runtime_of_an_unknown_type_says_so() -> None:
    async with stories.house() as house:
        await house.make("runtime", "odd", {"type": "process"})
        await house.make("policy", "free", {"level": "privileged"})
        await house.agent("a", runtimeRef={"name": "odd"}, policyRef={"name": "free"})
        await house.until("a", phase="Pending", reason="SandboxUnavailable")
        assert (await house.until("odd", "runtime", available=False))["reason"]


@story
async def test_a_refused_start_is_tried_again() -> None:
    async with stories.house() as house:
        cause = errors.Cause("limits", "memory: no cgroup")
        house.runtime.refuse = errors.RuntimeRefused("limits cannot be held", causes=[cause])
        await house.agent("a")
        status = await house.until("a", phase="Pending", message="limits cannot be held")
        assert status["limits"]["unenforced"] == ["memory: no cgroup"]
        house.runtime.refuse = None
        await house.steward.idle()
        await house.clock.advance(10)
        await house.until("a", phase="Running", attempt=1)


@story
async def test_quota_lets_in_by_priority_and_tells_what_is_used() -> None:
    async with stories.house(begin=False) as house:
        await house.make("quota", "q", {"hard": {"agents": 1}})
        for name, priority in [("low", 0), ("high", 9), ("middle", 5)]:
            await house.agent(name, priority=priority, restartPolicy="Never")
        house.begin()
        await house.until("high", phase="Running")
        await house.until("low", phase="Pending", reason="QuotaExceeded")
        await house.until("middle", phase="Pending", reason="QuotaExceeded")
        await house.steward.idle()
        await house.clock.advance(1)
        await house.until("q", "quota", used={"agents": 1, "cpu": "0", "memory": "0"})
        for name in ["middle", "low"]:
            house.runtime.end_all(0)
            await house.until(name, phase="Running")
        assert house.runtime.most == 1


@story
async def test_a_larger_quota_lets_in_at_once() -> None:
    async with stories.house() as house:
        await house.make("quota", "q", {"hard": {"agents": 0}})
        await house.agent("a")
        await house.until("a", reason="QuotaExceeded")
        await house.change("q", lambda obj: obj["spec"].update(hard={"agents": 1}), "quota")
        await house.until("a", phase="Running")


@story
async def test_one_stuck_agent_does_not_hold_up_the_others() -> None:
    async with stories.house(workers=2) as house:
        house.runtime.stuck = asyncio.Event()
        await house.agent("stuck")
        for number in range(5):
            await house.agent(f"a{number}")
        for number in range(5):
            await house.until(f"a{number}", phase="Running")
        house.runtime.stuck.set()
        await house.until("stuck", phase="Running")


@story
async def test_after_a_crash_of_the_steward_everything_is_found_again() -> None:
    async with stories.house() as house:
        for name in "abc":
            await house.agent(name)
            await house.until(name, phase="Running")
        await house.end()
        ends = {one.annotations["name"]: one.id for one in house.runtime.live()}
        house.runtime.end(ends["a"], 7)
        del house.runtime.boxes[ends["b"]]
        await house.clock.advance(3)
        house.begin()
        assert (await house.until("a", reason="CrashLoopBackOff"))["exitCode"] == 7
        status = await house.until("b", phase="Running", attempt=2)
        assert status["lastTermination"]["reason"] == "Lost"
        assert (await house.until("c", phase="Running"))["attempt"] == 1
        assert "Adopted" in await house.events("c")


@story
async def test_boxes_of_agents_that_are_gone_are_released() -> None:
    async with stories.house(begin=False) as house:
        made = box.Box("x-1", "x", "default", 1, ["sleep"], annotations={"name": "ghost"})
        await house.runtime.start(made)
        house.begin()
        await house.agent("a")
        await house.until("a", phase="Running")
        assert house.runtime.released == ["x"]


@story
async def test_a_runtime_that_does_not_answer_starts_nothing() -> None:
    async with stories.house(begin=False) as house:
        house.runtime.away = errors.Unavailable("no launcher")
        await house.agent("a")
        house.begin()
        await house.until("a", phase="Pending", reason="SandboxUnavailable")
        house.runtime.away = None
        await house.steward.idle()
        await house.clock.advance(6)
        await house.until("a", phase="Running")
        assert len(house.runtime.made) == 1


@story
async def test_a_dead_heartbeat_ends_the_agent() -> None:
    async with stories.house() as house:
        probe = {"heartbeat": {"file": "/workspace/.heartbeat", "maxAgeSeconds": 5}, "periodSeconds": 2}
        house.runtime.answer = box.ExecResult(box.Exit(0, None, "wait", ""), b"1", b"")
        await house.agent("a", livenessProbe=probe)
        await house.until("a", phase="Running")
        await house.steward.idle()
        await house.clock.advance(15)
        status = await house.until("a", reason="CrashLoopBackOff")
        assert "liveness" in status["lastTermination"]["message"]
        assert "Killing" in await house.events("a")


@story
async def test_suspend_freezes_and_resume_thaws() -> None:
    async with stories.house() as house:
        await house.agent("a")
        await house.until("a", phase="Running")
        await house.edit("a", suspend=True)
        await house.until("a", phase="Suspended")
        assert [one.frozen for one in house.runtime.live()] == [True]
        await house.edit("a", suspend=False)
        await house.until("a", phase="Running")
        assert [one.frozen for one in house.runtime.live()] == [False]


@story
async def test_ttl_deletes_a_finished_agent() -> None:
    async with stories.house() as house:
        await house.agent("a", restartPolicy="Never", ttlSecondsAfterFinished=30)
        await house.until("a", phase="Running")
        house.runtime.end_all(0)
        await house.until("a", phase="Succeeded")
        await house.steward.idle()
        await house.clock.advance(30)
        await house.gone("a")


@story
async def test_an_agent_of_the_same_name_is_another_agent() -> None:
    async with stories.house() as house:
        first = await house.agent("a")
        await house.until("a", phase="Running")
        await house.store.delete(kinds.AGENT, "default", "a")
        await house.gone("a")
        await house.agent("a")
        status = await house.until("a", phase="Running")
        assert status["attempt"] == 1
        assert first["metadata"]["uid"] not in status["boxID"]


@story
async def test_two_hundred_agents_at_once() -> None:
    async with stories.house() as house:
        names = [f"a{number}" for number in range(200)]
        await asyncio.gather(*(house.agent(name, restartPolicy="Never") for name in names))
        for name in names:
            await house.until(name, phase="Running")
        house.runtime.end_all(0)
        for name in names:
            await house.until(name, phase="Succeeded")
        assert len(house.runtime.made) == 200
