"""Pools under the steward, on the real store: filled, handed out once, replaced, and gone with nothing left."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from agentk.api import errors, kinds
from agentk.control import pool_boxes, sharing
from agentk.runtime import box
from tests.control import stories, virtual
from tests.control.stories import story

Object = dict[str, Any]


@contextlib.asynccontextmanager
async def ticking(**settings: Any) -> AsyncIterator[stories.ModelHouse]:
    """Time goes by whenever nothing is to be done."""
    async with stories.house(**settings) as house:
        clock = asyncio.create_task(house.run_clock())
        try:
            yield house
        finally:
            clock.cancel()
            await asyncio.gather(clock, return_exceptions=True)


async def pool(house: stories.House, size: int = 2, **fields: Any) -> Object:
    spec = {"size": size, "refillRate": "100/s", "maxAge": "1h", "runtimeRef": {"name": "nsjail"}, **fields}
    return await house.make("pool", "p", {"template": {}, **spec})


async def agent(house: stories.House, name: str, **spec: Any) -> None:
    """With the limit that an admitted one has, as boxes that wait do."""
    await house.agent(name, resources={"limits": {"open-files": 1024}}, **spec)


def waiting(house: stories.House) -> list[box.Seen]:
    return [one for one in house.runtime.live() if pool_boxes.is_waiting(one.uid)]


def condition(status: Object, kind: str) -> str:
    found = next(one for one in status["conditions"] if one["type"] == kind)
    return f"{found['status']}/{found['reason']}"


async def full(house: stories.House, **wanted: Any) -> Object:
    """The Pool's status once it says so; numbers are told at most twice a second."""
    return await house.until("p", "pool", **wanted)


@story
async def test_boxes_wait_and_an_agent_starts_in_one_of_them() -> None:
    async with ticking() as house:
        await pool(house)
        status = await full(house, ready=2, wanted=2)
        assert [condition(status, kind) for kind in ("Ready", "Reconciling", "Stalled")] == [
            "True/Filled",
            "False/Filled",
            "False/Filled",
        ]
        waits = {one.uid for one in waiting(house)}
        assert set(house.host_uids) == waits
        await agent(house, "a", poolRef={"name": "p"}, env=[{"name": "K", "value": "v"}])
        status = await house.until("a", phase="Running")
        assert status["start"] == {"type": "Warm", "message": 'a box of Pool "p" that waited'}
        started = next(one for one in house.runtime.made if one.annotations["name"] == "a")
        assert (started.env["K"], started.host_uid) == ("v", status["hostUID"])
        assert status["hostUID"] in (70000, 70001)
        status = await full(house, ready=2, claimed=1)
        assert status["handOut"]["count"] == 1 and status["handOut"]["cold"] == 0
        assert status["handOut"]["buckets"][-1] == {"leMs": "+Inf", "count": 1}
        assert len({one.uid for one in waiting(house)} - waits) == 1, "one was made anew"
        assert "StartedWarm" in await house.events("a")
        house.runtime.end_all(0)
        await full(house, claimed=0)


@story
async def test_a_second_attempt_keeps_its_files_and_starts_cold() -> None:
    async with ticking() as house:
        await pool(house)
        await full(house, ready=2)
        await agent(house, "a", poolRef={"name": "p"}, restartPolicy="Always")
        first = await house.until("a", phase="Running", attempt=1)
        running = next(one for one in house.runtime.live() if one.annotations["name"] == "a")
        house.runtime.end(running.id, 1)
        second = await house.until("a", phase="Running", attempt=2)
        assert second["start"]["type"] == "Cold" and "earlier start" in second["start"]["message"]
        assert second["hostUID"] == first["hostUID"]
        await full(house, ready=2)


@story
async def test_what_does_not_fit_starts_cold_and_says_why() -> None:
    async with ticking() as house:
        await pool(house)
        await full(house, ready=2)
        digest = "sha256:" + "1" * 64
        await agent(house, "other", poolRef={"name": "p"}, source={"path": "x", "digest": digest})
        status = await house.until("other", phase="Running")
        assert status["start"] == {
            "type": "Cold",
            "message": 'Pool "p": its source: not as the Pool\'s template has it now',
        }
        await house.agent("lost", poolRef={"name": "none"})
        status = await house.until("lost", phase="Running")
        assert status["start"] == {"type": "Cold", "message": 'Pool "none" does not exist'}
        await house.agent("plain")
        assert "start" not in await house.until("plain", phase="Running")
        await full(house, ready=2, claimed=0)


@story
async def test_files_of_its_own_do_not_keep_an_agent_from_a_waiting_box() -> None:
    async with ticking() as house:
        await pool(house)
        await full(house, ready=2)
        await agent(house, "a", poolRef={"name": "p"}, source={"inline": {"files": {"m.py": "1"}}})
        assert (await house.until("a", phase="Running"))["start"]["type"] == "Warm"


@story
async def test_a_box_that_cannot_be_handed_out_is_gone_before_another_runs_as_its_uid() -> None:
    async with ticking() as house:
        await pool(house, size=1)
        await full(house, ready=1)
        waited = waiting(house)[0]
        house.runtime.unfit = errors.Conflict("the interpreter has ended")
        await agent(house, "a", poolRef={"name": "p"})
        status = await house.until("a", phase="Running")
        assert status["start"]["type"] == "Cold"
        assert "could not be handed out: the interpreter has ended" in status["start"]["message"]
        assert status["hostUID"] == 70000 and waited.uid in house.runtime.released
        await full(house, ready=1)


