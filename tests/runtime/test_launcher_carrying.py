"""Files in and out of boxes that run, by streams and guests that are made to hurt as well."""

import asyncio
import contextlib
import io
import os
import tarfile
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors
from agentk.runtime import box, hands, jails
from agentk.runtime.launcher import tars
from tests.runtime import launching, podmans, tarring
from tests.runtime.launching import Place

RUNTIMES = [
    pytest.param("nsjail", marks=launching.needs_jail),
    pytest.param("podman", marks=podmans.needs_podman),
    "process",
]
MIB = 1 << 20


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


@contextlib.asynccontextmanager
async def running(there: Place, script: str, **told: Any) -> AsyncIterator[tuple[jails.Jails, box.Seen]]:
    """A box whose shell has done `script`, removed at the end."""
    if told.get("runtime") == "process":
        told["enforcement"] = "BestEffort"
    async with launching.connected(there) as runtime:
        seen = await runtime.start(
            there.make("sh", "-c", f"cd /workspace 2>/dev/null; {script}\necho up; exec sleep 1000", **told)
        )
        await launching.logged(there, "up", uid=seen.uid)
        try:
            yield runtime, seen
        finally:
            await runtime.remove(seen.id)


@pytest.mark.parametrize("seccomp", ["baseline", "restricted"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_tree_comes_out_as_it_is(there: Place, runtime: str, seccomp: str) -> None:
    long = "x" * 120
    script = (
        f"mkdir -p tree/{long}/deep tree/empty; echo one >tree/one; chmod 4750 tree/one; ln -s one tree/link\n"
        f"head -c 300000 /dev/zero >tree/{long}/deep/big; mkfifo tree/fifo\n"
        "touch -d @1000000 tree/old; chmod 0 tree/old\n"
        "printf x >\"$(printf 'tree/b\\377d')\""
    )

    async def flow() -> None:
        async with running(
            there, script, uid=f"out-{runtime}-{seccomp}", runtime=runtime, seccomp=seccomp
        ) as (client, seen):
            told, data = await tarring.packed(client, seen.id, "/workspace/tree")
            found = tarring.members(data)
            names = ["tree", "tree/b\udcffd", "tree/empty", "tree/link", "tree/one"]
            names += [f"tree/{long}", f"tree/{long}/deep", f"tree/{long}/deep/big"]
            assert sorted(found) == sorted(names)
            assert tarring.content(data, "tree/one") == b"one\n"
            assert tarring.content(data, f"tree/{long}/deep/big") == bytes(300000)
            assert (found["tree/one"].mode, found["tree/link"].linkname) == (0o750, "one")
            assert (told["files"], told["bytes"], told["refused_count"]) == (3, 300005, 2)
            assert sorted(told["refused"]) == [
                "tree/fifo: it is neither a file, a directory nor a link",
                "tree/old: Permission denied",
            ]
            told, data = await tarring.packed(client, seen.id, "/workspace/tree/one")
            assert list(tarring.members(data)) == ["one"]
            with pytest.raises(errors.NotFound, match="no/where"):
                await tarring.packed(client, seen.id, "/workspace/no/where")
            with pytest.raises(errors.BadRequest):
                await tarring.packed(client, seen.id, "/workspace/tree/fifo")

    asyncio.run(flow())


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_tree_goes_in_as_it_is(there: Place, runtime: str, form: int) -> None:
    long = "/".join("y" * 60 for _ in range(3))
    stream = tarring.made(
        ("dir", None),
        ("dir/one", b"one\n"),
        ("dir/link", "one"),
        ("dir/back", "../two"),
        (f"{long}/big", b"z" * 300000),
        ("./two", b"2"),
        ("dir/one", b"again\n"),
        form=form,
        mtime=1000000,
        mode=0o751,
    )

    async def flow() -> None:
        async with running(
            there, "mkdir at; echo old >at/two", uid=f"in-{runtime}-{form}", runtime=runtime
        ) as (client, seen):
            told = await tarring.unpacked(
                client, seen.id, "/workspace/at/new" if form else "/workspace/at", stream
            )
            assert (told["files"], told["refused_count"]) == (6, 0)
            _, data = await tarring.packed(client, seen.id, "/workspace/at/new" if form else "/workspace/at")
            top = "new" if form else "at"
            found = tarring.members(data)
            assert tarring.content(data, f"{top}/dir/one") == b"again\n"
            assert tarring.content(data, f"{top}/two") == b"2"
            assert tarring.content(data, f"{top}/{long}/big") == b"z" * 300000
            one, link = found[f"{top}/dir/one"], found[f"{top}/dir/link"]
            assert (one.mode, one.mtime, link.linkname) == (0o751, 1000000, "one")

    asyncio.run(flow())


def test_what_came_out_goes_in(there: Place) -> None:
    """Names that are no text, very long ones, directories that nobody may write in."""
    script = (
        "mkdir -p t/ro; echo x >t/ro/file; chmod 555 t/ro; n=$(printf 'n%.0s' $(seq 200))\n"
        "mkdir -p t/$n/$n; echo deep >t/$n/$n/$n; printf y >\"$(printf 't/\\377')\"; ln -s $n/$n/$n t/long"
    )

    async def flow() -> None:
        async with running(there, script, uid="again", runtime="process") as (client, seen):
            _, data = await tarring.packed(client, seen.id, "/workspace/t")
            told = await tarring.unpacked(client, seen.id, "/workspace/copy", data)
            assert told["refused_count"] == 0
            _, again = await tarring.packed(client, seen.id, "/workspace/copy/t")
            first, second = tarring.members(data), tarring.members(again)
            assert {name: (it.mode, it.size, it.linkname) for name, it in first.items()} == {
                name: (it.mode, it.size, it.linkname) for name, it in second.items()
            }

    asyncio.run(flow())


def hostile() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:

        def add(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size, member.mode = kind, link, len(data), 0o6777
            tar.addfile(member, io.BytesIO(data))

        add("first", data=b"1")
        add("../up", data=b"x")
        add("a/../../up", data=b"x")
        add("/abs", data=b"x")
        add("zero\0x", data=b"x")
        add("out", tarfile.SYMTYPE, "/tmp")
        add("upwards", tarfile.SYMTYPE, "../..")
        add("hard", tarfile.LNKTYPE, "../secret")
        add("hardabs", tarfile.LNKTYPE, "/etc/passwd")
        add("hardthrough", tarfile.LNKTYPE, "guests/secret")
        add("self", tarfile.LNKTYPE, "self")
        add("device", tarfile.CHRTYPE)
        add("block", tarfile.BLKTYPE)
        add("fifo", tarfile.FIFOTYPE)
        add("sparse", tarfile.GNUTYPE_SPARSE, data=b"x" * 512)
        add("guests/through", data=b"x")  # the guest put a link there
        add("guestsfile", data=b"over")  # and there, which is replaced
        add("inner", tarfile.SYMTYPE, "dir")
        add("inner/through", data=b"x")
        add("dir/in", data=b"fine")
        add("x" * 300, data=b"x")
        add("/".join("d" * 120), data=b"x")
        add("hardgood", tarfile.LNKTYPE, "first")
        add("last", data=b"2")
    return stream.getvalue()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_hostile_stream_gets_nowhere(there: Place, runtime: str) -> None:
    script = (
        "echo s >secret; mkdir at elsewhere; ln -s ../elsewhere at/guests; echo v >elsewhere/secret\n"
        "ln -s ../secret at/guestsfile"
    )

    async def flow() -> None:
        async with running(there, script, uid=f"bad-{runtime}", runtime=runtime) as (client, seen):
            told = await tarring.unpacked(client, seen.id, "/workspace/at", hostile())
            _, data = await tarring.packed(client, seen.id, "/workspace")
            top = "workspace"
            found = {
                name.removeprefix(f"{top}/"): it for name, it in tarring.members(data).items() if name != top
            }
            assert sorted(found) == sorted(
                [
                    "secret",
                    "elsewhere",
                    "elsewhere/secret",
                    "at",
                    "at/first",
                    "at/dir",
                    "at/dir/in",
                    "at/last",
                    "at/hardgood",
                    "at/inner",
                    "at/guests",
                    "at/guestsfile",
                    "at/zero",
                ]
            )
            assert tarring.content(data, f"{top}/secret") == b"s\n"
            assert tarring.content(data, f"{top}/at/guestsfile") == b"over"
            assert found["at/first"].mode == 0o777
            assert told["refused_count"] == 17
            assert len(told["refused"]) == 17
            why = dict(line.rsplit(": ", 1) for line in told["refused"])
            assert why["../up"] == why["a/../../up"] == "its name leads upwards"
            assert why["/abs"] == "its name is absolute"
            assert why["out"] == why["upwards"] == why["hard"] == why["hardabs"] == "the link leads elsewhere"
            for name in ("guests/through", "inner/through", "hardthrough"):
                assert why[name] == "its directory is a link or no directory"
            assert why["device"] == why["fifo"] == "it is neither a file, a directory nor a link"

    asyncio.run(flow())


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"no tar" * 200, "no tar stream"),
        (b"x", "ends in the middle"),
        (tarring.made(("half", b"x" * 5000))[:2048], "ends in the middle"),
        (tarring.made(("n" * 200_000, b"")), "too long"),
        (tars.header(tars.Member("bomb", tars.FILE, tars.BYTES_MAX + 1)), "bomb: with it"),
    ],
    ids=["none", "short", "half", "name", "bytes"],
)
def test_a_broken_stream_or_too_much_of_one_ends_it(there: Place, stream: bytes, why: str) -> None:
    async def flow() -> None:
        async with running(there, "", uid=f"broken-{len(stream)}", runtime="process") as (client, seen):
            with pytest.raises(errors.BadRequest, match=why):
                await tarring.unpacked(client, seen.id, "/workspace", stream)

    asyncio.run(flow())


