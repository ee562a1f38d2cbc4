"""Whole workspaces out and in: of boxes that run, stand still or are gone, by guests that are made to hurt as well."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest

from agentk.api import errors
from agentk.runtime import box, hands, jails
from agentk.runtime.launcher import crash, tars
from tests.runtime import hand_rig, launching, tarring
from tests.runtime.launching import Place

RUNTIMES = [pytest.param("nsjail", marks=launching.needs_jail), "process"]


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


@contextlib.asynccontextmanager
async def running(there: Place, script: str, **told: Any) -> AsyncIterator[tuple[jails.Jails, box.Seen]]:
    if told.get("runtime") == "process":
        told["enforcement"] = "BestEffort"
    async with launching.connected(there) as runtime:
        made = there.make(
            "sh", "-c", f"cd /workspace 2>/dev/null; {script}\necho up; exec sleep 1000", **told
        )
        seen = await runtime.start(made)
        await launching.logged(there, "up", made.attempt, seen.uid)
        try:
            yield runtime, seen
        finally:
            await runtime.remove(seen.id)


async def taken(runtime: jails.Jails, uid: str, **told: Any) -> tuple[Mapping[str, Any], bytes]:
    read, write = os.pipe()
    reading = asyncio.ensure_future(asyncio.to_thread(hand_rig.whole, read))
    try:
        answer = await hands.Hands(runtime).take_workspace("default", uid, write, **told)
    finally:
        os.close(write)
        data = await reading
    return answer, data


async def put(there: Place, runtime: jails.Jails, uid: str, data: bytes, **told: Any) -> Mapping[str, Any]:
    read, write = os.pipe()
    writing = asyncio.ensure_future(asyncio.to_thread(tarring.feed, write, data))
    told = {"host_uid": there.host_uid, "size_bytes": None, **told}
    try:
        return await hands.Hands(runtime).put_workspace("default", uid, read, **told)
    finally:
        os.close(read)
        await writing


@pytest.mark.parametrize("size", [None, 8 << 20])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_workspace_comes_back_as_it_was(there: Place, runtime: str, size: int | None) -> None:
    uid = f"back-{runtime}-{size or 0}"
    limits = box.Limits(cpu_millis=1000, memory_bytes=256 << 20, pids=64, open_files=256, storage_bytes=size)
    script = (
        "mkdir -p d/e; echo one >d/one; chmod 750 d/one; ln -s one d/link; ln -s /etc/passwd out; mkfifo p"
    )

    async def flow() -> None:
        async with running(there, script, uid=uid, runtime=runtime, limits=limits) as (client, _):
            told, data = await taken(client, uid)
            assert told["refused"] == ["./p: it is neither a file, a directory nor a link"]
            with pytest.raises(errors.Conflict, match="has a box"):
                await put(there, client, uid, data)
        async with running(
            there, "rm -r d; echo two >new", uid=uid, attempt=2, runtime=runtime, limits=limits
        ) as (client, _):
            pass
        async with launching.connected(there) as client:
            told = await put(there, client, uid, data, size_bytes=size if runtime == "nsjail" else None)
            assert told["refused"] == []
            told, again = await taken(client, uid)
            assert not told["stood_still"]
        assert sorted(tarring.members(again)) == [".", "./d", "./d/e", "./d/link", "./d/one", "./out"]
        assert tarring.content(again, "./d/one") == b"one\n"
        look = "stat -c '%a is' d/one; cat d/link; touch d/mine && readlink out"
        async with running(there, look, uid=uid, attempt=3, runtime=runtime, limits=limits):
            said = "".join(there.log(3, uid))
            assert "750 is" in said and "one" in said and "/etc/passwd" in said

    asyncio.run(flow())


# Several names of one file, and attributes of a file, of a directory and of the workspace.
MARKED = """python3 - <<'END'
import os
open("one", "w").write("one"); os.mkdir("d"); os.link("one", "d/two"); os.link("one", "three")
os.setxattr("one", "user.mine", b"\\0\\xff=1\\n"); os.setxattr("d", "user.of", b"d")
os.setxattr(".", "user.of", b"all")
END
"""
LOOKS = """python3 -c '
import os
one = os.stat("one")
print("links", one.st_nlink, len({os.stat(n).st_ino for n in ("one", "d/two", "three")}))
print("has", os.getxattr("three", "user.mine"), os.getxattr("d", "user.of"), os.getxattr(".", "user.of"))
'
"""


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_links_and_attributes_come_back(there: Place, runtime: str) -> None:
    uid = f"marked-{runtime}"

    async def flow() -> None:
        async with running(there, MARKED, uid=uid, runtime=runtime) as (client, _):
            told, data = await taken(client, uid)
        assert told["refused"] == []
        types = sorted(one.type for name, one in tarring.members(data).items() if name in ONES)
        assert types == sorted([tars.FILE, tars.LINK, tars.LINK])
        async with launching.connected(there) as client:
            assert (await put(there, client, uid, data))["refused"] == []
        async with running(there, LOOKS, uid=uid, attempt=2, runtime=runtime):
            said = "\n".join(there.log(2, uid))
            assert "links 3 1" in said
            assert "has b'\\x00\\xff=1\\n' b'd' b'all'" in said

    asyncio.run(flow())


ONES = ("./one", "./d/two", "./three")


@launching.needs_jail[0]
@launching.needs_jail[1]
def test_holes_stay_holes_and_names_that_are_no_text_are_told(there: Place) -> None:
    """Twelve times what the workspace may hold goes out, and comes back into as little as it had."""
    limits = box.Limits(
        cpu_millis=1000, memory_bytes=256 << 20, pids=64, open_files=256, storage_bytes=8 << 20
    )
    script = (
        "for n in 1 2 3; do truncate -s 32M hole$n; done; printf abc | dd of=hole3 bs=1 seek=9000000 conv=notrunc"
        " 2>/dev/null; head -c 10000 /dev/zero >zeros; mkfifo \"$(printf 'p\\377\\033[2J')\""
    )

    async def flow() -> None:
        async with running(there, script, uid="holes", limits=limits) as (client, _):
            told, data = await taken(client, "holes")
            assert told["refused"] == ["./p\\udcff\x1b[2J: it is neither a file, a directory nor a link"]
            assert len(data) > 96 << 20
        async with launching.connected(there) as client:
            told = await put(there, client, "holes", data, size_bytes=8 << 20)
            assert (told["refused"], told["files"]) == ([], 4)
            again = (await taken(client, "holes"))[1]
            assert tarring.content(again, "./hole3") == tarring.content(data, "./hole3")
            assert tarring.members(again)["./hole1"].size == 32 << 20
            assert tarring.content(again, "./zeros") == bytes(10000)

    asyncio.run(flow())


@launching.needs_jail[0]
@launching.needs_jail[1]
def test_a_box_stands_still_while_it_is_taken_and_then_goes_on(there: Place) -> None:
    there.need_cgroups()

    async def flow() -> None:
        script = "head -c 3000000 /dev/zero >big; while :; do date +%N >>log; done &"
        async with running(there, script, uid="still") as (client, seen):
            read, write = os.pipe()
            taking = asyncio.ensure_future(hands.Hands(client).take_workspace("default", "still", write))
            head = await asyncio.to_thread(os.read, read, 1)
            await client.thaw(seen.id)  # somebody resumes it: not before it was taken
            rest = asyncio.ensure_future(asyncio.to_thread(hand_rig.whole, read))
            told = await taking
            os.close(write)
            assert told["stood_still"] and told["refused"] == []
            data = head + await rest
            size = tarring.members(data)["./log"].size
            while True:
                _, data = await taken(client, "still")
                if tarring.members(data)["./log"].size > size:
                    break

    asyncio.run(flow())


@launching.needs_jail[0]
@launching.needs_jail[1]
def test_even_an_empty_workspace_stands_still_until_it_is_read(there: Place) -> None:
    there.need_cgroups()

    async def flow() -> None:
        async with running(there, "", uid="small") as (client, _):
            read, write = os.pipe()
            fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, 4096)
            taking = asyncio.ensure_future(hands.Hands(client).take_workspace("default", "small", write))
            await asyncio.to_thread(os.read, read, 32768)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(taking), 0.3)
            assert not taking.done(), "it goes on before all of it was taken"
            rest = asyncio.ensure_future(asyncio.to_thread(hand_rig.whole, read))
            assert (await taking)["stood_still"]
            os.close(write)
            await rest

    asyncio.run(flow())


def test_who_may_ask_for_what_is_checked(there: Place) -> None:
    async def flow() -> None:
        async with launching.connected(there) as client:
            with pytest.raises(errors.NotFound):
                await taken(client, "nobody")
            for wrong in (0, 1, True, "7", None):
                with pytest.raises(errors.Invalid, match="host_uid"):
                    await put(there, client, "wrong", b"", host_uid=wrong)
            with pytest.raises(errors.Invalid, match="uid"):
                await put(there, client, "../up", b"")
            with pytest.raises(errors.BadRequest):
                await put(there, client, "wrong", b"", size_bytes=-1)
            folder = os.open("/", os.O_RDONLY)
            with pytest.raises(errors.Invalid, match="pipes"):
                await hands.Hands(client).put_workspace(
                    "default", "wrong", folder, host_uid=there.host_uid, size_bytes=None
                )
            os.close(folder)
            with pytest.raises(errors.RuntimeRefused, match="tar"):
                await put(there, client, "broken", b"x" * 2048)

    asyncio.run(flow())


@pytest.mark.parametrize("point", [name for name in crash.POINTS if name.startswith("workspace.")])
def test_a_launcher_that_dies_leaves_what_can_be_done_again(point: str) -> None:
    runtime = "process" if launching.why_no_jail() else "nsjail"
    told = {"enforcement": "BestEffort"} if runtime == "process" else {}

    async def flow(made: Place) -> None:
        async with launching.connected(made) as client:
            if point in ("workspace.after-remove", "workspace.after-make"):
                with pytest.raises(errors.OutcomeUnknown):
                    await put(made, client, "u-1", tarring.made(("./a", b"1")))
            else:
                await client.start(made.make("sleep", "1000", runtime=runtime, **told))
                with pytest.raises(errors.OutcomeUnknown):
                    await taken(client, "u-1")
        assert made.process is not None
        made.process.wait()
        made.launch()
        async with launching.connected(made) as client:
            boxes = await client.list()
            for seen in boxes:
                await client.thaw(seen.id)
                await client.remove(seen.id)
            assert (await put(made, client, "u-1", tarring.made(("./a", b"2"))))["files"] == 1
            assert tarring.content((await taken(client, "u-1"))[1], "./a") == b"2"

    with launching.place() as made:
        made.launch(crash_at=point)
        asyncio.run(flow(made))
