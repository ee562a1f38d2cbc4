"""A Python that waited is the Python it would have been: the same script, cold and warm, tells the same of itself; and
of a box that was used nothing is found in the next."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from agentk.runtime import box, jails
from tests.runtime import launching, podmans
from tests.runtime.launching import Place

pytestmark = launching.needs_jail

FACTS = """
import gc, json, os, signal, sys
def links():
    found = {}
    for name in os.listdir('/proc/self/fd'):
        try: found[name] = os.readlink('/proc/self/fd/' + name)
        except OSError: continue
    return {name: to.split(':')[0] for name, to in found.items()}
def status():
    wanted = ('Sig', 'Shd', 'Cap', 'NoNewPrivs', 'Seccomp', 'Uid', 'Gid', 'Groups', 'Threads', 'Name', 'NSpid')
    return [line.strip() for line in open('/proc/self/status') if line.startswith(wanted)]
def read(path): return open(path).read()
import resource
main = sys.modules['__main__']
frame, names = sys._getframe(), []
print(json.dumps({
    'argv': sys.argv, 'orig_argv': sys.orig_argv, 'path': sys.path, 'flags': repr(sys.flags), 'exe': sys.executable,
    'prefix': [sys.prefix, sys.base_prefix, sys.exec_prefix], 'environ': dict(os.environ), 'cwd': os.getcwd(),
    'cmdline': read('/proc/self/cmdline'), 'proc_environ': sorted(read('/proc/self/environ').split('\\0')),
    'main': {name: repr(getattr(main, name, None)).split(' at ')[0] for name in dir(main)},
    'handlers': [repr(signal.getsignal(number)) for number in signal.valid_signals()],
    'mask': sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), 'fds': links(), 'status': status(),
    'limits': [resource.getrlimit(number) for number in range(16)], 'umask': os.umask(0o22), 'nice': os.nice(0),
    'streams': [[repr(stream), stream.encoding, stream.errors, stream.line_buffering, stream.write_through,
                 type(stream.buffer).__name__] for stream in (sys.stdin, sys.stdout, sys.stderr)],
    'std': [sys.stdin is sys.__stdin__, sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__],
    'hooks': [repr(sys.excepthook), repr(sys.displayhook), sys.warnoptions, sys.getrecursionlimit(), gc.get_threshold(),
              sys.gettrace(), sys.getprofile(), [repr(one).split(' at ')[0] for one in sys.meta_path],
              len(sys.path_hooks), sys.dont_write_bytecode],
    'modules': sorted(sys.modules), 'hosts': read('/etc/hosts'), 'host': os.uname().nodename,
    'tmp': sorted(os.listdir('/tmp')), 'shm': os.listdir('/dev/shm'), 'sid': os.getsid(0), 'pid': os.getpid(),
    'mounts': sorted(line.split()[4] + ' ' + line.split()[5] for line in open('/proc/self/mountinfo')),
    'group': read('/proc/self/cgroup').splitlines()[0].split(':')[2],
    'unix': len(read('/proc/net/unix').splitlines()), 'oom': read('/proc/self/oom_score_adj'),
    'sysv': [len(read('/proc/sysvipc/' + kind).splitlines()) for kind in ('msg', 'sem', 'shm')],
}))
"""
CODE = base64.b64encode(FACTS.encode()).decode()
FILES = box.Mount(
    "files", "/code", files={"facts.py": CODE, "again.py": base64.b64encode(b"import facts").decode()}
)
WAYS: dict[str, Sequence[str]] = {
    "file": ["python", "/code/facts.py", "a", "--b"],
    "code": ["python3", "-c", FACTS, "a"],
    "module": ["python", "-m", "facts", "a"],
    "unbuffered": ["python", "-u", "/code/facts.py"],
    "by path": ["/usr/bin/python3", "/code/facts.py"],
    "by exec": ["python", "-X", "utf8", "/code/facts.py"],
    "by shell": ["sh", "-c", "exec python /code/facts.py"],
}
PODMAN = pytest.param("podman", marks=podmans.needs_podman)
CLAIMED = [("nsjail", way) for way in WAYS]
CLAIMED += [
    pytest.param("podman", way, marks=podmans.needs_podman)
    for way in ("file", "module", "by exec", "by shell")
]


@pytest.fixture
def there(request: pytest.FixtureRequest) -> Iterator[Place]:
    with launching.place() as made:
        made.kind = getattr(request, "param", "nsjail")
        made.launch()
        yield made


async def cold(runtime: jails.Jails, wanted: box.Box) -> None:
    await runtime.start(wanted)
    await launching.ended(runtime, wanted.id)


async def warm(runtime: jails.Jails, there: Place, wanted: box.Box) -> None:
    made = await runtime.start(there.make(uid=f"w-{wanted.uid}", waits=True))
    await runtime.claim(made.id, wanted)
    await launching.ended(runtime, wanted.id)


def told(lines: Sequence[str]) -> dict[str, Any]:
    """What the script said. Its one long line may come in parts."""
    try:
        return dict(json.loads("".join(lines)))
    except ValueError:
        pytest.fail("\n".join(lines)[-2000:])


def same(first: dict[str, Any], second: dict[str, Any], but: str = "") -> None:
    for name in first.keys() - {but}:
        assert first[name] == second[name], name


@pytest.mark.parametrize(("there", "way"), CLAIMED, indirect=["there"])
def test_a_claimed_box_is_the_box(there: Place, way: str) -> None:
    async def flow() -> None:
        async with launching.connected(there) as runtime:
            given: dict[str, Any] = {
                "mounts": [FILES],
                "env": {"A": "1", "TZ": "Asia/Tokyo"},
                "hostname": "joe",
            }
            given["cwd"] = "/code" if way == "module" else "/workspace"
            await cold(runtime, there.make(*WAYS[way], uid="cold", **given))
            await warm(runtime, there, there.make(*WAYS[way], uid="warm", **given))

    asyncio.run(flow())
    first, second = told(there.log(uid="cold")), told(there.log(uid="warm"))
    if there.kind == "podman":
        first, second = of_podman(first, "cold"), of_podman(second, "warm")
    same(first, second)


def of_podman(told: dict[str, Any], uid: str) -> dict[str, Any]:
    """The same for every box: its FIFOs have names, and its first pids are those of the OCI runtime's threads."""
    fds = {number: to.replace(f"/{uid}-1/", "/ID/") for number, to in told["fds"].items()}
    status = [line for line in told["status"] if not line.startswith("NSpid")]
    return {**told, "fds": fds, "status": status, "pid": 0, "sid": told["sid"] == told["pid"]}


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("by path", "by shell")])
def test_a_warm_command_is_the_command(there: Place, way: str) -> None:
    async def flow() -> list[box.ExecResult]:
        async with launching.connected(there) as runtime:
            made = there.make("sleep", "1000", mounts=[FILES], env={"A": "1"})
            await runtime.start(made)
            results = []
            for number in range(2):
                cwd = "/code" if way == "module" else ""
                env = {"B": "2"}
                results.append(await runtime.exec(made.id, WAYS[way], 60, stdin=b"in", env=env, cwd=cwd))
                if not number:
                    await waits_beside(there, made)
            return results

    first, second = asyncio.run(flow())
    # the network is the whole box's: sockets of the one that is made for the next command may be in it already
    same(told([first.stdout.decode() + first.stderr.decode()]), told([second.stdout.decode()]), but="unix")