def test_entries_are_counted_whatever_they_are() -> None:
    stream = io.BytesIO(tars.header(tars.Member("d/", tars.FOLDER)) * (tars.ENTRIES_MAX + 1))
    members = tars.Reader(stream.read)
    with pytest.raises(tars.Bad, match="more than 250000 entries"):
        while members.next():
            pass


@given(st.binary(max_size=2048), st.integers(0, 511), st.binary(max_size=12))
def test_no_header_breaks_the_reader(content: bytes, at: int, change: bytes) -> None:
    """Whatever comes, it is a member, the end, or refused."""
    block = bytearray(tars.header(tars.Member("name", b"x", len(content))))
    block[at : at + len(change)] = change[: 512 - at]
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * 32)
    stream = io.BytesIO(bytes(block) + content + tars.filling(len(content)) + tarring.made(("last", b"")))
    members = tars.Reader(stream.read)
    with contextlib.suppress(tars.Bad):
        while (member := members.next()) is not None:
            assert 0 <= member.mode <= 0o777
            assert member.mtime >= 0
            stream.read(min(tars.padded(member.size), 1 << 20))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_only_what_the_box_has(there: Place, runtime: str) -> None:
    """Not the kernel's files, and without a jail only the workspace."""

    async def flow() -> None:
        script = "ln -s /proc/self link; ln -s / root"
        async with running(there, script, uid=f"only-{runtime}", runtime=runtime) as (client, seen):
            for path in ("/proc/self", "/proc/1/environ", "/workspace/link/maps", "/workspace/link/fd/0"):
                with pytest.raises((errors.RuntimeRefused, errors.BadRequest, errors.NotFound)):
                    await tarring.packed(client, seen.id, path)
                with pytest.raises((errors.RuntimeRefused, errors.BadRequest, errors.NotFound)):
                    await tarring.unpacked(client, seen.id, path, tarring.made(("x", b"x")))
            for path in ("relative", "/../x", "/a/./b", "/a\0b", "", None, 7):
                with pytest.raises(errors.Invalid):
                    await tarring.packed(client, seen.id, path)  # type: ignore[arg-type]
            if runtime == "process":
                for path in ("/etc/passwd", "/workspace/root/etc", "/"):
                    with pytest.raises((errors.RuntimeRefused, errors.BadRequest)):
                        await tarring.packed(client, seen.id, path)
            else:
                told, data = await tarring.packed(client, seen.id, "/workspace/root/etc/passwd")
                assert b"agent:x:1000" in data
                assert told["files"] == 1
                with pytest.raises(errors.RuntimeRefused, match="Read-only"):
                    await tarring.unpacked(client, seen.id, "/etc", tarring.made(("x", b"x")))

    asyncio.run(flow())


