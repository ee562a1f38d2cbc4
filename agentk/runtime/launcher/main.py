"""The launcher as a process: started by the keeper, outlives the daemon, ends by SIGTERM or `shutdown`.

It holds root when agentk runs as root, so it is small: one thread, one loop, the standard library. When it ends, its
boxes go on; the launcher that comes after it adopts them.
"""

import argparse
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from agentk.api import errors
from agentk.data import files
from agentk.runtime import cgroup, finding, kernel, nsjail, uids, workspace
from agentk.runtime.launcher import (
    adopting,
    asking,
    boxes,
    checking,
    crash,
    doors,
    ending,
    environments,
    loop,
    mounts,
    moving,
    output,
    podman,
    serving,
    settling,
    sparing,
    tools,
)
from agentk.runtime.launcher.world import Settings, World
from agentk.runtime.seccomp import bpf, kafel

_BACKLOG = 64
_SHIELD = "-900"  # of the OOM killer: a thousand boxes hang on this process
_EXIT_USAGE = 64
_PROVED = Path("/run/agentk-limits-proved")  # this machine's, for root: gone with the boot it speaks of


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m agentk.runtime.launcher", description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--daemon-uid", type=int, default=-1, help="who may connect beside root")
    parser.add_argument("--instance", default="", help="tells two daemons on one machine apart")
    parser.add_argument("--fd", type=int, default=-1, help="a socket that listens already")
    chosen = parser.parse_args(arguments)
    crash.arm(os.environ.get("AGENTK_CRASH_AT", ""), os.environ.get("AGENTK_CRASH_DIR", ""))
    try:
        world, listener = _build(chosen)
    except (errors.AgentkError, OSError) as error:
        print(f"agentk launcher: {error}", file=sys.stderr, flush=True)
        return _EXIT_USAGE
    _prove_limits(world)
    world.spares, world.movers = sparing.Spares(world), moving.Movers(world)
    world.podman = podman.Podman(world)
    settling.Settler(world).watch()
    adopting.adopt(world)
    world.spares.refill()
    server = serving.Server(world, listener)
    _mark(chosen.run / "launcher.pid")
    gc.collect()
    gc.freeze()  # what is here stays; a forked child need not copy it to look at it
    with _wake_on_signals(world.loop):
        world.loop.run()
    (chosen.run / "launcher.sock").unlink(missing_ok=True)  # before the next launcher can make its own
    server.close()
    _leave(world, chosen.run)
    return 0


def _build(chosen: argparse.Namespace) -> tuple[World, socket.socket]:
    os.umask(0o077)
    for number in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    max_fds = _raise_open_files()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_SHIELD)
    rootless = os.geteuid() != 0
    if not rootless:
        kernel.unshare(kernel.CLONE_NEWNS)  # what is mounted for a box shows nowhere else
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
    state, run = chosen.state, chosen.run
    listener = _listen(chosen, run / "launcher.sock")  # first: it tells whether another launcher lives
    for folder in (state / "boxes", state / "staged", run / "doors"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ending.make_log_folder(state / "logs", chosen.daemon_uid)
    data = files.folder("runtimes") / "nsjail"
    block = range(0) if rootless else uids.block(state, chosen.instance)
    builder = block[-1] if block else -1
    settings = Settings(
        state=state,
        run=run,
        bounds=checking.Bounds(state, run, block[1:-2], builder),
        daemon_uid=chosen.daemon_uid,
        rootless=rootless,
        binary=finding.nsjail(),
        host=mounts.host(),
        base=(data / "base.cfg").read_text(),
        policies={name: nsjail.policy(data, name, os.uname().machine) for name in nsjail.POLICIES},
        filters=_filters(os.uname().machine),
        stage_at=mounts.place(state),
        max_fds=max_fds,
        open_doors=doors.open_folder(run, chosen.instance, rootless),
        nobody=block[-2] if block else -1,
    )
    world = World(
        settings=settings,
        loop=loop.Loop(),
        records=boxes.Records(state / "boxes"),
        groups=cgroup.Cgroups.open(chosen.instance),
        workspaces=workspace.Workspaces(state, root=not rootless),
        drain=output.Drain(state / "boxes" / ".drain"),
        tools=tools.Tools(state / "staged", finding.init(), finding.lone_init()),
        environments=environments.Environments(state / "environments", builder),
        boot_id=kernel.boot_id(),
    )
    return world, listener


def _filters(machine: str) -> dict[str, bytes]:
    """Without them nothing enters a box; boxes themselves go on."""
    try:
        return {name: bpf.compiled(kafel.load(name, machine)) for name in kafel.DEFAULTS}
    except ValueError as error:
        print(f"agentk launcher: {error}", file=sys.stderr, flush=True)
        return {}


def _prove_limits(world: World) -> None:
    """Once a boot, before any box: a limit that does not bite is not held, whatever its file says."""
    if world.groups.version == "none":
        return
    marker = world.settings.state / "limits-proved" if world.settings.rootless else _PROVED
    for proof in world.groups.self_test(marker):
        if not proof.ok:
            print(f"agentk launcher: {proof.name}: {proof.message}", file=sys.stderr, flush=True)


def _listen(chosen: argparse.Namespace, path: Path) -> socket.socket:
    """Raises AlreadyExists when another launcher answers there."""
    if chosen.fd >= 0:
        return socket.socket(fileno=chosen.fd)
    found = asking.peer(path)
    if found is not None:
        raise errors.AlreadyExists(f"a launcher already answers at {path} (pid {found})")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    listener.bind(str(path))
    if chosen.daemon_uid >= 0:
        os.chown(path, chosen.daemon_uid, chosen.daemon_uid)  # 0600 by our umask
    listener.listen(_BACKLOG)
    return listener


def _raise_open_files() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (1 << 20) if hard == resource.RLIM_INFINITY else hard


def _mark(path: Path) -> None:
    path.write_text(f"{os.getpid()}\n")


@contextlib.contextmanager
def _wake_on_signals(looping: loop.Loop) -> Iterator[None]:
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: looping.stop())
    looping.watch(read, loop.READ, lambda _: _drop(read))
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        looping.forget(read)
        os.close(read)
        os.close(write)


def _drop(fd: int) -> None:
    os.read(fd, 64)


def _leave(world: World, run: Path) -> None:
    """Boxes go on without us."""
    world.spares.close()
    world.movers.close()
    world.podman.close()
    for live in world.lives.values():
        if live.output:
            world.records.write_counts(live.box.id, *live.log_counts)
            live.output.close()
    world.drain.close()
    world.workspaces.close()
    (run / "launcher.pid").unlink(missing_ok=True)