async def waits_beside(there: Place, made: box.Box) -> None:
    """Until a Python is ready for the next command: its score is said last."""

    def ready() -> bool:
        for group in launching.leaves(there, made, "exec-"):
            with contextlib.suppress(OSError):  # gone meanwhile
                pids = (group / "cgroup.procs").read_text().split()
                if any(launching.oom_score(int(pid)) == 1000 for pid in pids):
                    return True
        return False

    there.need_cgroups()
    await launching.holds(ready)


ERRORS = {
    "raised": "def f():\n    1 / 0\nf()",
    "syntax": "def (",
    "exit text": "import sys; sys.exit('bye')",
    "exit number": "import sys; sys.exit(7)",
    "signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM); import time; time.sleep(100)",
    "interrupt": "raise KeyboardInterrupt",
    "abort": "import os; os.abort()",
    "hook": "import sys; sys.excepthook = lambda *a: print(a[0].__name__); 1 / 0",
    "chain": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('x') from e",
    "thread": "import threading; threading.Thread(target=lambda: print('late')).start()",
    "atexit": "import atexit; atexit.register(print, 'end'); 1 / 0",
}


@pytest.mark.parametrize("name", ERRORS)
def test_it_ends_as_a_cold_one_ends(there: Place, name: str) -> None:
    async def flow() -> tuple[box.Seen, box.Seen]:
        async with launching.connected(there) as runtime:
            code = base64.b64encode(ERRORS[name].encode()).decode()
            files = [box.Mount("files", "/code", files={"main.py": code})]
            first = there.make("python", "/code/main.py", uid="cold", mounts=files)
            second = there.make("python", "/code/main.py", uid="warm", mounts=files)
            await cold(runtime, first)
            await warm(runtime, there, second)
            return await launching.ended(runtime, first.id), await launching.ended(runtime, second.id)

    first, second = asyncio.run(flow())
    assert first.exit and second.exit
    assert (first.exit.code, first.exit.signal) == (second.exit.code, second.exit.signal)
    assert there.log(uid="cold") == there.log(uid="warm")