@pytest.mark.jail
@pytest.mark.skipif(bool(launching.why_no_jail()), reason="no jail")
def test_a_guest_that_changes_everything_meanwhile_fools_only_itself(there: Place) -> None:
    """It swaps a directory for a link to elsewhere, and makes files shorter, as fast as it can."""
    swap = (
        "import os\n"
        "os.makedirs('/workspace/t/d', exist_ok=True); open('/workspace/t/d/file', 'w').write('mine')\n"
        "os.makedirs('/workspace/elsewhere', exist_ok=True); open('/workspace/elsewhere/file', 'w').write('SECRET')\n"
        "os.symlink('/workspace/elsewhere', '/workspace/other'); print('up', flush=True)\n"
        "import ctypes; libc = ctypes.CDLL(None)\n"
        "while True:\n"  # 2: RENAME_EXCHANGE, so that one of both is always there
        "    assert libc.renameat2(-100, b'/workspace/t/d', -100, b'/workspace/other', 2) == 0\n"
    )

    async def flow() -> None:
        async with launching.connected(there) as client:
            seen = await client.start(there.python(swap, uid="swap"))
            await launching.logged(there, "up", uid="swap")
            for _ in range(30):
                _, data = await tarring.packed(client, seen.id, "/workspace/t")
                assert b"SECRET" not in data
                tarring.members(data)
                await tarring.unpacked(
                    client, seen.id, "/workspace/t", tarring.made(("d/file", b"mine"), ("d/new", b"n"))
                )
            _, data = await tarring.packed(client, seen.id, "/workspace/elsewhere")
            assert sorted(tarring.members(data)) == ["elsewhere", "elsewhere/file"]
            assert tarring.content(data, "elsewhere/file") == b"SECRET"
            await client.remove(seen.id)

    asyncio.run(flow())


