"""Environments made in real jails: what is fetched is what is installed, nothing is run, nobody changes it."""

import asyncio
import dataclasses
import inspect
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from agentk.api import environments as asked
from agentk.api import errors
from agentk.control import environment_boxes
from agentk.runtime import box, jails, uids
from agentk.runtime.builder import pips
from agentk.runtime.launcher import environments
from tests.runtime import launching, packages
from tests.runtime.packages import Index

pytestmark = launching.needs_jail
OTHER = "f" * 32
SHOWN = {"PATH": "/opt/env/python/bin:/opt/agentk/bin:/usr/bin:/bin"}


def builder(there: launching.Place) -> int:
    return uids.block(there.state, there.instance)[-1] if os.geteuid() == 0 else -1


class Maker:
    """Makes environments from one index."""

    def __init__(self, there: launching.Place, runtime: jails.Jails, index: Index) -> None:
        self.there, self.runtime = there, runtime
        env = {"PIP_INDEX_URL": index.url}
        self.sources = environment_boxes.Sources(env, "", {str(index.folder): str(index.folder)})

    async def order(self, **python: object) -> environment_boxes.Order:
        wanted = asked.request({"python": python}, "python")
        assert wanted is not None
        interpreter = await self.runtime.interpreter("")
        name = asked.digest(wanted, "python", [interpreter.version])
        return environment_boxes.Order(name, "python", wanted, interpreter, "")

    async def run(self, made: box.Box) -> list[dict[str, object]]:
        await self.runtime.start(made)
        seen = await launching.ended(self.runtime, made.id)
        told = environment_boxes.told(seen.log_path)
        environment_boxes.check(seen, told)
        return told

    async def fetch(self, order: environment_boxes.Order) -> environment_boxes.Lock:
        told = await self.run(order.fetching(builder(self.there), self.sources))
        return environment_boxes.lock_of(order, told)

    async def make(self, **python: object) -> tuple[str, environment_boxes.Lock]:
        order = await self.order(**python)
        lock = await self.fetch(order)
        await self.run(order.installing(builder(self.there), lock))
        await self.runtime.keep_environment(order.name)
        return order.name, lock

    def shown(self, name: str, script: str, **told: object) -> box.Box:
        mount = box.Mount("environment", environments.PYTHON, source=name)
        return self.there.make("sh", "-c", script, mounts=(mount,), env=SHOWN, **told)  # type: ignore[arg-type]


Story = Callable[..., Coroutine[Any, Any, None]]


def in_jails(story: Story) -> Callable[..., None]:
    """A test with a launcher and an index of its own."""

    def test(**given: object) -> None:
        with launching.place() as there, packages.index() as index:
            there.launch()

            async def flow() -> None:
                async with launching.connected(there) as runtime:
                    await story(Maker(there, runtime, index), index, **given)

            asyncio.run(flow())

    test.__name__, test.__doc__ = story.__name__, story.__doc__
    parameters = list(inspect.signature(story).parameters.values())[2:]
    test.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return test


@in_jails
async def test_an_unmodified_program_finds_its_packages(maker: Maker, index: Index) -> None:
    index.wheel("leaf")
    digest = index.wheel("tree", "2.1", requires=["leaf>=1"], scripts=["grow"])
    name, lock = await maker.make(requirements=["tree"])
    assert f"tree==2.1 --hash=sha256:{digest}" in lock.shown and len(lock.shown) == 2
    script = """
python -c 'import tree, leaf; print(tree.VERSION, leaf.VERSION)'
printf '#!/usr/bin/env python3\\nimport tree; print("by name", tree.VERSION)\\n' > /tmp/p; chmod +x /tmp/p; /tmp/p
grow
python -I -c 'import tree, sys; print(sys.prefix)'
python -c 'import agentk.sdk.client; print("sdk")'
"""
    await maker.runtime.start(maker.shown(name, script))
    await launching.ended(maker.runtime, "u-1-1")
    assert maker.there.log() == ["2.1 1.0", "by name 2.1", "script 2.1", "/opt/env/python", "sdk"]


@in_jails
async def test_nobody_writes_to_one_and_it_tells_no_path_of_the_host(maker: Maker, index: Index) -> None:
    index.wheel("tree")
    name, _ = await maker.make(requirements=["tree"])
    script = "touch /opt/env/python/x; rm /opt/env/python/bin/python; grep env /proc/self/mountinfo; exit 0"
    await maker.runtime.start(maker.shown(name, script))
    await launching.ended(maker.runtime, "u-1-1")
    said = "\n".join(maker.there.log())
    assert said.count("Read-only file system") == 2
    assert str(maker.there.state) not in said