LEAVE = """
import os, signal, socket, subprocess, sys, threading, mmap
from multiprocessing import shared_memory
for path in ('/tmp/left', '/dev/shm/left', '/workspace/left'): open(path, 'w').write('x')
os.environ['LEFT'] = 'x'; os.putenv('LEFT', 'x'); sys.path.append('/tmp/left'); sys.modules['left'] = sys
signal.signal(signal.SIGUSR1, print); signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.dup2(1, 77); os.umask(0); sys.setrecursionlimit(77_000)
shared_memory.SharedMemory('left_posix', create=True, size=64)
import ctypes; libc = ctypes.CDLL(None); print('sysv', libc.shmget(77, 4096, 0o1666), libc.semget(77, 1, 0o1666))
listener = socket.socket(socket.AF_UNIX); listener.bind('\\0left'); listener.listen()
socket.create_server(('127.0.0.1', 7777))
subprocess.Popen(['sleep', '1000'], start_new_session=True); os.chdir('/tmp')
print('done', flush=True)
"""
LOOK = """
import os, signal, socket, sys, json
import ctypes; libc = ctypes.CDLL(None)
def listens(family, where):
    try: socket.socket(family).connect(where); return True
    except OSError: return False
print(json.dumps({
    'tmp': sorted(os.listdir('/tmp')), 'shm': os.listdir('/dev/shm'), 'workspace': os.listdir('/workspace'),
    'env': 'LEFT' in os.environ or 'LEFT' in open('/proc/self/environ').read(), 'path': '/tmp/left' in sys.path,
    'module': 'left' in sys.modules, 'handler': signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL,
    'ignored': signal.getsignal(signal.SIGTERM) != signal.SIG_DFL, 'fd': os.path.exists('/proc/self/fd/77'),
    'umask': os.umask(0), 'recursion': sys.getrecursionlimit(), 'cwd': os.getcwd(),
    'sysv': [libc.shmget(77, 4096, 0), libc.semget(77, 1, 0)], 'abstract': listens(socket.AF_UNIX, '\\0left'),
    'port': listens(socket.AF_INET, ('127.0.0.1', 7777)),
    'processes': sum(open('/proc/' + p + '/cmdline', 'rb').read().startswith(b'sleep') for p in os.listdir('/proc')
                     if p.isdigit()),
}))
"""
CLEAN = {
    "env": False, "path": False, "module": False, "handler": False, "ignored": False, "fd": False, "umask": 18,
    "recursion": 1000, "cwd": "/workspace", "sysv": [-1, -1], "abstract": False, "port": False, "processes": 0,
    "tmp": ["agentos.sock", "clove.sock"], "shm": [],
}  # fmt: skip


@pytest.mark.parametrize("there", ["nsjail", PODMAN], indirect=True)
def test_what_an_agent_leaves_is_not_found_by_the_next(there: Place) -> None:
    """Two agents of the same uid, one after the other: the worst that can happen to a pool."""

    async def flow() -> None:
        async with launching.connected(there) as runtime:
            await warm(runtime, there, there.python(LEAVE, uid="one"))
            await warm(runtime, there, there.python(LOOK, uid="two"))

    asyncio.run(flow())
    assert "done" in there.log(uid="one")  # its tracker of shared memory may have complained since
    assert told(there.log(uid="two")) == {**CLEAN, "workspace": []}


def test_what_a_command_leaves_is_not_found_by_the_next(there: Place) -> None:
    """But its agent's own workspace, which all of them share, and what listens on its own loopback's ports is gone."""

    async def flow() -> list[box.ExecResult]:
        async with launching.connected(there) as runtime:
            made = there.make("sleep", "1000")
            await runtime.start(made)
            await runtime.exec(made.id, ["python", "-c", "pass"], 60)
            results = []
            for code in (LEAVE, LOOK):
                await waits_beside(there, made)
                results.append(await runtime.exec(made.id, ["python", "-c", code], 60))
            return results

    left, found = asyncio.run(flow())
    assert left.stdout.endswith(b"done\n"), left
    assert told([found.stdout.decode()]) == {**CLEAN, "workspace": ["left"]}