@story
async def test_many_agents_at_once_never_share_a_box() -> None:
    async with ticking() as house:
        await pool(house, size=5)
        await full(house, ready=5)
        for number in range(12):
            await agent(house, f"a{number}", poolRef={"name": "p"})
        statuses = [await house.until(f"a{number}", phase="Running") for number in range(12)]
        assert len({one["hostUID"] for one in statuses}) == 12
        warm = sum(one["start"]["type"] == "Warm" for one in statuses)
        assert warm >= 5
        status = await full(house, ready=5, claimed=warm)
        assert (status["handOut"]["count"], status["handOut"]["cold"]) == (warm, 12 - warm)


@story
async def test_a_changed_template_replaces_what_waits() -> None:
    async with ticking() as house:
        await pool(house)
        await full(house, ready=2)
        old = {one.uid for one in waiting(house)}
        digest = "sha256:" + "2" * 64
        template = {"source": {"path": "x", "digest": digest}}
        await house.change("p", lambda obj: obj["spec"].update(template=template), "pool")
        await full(house, ready=2, observedGeneration=2)
        assert not old & {one.uid for one in waiting(house)} and old <= set(house.runtime.released)
        assert house.runtime.made[-1].mounts[0].source.endswith("2" * 64)


@story
async def test_boxes_grow_old_and_are_replaced() -> None:
    async with stories.house() as house:
        await pool(house, maxAge="60s", size=1)
        await house.until("p", "pool", ready=1)
        old = waiting(house)[0].uid
        await house.steward.idle()
        await house.clock.advance(61)
        while waiting(house)[0].uid == old or len(waiting(house)) > 1:
            await house.steward.idle()
            await house.clock.advance(0.5)
        assert old in house.runtime.released


@story
async def test_a_deleted_pool_leaves_nothing_but_the_agents_in_its_boxes() -> None:
    async with ticking() as house:
        await pool(house)
        await full(house, ready=2)
        await agent(house, "a", poolRef={"name": "p"})
        await house.until("a", phase="Running")
        await house.store.delete(kinds.POOL, "default", "p")
        await house.gone("p", "pool")
        assert not waiting(house) and [one.annotations["name"] for one in house.runtime.live()] == ["a"]
        assert len(house.host_uids) == 1


@story
async def test_what_cannot_be_made_is_told_and_tried_again() -> None:
    async with ticking() as house:
        house.runtime.refuse = errors.RuntimeRefused("this host does not hold these limits: memory")
        await pool(house)
        status = await full(house, ready=0, wanted=2)
        while condition(status, "Stalled") != "True/SandboxUnavailable":
            status = (await house.store.get(kinds.POOL, "default", "p"))["status"]
            await house.steward.idle()
        house.runtime.refuse = None
        status = await full(house, ready=2)
        assert condition(status, "Stalled") == "False/Filled"
        await house.change(
            "p", lambda obj: obj["spec"].update(template={"policyRef": {"name": "gone"}}), "pool"
        )
        status = await full(house, ready=2, observedGeneration=2)
        assert condition(status, "Stalled") == "True/PolicyNotFound"


@story
async def test_agents_take_the_room_of_boxes_that_wait() -> None:
    async with ticking(node=sharing.Node(boxes=3, running=3)) as house:
        await pool(house)
        await full(house, ready=2)
        for name in "abc":
            await house.agent(name)
            await house.until(name, phase="Running")
        status = await full(house, ready=0, wanted=0)
        assert condition(status, "Reconciling") == "False/NoRoom"
        house.runtime.end_all(0)
        await full(house, ready=2)


@story
async def test_another_daemon_goes_on_with_what_waits_and_ends_what_it_cannot_use() -> None:
    async with ticking() as house:
        await pool(house)
        await full(house, ready=2)
        before = {one.uid for one in waiting(house)}
        await house.end()
        orphan = box.Box("pool-x-1", "pool-x", "default", 1, [], waits=True, host_uid=70009)
        await house.runtime.start(replace(orphan, annotations={"name": "x", "pool": "gone"}))
        half = min(
            before, key=lambda uid: house.host_uids[uid]
        )  # handed over in the ledger, and the daemon died before the box was
        del house.host_uids[half]
        house.begin()
        await full(house, ready=2)
        while len(waiting(house)) != 2 or half in {one.uid for one in waiting(house)}:
            await virtual.settle()
        assert (before - {half}) <= {one.uid for one in waiting(house)}
        assert "pool-x" in house.runtime.released and set(house.host_uids) == {
            one.uid for one in waiting(house)
        }


@story
async def test_a_runtime_without_a_jail_has_no_boxes_that_wait() -> None:
    async with ticking() as house:
        await house.make("runtime", "plain", {"type": "process"})
        await pool(house, runtimeRef={"name": "plain"})
        while not (status := (await house.store.get(kinds.POOL, "default", "p")).get("status")):
            await virtual.settle()
        while condition(status, "Stalled")[:4] != "True":
            status = (await house.store.get(kinds.POOL, "default", "p"))["status"]
            await virtual.settle()
        assert not waiting(house)
