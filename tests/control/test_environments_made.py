"""Environments as the steward asks for them: built once for all, whoever dies, and let go when nobody wants them."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agentk.control import environment_boxes, environments, plans, prepared
from agentk.control.clock import BootClock
from agentk.runtime import box, jails, uids
from tests.runtime import launching, packages
from tests.runtime.packages import Index

pytestmark = launching.needs_jail
Answer = tuple[prepared.Prepared, plans.Problem | None]
QUICK = environments.Settings(progress_seconds=0.05, first_retry_seconds=0.05, unused_seconds=0.0)


class Daemon:
    """What asks for environments, as long as it lives."""

    def __init__(self, there: launching.Place, runtime: jails.Jails, index: Index, **settings: Any) -> None:
        self.runtime, self.there = runtime, there
        env = {"PIP_INDEX_URL": index.url}
        sources = environment_boxes.Sources(env, "", {str(index.folder): str(index.folder)})
        builder = uids.block(there.state, there.instance)[-1] if os.geteuid() == 0 else -1
        folder = there.state / "store" / "environments"
        chosen = environments.Settings(**{**vars(QUICK), **settings})
        self.made = environments.Environments(runtime, folder, BootClock(), lambda: sources, builder, chosen)
        self.woken = asyncio.Event()
        self.made.wake = lambda uid: self.woken.set()
        self.task = asyncio.create_task(self.made.run())

    async def die(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def ask(self, *requirements: str, uid: str = "u-1") -> Answer:
        spec = {"environment": {"python": {"requirements": list(requirements)}}}
        return await self.made.prepare({"metadata": {"uid": uid}, "spec": spec}, {})

    async def until(self, holds: Callable[[Answer], bool], *requirements: str) -> Answer:
        async with asyncio.timeout(launching.WAIT_SECONDS):
            while True:
                self.woken.clear()
                if holds(answer := await self.ask(*requirements)):
                    return answer
                await self.woken.wait()

    async def ready(self, *requirements: str) -> str:
        given, _ = await self.until(lambda answer: answer[1] is None, *requirements)
        return str(given.told["python"]["name"])

    async def kept(self) -> list[str]:
        return list((await self.runtime.environments())[0])


Story = Callable[[Callable[..., Daemon], Index], Coroutine[Any, Any, None]]


def play(story: Story) -> None:
    with launching.place() as there, packages.index() as index:
        there.launch()

        async def flow() -> None:
            async with launching.connected(there) as runtime:
                daemons: list[Daemon] = []

                def start(**settings: Any) -> Daemon:
                    daemons.append(Daemon(there, runtime, index, **settings))
                    return daemons[-1]

                await story(start, index)
                for one in daemons:
                    await one.die()

        asyncio.run(flow())


def test_many_that_ask_the_same_get_one() -> None:
    async def story(start: Callable[..., Daemon], index: Index) -> None:
        index.wheel("tree")
        daemon = start()
        answers = await asyncio.gather(*(daemon.ask("tree", uid=f"u-{number}") for number in range(20)))
        assert {problem.reason for _, problem in answers if problem} == {"EnvironmentResolving"}
        boxes = [seen for seen in await daemon.runtime.list() if seen.leaf == environment_boxes.LEAF]
        assert len(boxes) <= 1
        name = await daemon.ready("Tree")
        assert await daemon.kept() == [name]
        given, _ = await daemon.ask("tree")
        assert given.mounts == (box.Mount("environment", prepared.PYTHON, source=name),)
        assert given.told["python"]["packages"] == 1 and given.path == ("/opt/env/python/bin",)
        assert not [seen for seen in await daemon.runtime.list() if seen.leaf == environment_boxes.LEAF]

    play(story)


def test_a_daemon_that_comes_after_goes_on_with_what_is_being_made() -> None:
    async def story(start: Callable[..., Daemon], index: Index) -> None:
        index.wheel("tree")
        first = start()
        await first.ask("tree")
        async with asyncio.timeout(launching.WAIT_SECONDS):
            while not (begun := [seen for seen in await first.runtime.list() if seen.attempt == 1]):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await first.die()
        second = start()
        await second.ask("tree")
        there = [seen for seen in await second.runtime.list() if seen.attempt == 1]
        # it may have been seen while it was being made, and had no beginning yet
        assert not there or begun[0].started_at in ("", there[0].started_at)
        name = await second.ready("tree")
        assert await second.kept() == [name]
        assert (await second.runtime.environments())[1] == []

    play(story)


def test_what_is_not_to_be_had_is_told_and_tried_again() -> None:
    async def story(start: Callable[..., Daemon], index: Index) -> None:
        daemon = start()
        failed = await daemon.until(
            lambda answer: bool(answer[1] and answer[1].reason == environments.FAILED), "tree"
        )
        assert failed[1] is not None and "No matching distribution found for tree" in failed[1].message
        assert await daemon.runtime.environments() == ([], [])
        index.wheel("tree")
        await daemon.ready("tree")

    play(story)


def test_one_that_nobody_names_goes_and_one_in_use_stays() -> None:
    async def story(start: Callable[..., Daemon], index: Index) -> None:
        index.wheel("tree")
        index.wheel("leaf")
        daemon = start()
        tree, leaf = await daemon.ready("tree"), await daemon.ready("leaf")
        mount = box.Mount("environment", prepared.PYTHON, source=leaf)
        await daemon.runtime.start(daemon.there.make("sleep", "1000", mounts=(mount,)))
        await daemon.made.collect({tree})
        assert sorted(await daemon.kept()) == sorted(
            [tree, leaf]
        )  # a box sees the one, an agent names the other
        await daemon.runtime.remove("u-1-1")
        await daemon.made.collect({tree})
        assert await daemon.kept() == [tree]
        assert [path.stem for path in _records(daemon)] == [tree]
        assert await daemon.ready("leaf") == leaf  # and is made anew for who asks again
        patient = start(unused_seconds=3600.0)
        await patient.made.collect(set())
        assert sorted(await daemon.kept()) == sorted([tree, leaf])

    play(story)


def test_half_of_one_that_nobody_goes_on_with_is_removed() -> None:
    async def story(start: Callable[..., Daemon], index: Index) -> None:
        index.wheel("tree")
        first = start()
        async with asyncio.timeout(launching.WAIT_SECONDS):
            while not (await first.runtime.environments())[1]:
                await first.ask("tree")
                await asyncio.sleep(0.005)
        await first.die()
        second = start()
        await second.made.collect(set())
        assert await second.runtime.list() == []
        if not await second.kept():  # it may have been whole already
            assert await second.runtime.environments() == ([], [])
        assert not list((second.there.state / "workspaces").glob("env-*"))
        await second.ready("tree")

    play(story)


def _records(daemon: Daemon) -> list[Path]:
    return list((daemon.there.state / "store" / "environments").glob("*.json"))


@pytest.mark.parametrize(
    ("env", "path"),
    [
        ({}, "/opt/env/python/bin:/opt/agentk/bin"),
        ({"PATH": "/mine:/usr/bin"}, "/opt/env/python/bin:/opt/agentk/bin:/mine:/usr/bin"),
    ],
)
def test_packages_come_before_what_the_agent_says_of_its_path(env: dict[str, str], path: str) -> None:
    given = prepared.python("x", {})
    assert prepared.environment(env, given)["PATH"] == path
    assert prepared.environment({**env, "VIRTUAL_ENV": "/mine"}, given)["VIRTUAL_ENV"] == "/mine"
    assert prepared.environment(env, prepared.NOTHING) == env
    venv = prepared.venv("/srv/v", box.Interpreter("/usr/bin/python3", "3.11", "x86_64", "3.11"))
    made = prepared.environment({"PYTHONPATH": "/app"}, venv)
    assert made["PYTHONPATH"] == "/app:/srv/v/lib/python3.11/site-packages"


def test_names_that_an_index_made_up_are_no_lock() -> None:
    order = environment_boxes.Order("0" * 32, "python", {}, box.Interpreter("p", "3.11", "x"), "")
    for name in ("a\n--index-url=http://x", "a b", "-r", ""):
        line = {"package": {"name": name, "version": "1", "sha256": "0" * 64}}
        with pytest.raises(Exception, match="answered with a package named"):
            environment_boxes.lock_of(order, [line])


def test_how_far_it_is() -> None:
    line = {"stage": "Fetching", "done": 3, "of": 14, "what": "jiter"}
    assert environment_boxes.progress(line) == ("Fetching", "Fetching 3/14: jiter")
    assert environment_boxes.progress({"stage": "Installing", "of": 14}) == (
        "Installing",
        "Installing 14 packages",
    )
    assert environment_boxes.progress({"stage": ["x"]}) == ("Resolving", "Resolving")