NO_PROGRAMS = ("def (", "raise SyntaxError('its own')", "exec('def (')", "print('once'); int('x')")
KEEPS = (
    "import json; json.JSONEncoder.kept = open('/workspace/kept', 'w'); json.JSONEncoder.kept.write('all')"
)


def test_a_text_ends_as_cold_and_what_it_never_closed_is_written(there: Place) -> None:
    """Whether it is no program at all or one that fails alike; a file kept by a class of Python's own is, too."""

    async def flow() -> bytes:
        async with launching.connected(there) as runtime:
            made = there.make("sleep", "1000")
            await runtime.start(made)
            await runtime.exec(made.id, ["python", "-c", ""], 60)
            for text in (*NO_PROGRAMS, KEEPS):
                first = await runtime.exec(made.id, ["/usr/bin/python3", "-c", text], 60)
                await waits_beside(there, made)
                second = await runtime.exec(made.id, ["python", "-c", text], 60)
                assert (first.exit.code, first.stdout, first.stderr) == (
                    second.exit.code,
                    second.stdout,
                    second.stderr,
                )
            return (await runtime.exec(made.id, ["cat", "/workspace/kept"], 60)).stdout

    assert asyncio.run(flow()) == b"all"


def test_random_state_and_hashes_are_nobody_elses(there: Place) -> None:
    code = "import random; print(random.random(), hash('x'))"

    async def flow() -> None:
        async with launching.connected(there) as runtime:
            for uid in ("one", "two"):
                made = await runtime.start(there.make(uid=f"w-{uid}", waits=True, modules=["random"]))
                await runtime.claim(made.id, there.python(code, uid=uid))
                await launching.ended(runtime, f"{uid}-1")

    asyncio.run(flow())
    first, second = there.log(uid="one")[0].split(), there.log(uid="two")[0].split()
    assert first[0] != second[0] and first[1] != second[1]


@pytest.mark.parametrize("name", ["PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONUNBUFFERED", "LC_ALL"])
def test_what_python_reads_at_its_start_is_as_told(there: Place, name: str) -> None:
    code = "import os, sys; print(sys.flags, hash('x') * (name := 'PYTHONHASHSEED' in os.environ), sys.stdout.encoding)"
    value = {"LC_ALL": "C.UTF-8"}.get(name, "7")

    async def flow() -> None:
        async with launching.connected(there) as runtime:
            await cold(runtime, there.python(code, uid="cold", env={name: value}))
            await warm(runtime, there, there.python(code, uid="warm", env={name: value}))

    asyncio.run(flow())
    assert there.log(uid="cold") == there.log(uid="warm")


def test_an_agent_without_room_gets_no_waiting_python(there: Place) -> None:
    """Neither below its memory nor below its processes; its commands are served all the same."""

    async def flow(limits: box.Limits, uid: str) -> None:
        async with launching.connected(there) as runtime:
            made = there.make("sleep", "1000", uid=uid, limits=limits)
            await runtime.start(made)
            for _ in range(10):
                assert (await runtime.exec(made.id, ["python", "-c", "print(1)"], 60)).stdout == b"1\n"
            await launching.holds(lambda: not launching.leaves(there, made, "exec-"))

    there.need_cgroups()
    asyncio.run(flow(box.Limits(memory_bytes=40 << 20, pids=64, open_files=256), "small"))
    asyncio.run(flow(box.Limits(memory_bytes=256 << 20, pids=9, open_files=256), "few"))


def test_what_waits_is_not_counted_and_ends_with_its_box_or_launcher(there: Place) -> None:
    async def flow(how: str) -> None:
        made = there.make("sleep", "1000", uid=how)
        async with launching.connected(there) as runtime:
            await runtime.start(made)
            await runtime.exec(made.id, ["python", "-c", "pass"], 60)
            await waits_beside(there, made)
            assert (await runtime.counters(made.id)).pids == 2  # its init and its program
            if how == "box":
                await runtime.kill(made.id, box.Intent("Killed"))
        if how == "launcher":
            there.die()
            there.launch()
        await launching.holds(lambda: not launching.leaves(there, made, "exec-"))

    asyncio.run(flow("box"))
    asyncio.run(flow("launcher"))
