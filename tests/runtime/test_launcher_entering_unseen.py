"""What a guest sees of a program that is put into its box: that program, and nothing of what became it."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.runtime import hand_rig, launching
from tests.runtime.launching import Place

pytestmark = launching.needs_jail


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


@pytest.mark.parametrize("seccomp", ["baseline", "privileged"])
def test_the_guest_sees_nothing_of_what_becomes_it(there: Place, seccomp: str) -> None:
    """It looks at every process that appears, as fast as it can: no path of the host, no memory, no descriptor. Nor
    can it trace one, where no filter keeps it from trying."""
    code = """
import ctypes, os
seen, opened = set(), set()
looks = {"mem": open, "environ": open, "maps": open, "fd": os.listdir, "fdinfo": os.listdir, "root": os.listdir}
looks |= {"exe": os.readlink, "ns/mnt": os.readlink}
libc = ctypes.CDLL(None)

def said(pid, name):
    with open(f"/proc/{pid}/{name}") as file:
        return file.read().replace(chr(0), " ")

print("looks", flush=True)
while not os.path.exists("/workspace/enough"):
    if "entering\\n" in seen:
        open("/workspace/met", "w").close()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            seen |= {said(pid, "cmdline"), said(pid, "comm")}
        except OSError:
            continue
        for name, look in looks.items() if pid not in ("1", str(os.getpid())) else ():
            try:
                look(f"/proc/{pid}/{name}")
                if "entering" in said(pid, "comm"):
                    opened.add(name)
            except OSError:
                pass
        if pid not in ("1", str(os.getpid())) and "entering\\n" in seen and libc.ptrace(0x4206, int(pid), 0, 0) == 0:
            if "entering" in said(pid, "comm"):
                opened.add("trace")
    try:
        while os.waitpid(-1, os.WNOHANG | 0x40000000)[0]:  # those that it traced when they were its box's own
            pass
    except ChildProcessError:
        pass
print("SEEN", sorted(seen), sorted(opened), flush=True)
"""

    async def flow() -> None:
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.python(code, uid=f"looks-{seccomp}", seccomp=seccomp))
            await launching.logged(there, "looks", uid=f"looks-{seccomp}")
            tries = [
                await hand_rig.enter(runtime, seen.id, "test", "-e", "/workspace/met") for _ in range(40)
            ]
            while tries[-1].exit.code and len(tries) < 1000:  # until it has met one on its way
                tries.append(await hand_rig.enter(runtime, seen.id, "test", "-e", "/workspace/met"))
            assert tries[-1].exit.code == 0
            await hand_rig.enter(runtime, seen.id, "touch", "/workspace/enough")
            await launching.logged(there, "SEEN", uid=f"looks-{seccomp}")
            told = next(line for line in there.log(uid=f"looks-{seccomp}") if "SEEN" in line)
            assert str(there.state) not in told
            assert "launcher" not in told
            assert told.endswith(" []")
            await runtime.remove(seen.id)

    asyncio.run(flow())