@in_jails
async def test_one_in_use_stays_and_one_unused_goes(maker: Maker, index: Index) -> None:
    index.wheel("tree")
    name, _ = await maker.make(requirements=["tree"])
    await maker.runtime.start(maker.shown(name, "exec sleep 1000"))
    with pytest.raises(errors.Conflict, match="in use"):
        await maker.runtime.remove_environment(name)
    assert (await maker.runtime.environments())[0] == [name]
    await maker.runtime.remove("u-1-1")
    await maker.runtime.remove_environment(name)
    await maker.runtime.remove_environment(name)
    assert await maker.runtime.environments() == ([], [])
    with pytest.raises(errors.AgentkError, match="is not here"):
        await maker.runtime.start(maker.shown(name, "true", attempt=2))


@in_jails
async def test_a_lock_is_held_to(maker: Maker, index: Index) -> None:
    digest = index.wheel("tree")
    _, lock = await maker.make(lock=f"tree==1.0 \\\n  --hash=sha256:{digest}  # comment\n")
    assert lock.shown == [f"tree==1.0 --hash=sha256:{digest}"]
    with pytest.raises(errors.RuntimeRefused, match=r"(?s)DO NOT MATCH THE HASHES.*tree"):
        await maker.make(lock=f"tree==1.0 --hash=sha256:{'0' * 64}")


@in_jails
async def test_a_package_that_is_not_what_its_index_says_is_refused(maker: Maker, index: Index) -> None:
    index.add("tree-1.0-py3-none-any.whl", packages.wheel("tree", "1.0"), digest="0" * 64)
    with pytest.raises(errors.RuntimeRefused, match=r"DO NOT MATCH THE HASHES.*tree"):
        await maker.make(requirements=["tree"])


@in_jails
async def test_what_was_swapped_between_the_two_jails_is_refused(maker: Maker, index: Index) -> None:
    index.wheel("tree")
    order = await maker.order(requirements=["tree"])
    lock = await maker.fetch(order)
    other = environment_boxes.Lock({"lock.txt": f"tree==1.0 --hash=sha256:{'1' * 64}\n"}, lock.shown)
    with pytest.raises(errors.RuntimeRefused, match=r"DO NOT MATCH THE HASHES"):
        await maker.run(order.installing(builder(maker.there), other))


@pytest.mark.parametrize("member", ["../../../../evil.py", "/evil.py", "tree/../../evil.py"])
@in_jails
async def test_a_wheel_that_leads_out_of_its_place_is_refused(
    maker: Maker, index: Index, member: str
) -> None:
    index.wheel("tree", extra={member: "print('evil')"})
    with pytest.raises(errors.RuntimeRefused, match=r"leads out of it|outside"):
        await maker.make(requirements=["tree"])


@in_jails
async def test_a_source_package_is_refused_and_not_run(maker: Maker, index: Index) -> None:
    index.sdist("tree", "import sys; print('RAN', file=sys.stderr); open('/workspace/ran', 'w')")
    order = await maker.order(requirements=["tree"])
    with pytest.raises(errors.RuntimeRefused, match="No matching distribution found for tree"):
        await maker.fetch(order)
    log = maker.there.state / "logs" / f"{environment_boxes.NAMESPACE}_{order.uid}" / "1.log"
    assert "RAN" not in log.read_text()


@pytest.mark.parametrize("where", ["{url}/../files/hidden-1.0.tar.gz", "git+file://{folder}/hidden"])
@in_jails
async def test_a_package_that_names_a_url_gets_nothing_run(maker: Maker, index: Index, where: str) -> None:
    index.sdist("hidden", "import sys; print('RAN', file=sys.stderr); open('/workspace/ran', 'w')")
    url = where.format(url=index.url, folder=index.folder).replace("/simple/..", "")
    index.wheel("tree", requires=[f"hidden @ {url}"])
    order = await maker.order(requirements=["tree"])
    with pytest.raises(errors.RuntimeRefused, match="hidden"):
        await maker.fetch(order)
    log = maker.there.state / "logs" / f"{environment_boxes.NAMESPACE}_{order.uid}" / "1.log"
    assert "RAN" not in log.read_text()


@in_jails
async def test_a_wheel_from_elsewhere_than_the_indexes_is_refused(maker: Maker, index: Index) -> None:
    (index.folder / "hidden-1.0-py3-none-any.whl").write_bytes(packages.wheel("hidden", "1.0"))
    index.wheel("tree", requires=[f"hidden @ file://{index.folder}/hidden-1.0-py3-none-any.whl"])
    with pytest.raises(errors.RuntimeRefused, match=r"hidden 1\.0 is no wheel of an index"):
        await maker.make(requirements=["tree"])