def test_files_of_holes_are_left_out_by_name(there: Place) -> None:
    async def flow() -> None:
        script = "truncate -s 15G hole; truncate -s 2T abyss; echo x >plain"
        async with running(there, script, uid="holes", runtime="process", limits=box.Limits()) as (
            client,
            seen,
        ):
            told, data = await tarring.packed(client, seen.id, "/workspace")
            assert sorted(tarring.members(data)) == ["workspace", "workspace/plain"]
            assert sorted(line.split(":")[0] for line in told["refused"]) == [
                "workspace/abyss",
                "workspace/hole",
            ]

    asyncio.run(flow())


@pytest.mark.parametrize("verb", ["pack", "unpack"])
def test_it_ends_with_its_box_its_caller_and_its_reader(there: Place, verb: str) -> None:
    there.need_cgroups()

    async def flow() -> None:
        script = "head -c 4000000 /dev/urandom >big"
        for end in ("box", "caller", "cancel", "pipe"):
            async with running(there, script, uid=f"end-{verb}-{end}", runtime="process") as (client, seen):
                read, write = os.pipe()
                asking = asyncio.ensure_future(
                    hands.Hands(client).pack(seen.id, "/workspace", write, "it")
                    if verb == "pack"
                    else hands.Hands(client).unpack(seen.id, "/workspace", read, "it")
                )
                if verb == "pack":  # it is under way, and waits for us
                    await asyncio.to_thread(os.read, read, 10)
                else:
                    os.write(write, tars.header(tars.Member("big", tars.FILE, MIB)) + b"x")
                    await launching.holds(lambda: not tarring.waiting(read))  # noqa: B023 (awaited at once)
                if end == "box":
                    await client.kill(seen.id, box.Intent("Killed"))
                elif end == "caller":
                    asking.cancel()
                elif end == "cancel":
                    await hands.Hands(client).cancel(seen.id, "it")
                else:
                    os.close(read if verb == "pack" else write)
                if end == "pipe" and verb == "pack":
                    os.close(write)  # nothing holds it open but whoever writes
                with pytest.raises((errors.AgentkError, asyncio.CancelledError)):
                    await asking
                for fd in (read, write):
                    with contextlib.suppress(OSError):
                        os.close(fd)

    asyncio.run(flow())
