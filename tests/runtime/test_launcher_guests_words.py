"""Code of a template or an agent's own that runs in a waiting Python and speaks to the launcher in its place."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.runtime import box
from tests.runtime import launching
from tests.runtime.launching import Place

pytestmark = launching.needs_jail
LINE = "import os, socket\nline = os.path.exists('/proc/self/fd/3') and socket.socket(fileno=os.dup(3))\n"
TEMPLATES = {
    "descriptors": "file = os.open('/etc/passwd', 0)\n"
    "for _ in range(50): socket.send_fds(line, [b'x\\n'], [file, file])",
    "listener": "mine = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
    "socket.send_fds(line, [b'x\\n'], [mine.fileno()])",
    "ready again": "line.send(b'r\\n' * 2000)",
    "rubbish": "line.send(b'[' * 4000)",
}
SPEAKS = LINE + "open('/workspace/spoke', 'a').write('x')\n" + "line and line.send(b'x\\n')"
PERSONAL = (
    "import os, sys\n"
    "folder = '/workspace/.local/lib/python%d.%d/site-packages' % sys.version_info[:2]\n"
    "os.makedirs(folder)\n"
    f"open(folder + '/usercustomize.py', 'w').write({SPEAKS!r})\n"
    "print('up', flush=True)\n"
    "import time; time.sleep(1000)"
)

# Says that its environment is a gigabyte that takes nothing.
BOASTS = """
import ctypes, time
libc = ctypes.CDLL(None)
libc.mmap.restype = libc.sbrk.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.sbrk.argtypes = [ctypes.c_ssize_t]
nothing = libc.mmap(None, 1 << 30, 1, 0x4022, -1, 0)
fields = open("/proc/self/stat").read().rpartition(")")[2].split()
places = [int(fields[at - 3]) if at else libc.sbrk(0) for at in (26, 27, 45, 46, 47, 0, 28, 48, 49, 50, 51)]
places[-2:] = [nothing, nothing + (1 << 30)]
whole = (ctypes.c_uint64 * 13)(*places, 0, 0xFFFFFFFF << 32)
print("set", libc.prctl(35, ctypes.c_ulong(14), whole, ctypes.c_ulong(104), ctypes.c_ulong(0)), flush=True)
time.sleep(1000)
"""


@pytest.fixture
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


@pytest.fixture
def template() -> Iterator[Path]:
    """Where every uid may read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("does", TEMPLATES)
def test_a_template_that_speaks_for_its_interpreter_is_no_box(
    there: Place, template: Path, does: str
) -> None:
    assert there.process is not None
    open_files = f"/proc/{there.process.pid}/fd"
    (template / "speaks.py").write_text(LINE + TEMPLATES[does])
    mount = box.Mount("bind", "/srv/template", source=str(template), read_only=True)

    async def flow() -> None:
        async with launching.connected(there) as runtime:
            made = await runtime.start(there.make("true"))
            await launching.ended(runtime, made.id)
            before = len(os.listdir(open_files))
            for number in range(3):
                with pytest.raises(errors.RuntimeRefused, match="said what nobody asked"):
                    await runtime.start(
                        there.make(
                            uid=f"waits-{number}",
                            waits=True,
                            modules=["speaks"],
                            env={"PYTHONPATH": "/srv/template"},
                            mounts=[mount],
                        )
                    )
            await launching.holds(lambda: len(os.listdir(open_files)) <= before + 3)
            assert [seen.uid for seen in await runtime.list()] == ["u-1"]

    asyncio.run(flow())


def test_an_agents_own_code_does_not_speak_for_the_python_that_waits_beside_it(there: Place) -> None:
    there.need_cgroups()

    async def flow() -> None:
        async with launching.connected(there) as runtime:
            wanted = there.python(PERSONAL, env={"HOME": "/workspace"})
            await runtime.start(wanted)
            await launching.logged(there, "up")
            done = await runtime.exec(wanted.id, ["python3", "-c", "print(1)"], timeout_seconds=30)
            assert done.stdout == b"1\n"
            spoke = there.state / "workspaces" / "u-1" / "files" / "spoke"
            await launching.holds(lambda: spoke.stat().st_size == 2)
            async with asyncio.timeout(30):  # an idle one is ended after a minute
                await launching.holds(lambda: set(os.listdir(there.state / "boxes")) == {".drain", wanted.id})
            done = await runtime.exec(wanted.id, ["python3", "-c", "print(1)"], timeout_seconds=30)
            assert done.stdout == b"1\n"

    asyncio.run(flow())


def test_what_a_program_calls_its_environment_does_not_fill_the_launcher(there: Place) -> None:
    async def flow() -> None:
        async with launching.connected(there) as runtime:
            waits = await runtime.start(there.make(uid="waits-1", waits=True))
            wanted = there.python(BOASTS)
            await runtime.claim(waits.id, wanted)
            await launching.logged(there, "set 0")
            with pytest.raises(errors.RuntimeRefused, match="its environment is over"):
                await runtime.exec(wanted.id, ["true"], timeout_seconds=30)

    asyncio.run(flow())