@in_jails
async def test_no_such_package_is_told_in_the_words_of_pip(maker: Maker, index: Index) -> None:
    with pytest.raises(
        errors.RuntimeRefused, match="No matching distribution found for nothing-of-this-name"
    ):
        await maker.make(requirements=["nothing-of-this-name==1.0"])


def test_an_index_that_cannot_be_reached_is_told_without_the_names_of_pips_objects() -> None:
    why = "Failed to establish a new connection: [Errno -2] Name or service not known"
    told = pips.last_words(
        [
            "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError("
            f"'<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f>: {why}')': /simple/tree/",
            "ERROR: No matching distribution found for tree",
        ]
    )
    assert told == (
        f"an index of pip's configuration cannot be reached: {why} (/simple/tree/);"
        " No matching distribution found for tree"
    )


@in_jails
async def test_a_password_in_the_name_of_an_index_is_told_nowhere(maker: Maker, index: Index) -> None:
    env = {"PIP_INDEX_URL": "http://someone:canary-9d1f@127.0.0.1:1/simple", "PIP_RETRIES": "0"}
    maker.sources = environment_boxes.Sources(env)
    order = await maker.order(requirements=["tree"])
    with pytest.raises(errors.RuntimeRefused, match="tree") as told:
        await maker.fetch(order)
    assert "canary-9d1f" not in str(told.value)
    held = [
        path
        for path in maker.there.state.rglob("*")
        if path.is_file() and b"canary-9d1f" in path.read_bytes()
    ]
    assert held == []


@in_jails
async def test_what_builds_is_ours_alone(maker: Maker, index: Index) -> None:
    """A daemon that is not what it was gets no program of its own with a network, and writes to no environment."""
    order = await maker.order(requirements=["tree"])
    fetching = order.fetching(builder(maker.there), maker.sources)
    plain = maker.there.make("true")
    changes: list[tuple[box.Box, dict[str, object]]] = [
        (fetching, {"build": "fetch-anything"}),
        (fetching, {"uid": "u-1", "id": "u-1-1"}),
        (fetching, {"seccomp": "privileged"}),
        (fetching, {"runtime": "process"}),
        (plain, {"mounts": (box.Mount("environment", environments.PYTHON, source=OTHER, read_only=False),)}),
        (plain, {"mounts": (box.Mount("environment", "/usr/lib", source=OTHER),)}),
        (plain, {"mounts": (box.Mount("environment", environments.PYTHON, source="../boxes"),)}),
        (plain, {"mounts": (box.Mount("bind", "/opt/env/python", source="/usr"),)}),
        (order.installing(builder(maker.there), environment_boxes.Lock({}, [])), {"uid": f"env-{OTHER}"}),
    ]
    if os.geteuid() == 0:
        changes += [
            (fetching, {"host_uid": maker.there.host_uid}),
            (plain, {"host_uid": builder(maker.there)}),
        ]
    for made, change in changes:
        with pytest.raises(errors.AgentkError):
            await maker.runtime.start(dataclasses.replace(made, **change))
    assert await maker.runtime.list() == []
    for name in ("..", "a", OTHER.upper(), f"{OTHER}.half"):
        with pytest.raises(errors.Invalid):
            await maker.runtime.remove_environment(name)


@in_jails
async def test_what_a_build_is_told_to_run_is_not_what_it_runs(maker: Maker, index: Index) -> None:
    index.wheel("tree")
    order = await maker.order(requirements=["tree"])
    made = dataclasses.replace(
        order.fetching(builder(maker.there), maker.sources), argv=("sh", "-c", "echo mine")
    )
    assert any("package" in line for line in await maker.run(made))


@in_jails
async def test_a_launcher_that_dies_loses_no_build(maker: Maker, index: Index) -> None:
    index.wheel("tree")
    order = await maker.order(requirements=["tree"])
    await maker.runtime.start(order.fetching(builder(maker.there), maker.sources))
    maker.there.die()
    maker.there.launch()
    lock = await maker.fetch(order)
    await maker.run(order.installing(builder(maker.there), lock))
    assert (await maker.runtime.environments())[1] == [order.name]
    await maker.runtime.keep_environment(order.name)
    await maker.runtime.keep_environment(order.name)
    assert await maker.runtime.environments() == ([order.name], [])
