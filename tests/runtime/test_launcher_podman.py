"""Podman boxes of a real launcher: they start, speak, end and go, and nothing of them stays."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from agentk.runtime import box
from tests.runtime import launching, podmans
from tests.runtime.launching import Place

pytestmark = podmans.needs_podman
KILLED = box.Intent("Killed", "a test did")
SLEEP = "import time; print('up', flush=True); time.sleep(1000)"


@pytest.fixture
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made
    podmans.assert_nothing_is_left(made)


def test_box_runs_and_its_end_is_its_own(there: Place) -> None:
    async def flow() -> box.Seen:
        async with launching.connected(there) as runtime:
            code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
            seen = await runtime.start(there.python(code, runtime="podman"))
            assert (seen.phase, seen.process is not None) == ("Running", True)
            return await launching.ended(runtime, seen.id)

    seen = asyncio.run(flow())
    assert seen.exit is not None
    assert (seen.phase, seen.exit.code, seen.exit.source) == ("Exited", 7, "log")
    assert sorted(there.log()) == ["err", "out"]


def test_removed_box_is_gone_from_podman_and_from_the_groups(there: Place) -> None:
    async def flow() -> None:
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.python(SLEEP, runtime="podman"))
            await launching.logged(there, "up")
            assert len(podmans.containers(there)) == 1
            await runtime.remove(seen.id)
            assert seen.process is not None
            await launching.holds(lambda: not os.path.exists(f"/proc/{seen.process.pid}"))
            await launching.holds(lambda: not podmans.containers(there))
            assert await runtime.list() == []

    asyncio.run(flow())
