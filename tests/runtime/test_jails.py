"""The daemon's client, against launchers of other versions and launchers that go away."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.runtime import box, jails
from tests.runtime import launching

RECORDED = Path(__file__).parent / "launcher-v1.jsonl"


def recorded() -> dict[str, dict[str, object]]:
    """Verb → answer of the first version, as it went over the wire."""
    lines = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    return {asked["verb"]: answered for asked, answered in zip(lines[::2], lines[1::2], strict=True)}


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ak-") as folder:
        yield Path(folder) / "launcher.sock"


@asynccontextmanager
async def old_launcher(path: Path) -> AsyncIterator[None]:
    answers = recorded()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            asked = json.loads(line)
            if asked["verb"] in answers:
                told = {"id": asked["id"], "ok": answers[asked["verb"]]}
            else:
                error = errors.BadRequest(f"this launcher knows no verb {asked['verb']!r}")
                told = {"id": asked["id"], "error": error.to_status()}
            writer.write(json.dumps(told).encode() + b"\n")
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield


def test_an_old_launcher_serves_a_new_daemon(path: Path) -> None:
    async def flow() -> None:
        async with old_launcher(path), jails.connected(path) as runtime:
            seen = await runtime.list()
            assert [(one.id, one.phase, one.unenforced) for one in seen] == [("u-1", "Running", ())]
            await runtime.kill("u-1", box.Intent("Killed"))
            with pytest.raises(errors.BadRequest, match="knows no verb"):
                await runtime.limit_namespace("default", 1000, None)

    asyncio.run(flow())


def test_no_launcher_is_told_after_a_while(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jails, "_AWAY_SECONDS", 0.05)

    async def flow() -> None:
        async with jails.connected(path) as runtime:
            with pytest.raises(errors.Unavailable):
                await runtime.list()

    asyncio.run(flow())


def test_changes_end_when_the_launcher_goes_away(path: Path) -> None:
    async def flow() -> None:
        async with jails.connected(path) as runtime:
            async with old_launcher(path):
                await runtime.list()
                heard = asyncio.ensure_future(anext(runtime.changes()))
                await asyncio.sleep(0)
                runtime.close()
            with pytest.raises(errors.Unavailable):
                await heard

    asyncio.run(flow())


def test_answers_go_to_who_asked(path: Path) -> None:
    async def flow() -> None:
        async with old_launcher(path), jails.connected(path) as runtime:
            answers = await asyncio.gather(*(runtime.list() for _ in range(50)))
            assert all(len(answer) == 1 for answer in answers)

    asyncio.run(flow())


@pytest.mark.jail
@pytest.mark.skipif(bool(launching.why_no_jail()), reason=launching.why_no_jail() or "-")
def test_a_verb_is_asked_again_of_the_launcher_that_comes_after() -> None:
    async def flow(there: launching.Place) -> box.Seen:
        there.launch()
        async with launching.connected(there) as runtime:
            await runtime.list()
            there.die()
            starting = asyncio.ensure_future(runtime.start(there.make("sleep", "1000")))
            await asyncio.sleep(0)
            there.launch()
            return await starting

    with launching.place() as there:
        assert asyncio.run(flow(there)).phase == "Running"


@pytest.mark.jail
@pytest.mark.skipif(bool(launching.why_no_jail()), reason=launching.why_no_jail() or "-")
def test_a_workspace_in_memory_outlives_the_launcher() -> None:
    async def flow(there: launching.Place) -> None:
        limits = box.Limits(storage_bytes=1 << 20)
        there.launch()
        async with launching.connected(there) as runtime:
            await runtime.start(there.make("sh", "-c", "echo kept > note", limits=limits))
            await launching.ended(runtime, "u-1-1")
            there.die()
            there.launch()
            await runtime.start(there.make("cat", "note", attempt=2, limits=limits))
            await launching.ended(runtime, "u-1-2")

    with launching.place() as there:
        asyncio.run(flow(there))
        assert there.log(attempt=2) == ["kept"]
