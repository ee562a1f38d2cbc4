"""Going into a box that runs: a program of the box's own with three ends of the daemon's, or one of ours that packs or
unpacks files, with the box's rights and never more.

A hand lives in a leaf of its own in the agent's group, so the agent's limits hold it, and stands still with its box.
It ends with its box, with whoever asked for it, with its time, and with this launcher; then everything that it left
in its leaf is killed. Its bytes never pass here: the ends are pipes or a terminal of the daemon's.
"""

import contextlib
import dataclasses
import errno
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime import process
from agentk.runtime.launcher import (
    checking,
    ending,
    entered,
    exec_sibling,
    exec_wanted,
    loop,
    processes,
    reaping,
    wire,
)
from agentk.runtime.launcher.calling import Caller
from agentk.runtime.launcher.crash import crashpoint
from agentk.runtime.launcher.world import Live, World, now_text

LEAF = "hand-"
_AT_ONCE = 32  # of one box
_TOLD_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Wanted:
    """One hand."""

    hand_id: str
    seconds: float | None = None  # None: as long as whoever asked is there
    argv: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)  # over the box's
    cwd: str = ""  # "" for the box's
    tty: bool = False
    sealed: entered.Sealed | None = None  # instead of argv


def enter(world: World, live: Live, message: wire.Message, fds: Sequence[int], caller: Caller) -> None:
    """A program of the box's, with `fds` as 0 to 2. Answers when it has ended. Raises Conflict, Invalid, BadRequest."""
    argv = message.get("argv")
    if not isinstance(argv, list):
        raise errors.BadRequest("enter needs argv")
    checking.check_argv(argv)
    tty, cwd = message.get("tty", False), message.get("cwd") or ""
    if not isinstance(tty, bool):
        raise errors.Invalid("must be true or false", field="enter.tty")
    if cwd:
        checking.check_inside(cwd, "cwd")
    if cwd and live.box.runtime == "process" and not process.leads_to(live.box, cwd):
        raise errors.BadRequest(f"without a jail there is only /workspace and what is mounted, not {cwd}")
    checking.check_ends(fds, 3, tty, givers(world))
    wanted = Wanted(
        hand_id=exec_wanted.check_exec_id(message.get("hand_id")),
        seconds=_seconds(message.get("timeout_seconds")),
        argv=tuple(argv),
        env=exec_wanted.read_env(message.get("env")),
        cwd=cwd,
        tty=tty,
    )
    begin(world, live, wanted, fds, caller)


def begin(world: World, live: Live, wanted: Wanted, fds: Sequence[int], caller: Caller) -> None:
    """Raises Conflict when the box does not run, TooManyRequests."""
    exec_sibling.check_open(live)
    others = world.commands_of(live.box.id)
    if sum(isinstance(other, Hand) for other in others) >= _AT_ONCE:
        raise errors.TooManyRequests(
            f"{_AT_ONCE} programs have been put into this box", retry_after_seconds=1
        )
    if any(other.exec_id == wanted.hand_id for other in others):
        raise errors.Conflict(f"{wanted.hand_id} is in this box already")
    world.exec_count += 1
    Hand(world, live, wanted, fds, caller, world.exec_count).begin()


def givers(world: World) -> set[int]:
    """Whose pipes and terminals come in."""
    return {os.geteuid(), world.settings.daemon_uid} - {-1}


def _seconds(told: object) -> float | None:
    if told is None:
        return None
    return exec_wanted.read_seconds(told)


class Hand:
    """One that is in a box."""

    kept_bytes = fed_bytes = 0

    def __init__(
        self, world: World, live: Live, wanted: Wanted, fds: Sequence[int], caller: Caller, number: int
    ) -> None:
        self.box_id, self.exec_id = live.box.id, wanted.hand_id
        self.needs_env = bool(wanted.argv)
        self._world, self._live, self._wanted, self._caller = world, live, wanted, caller
        self._box = dataclasses.replace(
            live.box, id=f"{live.box.id}-{LEAF}{number}", leaf=f"{LEAF}{number}", env={}, mounts=()
        )
        self._ends = [os.dup(fd) for fd in fds]
        self._keeper_pid, self._keeper_fd = 0, -1
        self._channel: socket.socket | None = None
        self._told = b""
        self._timer: loop.Timer | None = None
        self._intended = self._begun = self._timed_out = self._cancelled = False
        self._denied_before = 0

    def begin(self) -> None:
        """As soon as the box stands; what is ours needs nothing of it. Answers by itself."""
        self._world.commands[self._box.id] = self
        self._caller.on_gone = self.end
        if self._wanted.seconds is not None:
            self._timer = self._world.loop.after(self._wanted.seconds, self._too_long)
        exec_sibling.when_it_stands(self._world, self._live, self)

    def end(self) -> None:
        """Kill it with all it started; it answers when it is dead. Repeatable."""
        self._cancelled = not self._timed_out
        self._stop()

    def allow(self, more: int) -> None:
        """Nothing of what it says comes here."""

    def freeze(self, frozen: bool) -> None:
        """Stand still with its box, or go on."""
        if self._begun:
            box, groups = self._box, self._world.groups
            (groups.freeze if frozen else groups.thaw)(box.namespace, box.cgroup, box.leaf)

    @property
    def is_over(self) -> bool:
        """Whether it was answered already."""
        return self._cancelled or self._timed_out

    def fail(self, error: errors.AgentkError) -> None:
        """It could not be made."""
        self._clean()
        self._caller.answer(error)

    def make(self, env: Mapping[str, str]) -> None:
        """As far as the fork."""
        world, box = self._world, self._box
        order = self._order(env)
        self._intended = True
        world.records.intend(box)  # so that a launcher that comes after us ends what we leave
        crashpoint("enter.after-intent")
        world.groups.make_leaf(box.namespace, box.cgroup, box.leaf)
        crashpoint("enter.after-leaf")
        self._denied_before = world.groups.pids_denied(box.namespace, box.cgroup, box.leaf) or 0
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._channel = ours
        try:
            checking.lend_ends(self._ends, box.host_uid)
            self._keeper_pid = entered.fork(order, theirs)
        finally:
            theirs.close()
            self._close_ends()
        self._begun = True
        crashpoint("enter.after-fork")
        self._keeper_fd = os.pidfd_open(self._keeper_pid)
        world.loop.watch(self._keeper_fd, loop.READ, lambda _: self._ended())
        world.loop.watch(ours.fileno(), loop.READ, lambda _: self._heard())

    def _order(self, env: Mapping[str, str]) -> entered.Order:
        world, live, wanted, box = self._world, self._live, self._wanted, self._box
        assert live.guest is not None
        jailed = box.runtime != "process"
        go_to: Callable[[], None] = lambda: None  # noqa: E731
        if not jailed:
            env = {**env, process.MARK: box.id}
            folder = world.workspaces.ensure(box.uid, box.host_uid, None).path
            there = dataclasses.replace(live.box, cwd=wanted.cwd or live.box.cwd)
            record = world.records.path(live.box.id)
            go_to = lambda: process.enter_folder(  # noqa: E731
                there, folder, lambda number, _: process.files_folder(record, number)
            )
        return entered.Order(
            guest=live.guest,
            entry_files=tuple(world.groups.entry_files(box.namespace, box.cgroup, box.leaf)),
            keeper_files=tuple(world.groups.keeper_files()),
            ends=self._ends,
            filter=exec_sibling.seccomp_of(world, box),
            program=entered.Program(
                wanted.argv, tuple({**env, **wanted.env}.items()), wanted.cwd or box.cwd, wanted.tty
            )
            if wanted.argv
            else None,
            sealed=wanted.sealed,
            host_uid=box.host_uid,
            jailed=jailed,
            go_to_folder=go_to,
        )

    def _heard(self) -> None:
        """What fails, or what one of ours answers; of one that was led astray no more than a little is kept."""
        if self._channel is None:
            return
        try:
            data = self._channel.recv(_TOLD_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._world.loop.forget(self._channel.fileno())
        self._told = (self._told + data)[:_TOLD_MAX_BYTES]

    def _too_long(self) -> None:
        self._timed_out = not self._cancelled
        self._stop()

    def _stop(self) -> None:
        world, box = self._world, self._box
        if not self._begun:
            self._tell(None)
            return
        world.groups.kill(box.namespace, box.cgroup, box.leaf, wait_seconds=0)
        if box.runtime == "process":
            process.kill_all(box.id)
        if self._keeper_fd >= 0:
            # it may not be in the leaf, or not have forked, and then its child goes with it
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._keeper_fd, signal.SIGKILL)

    def _ended(self) -> None:
        _, status = os.waitpid(self._keeper_pid, os.WNOHANG)
        self._heard()
        code = os.waitstatus_to_exitcode(status)
        self._tell(code if code >= 0 else 128 - code)

    def _tell(self, code: int | None) -> None:
        """The end of it, once."""
        if self._box.id not in self._world.commands:
            return
        told = self._told_lines()
        counters = self._counters()
        if counters.pids_denied is not None:  # some kernels count them for the whole agent
            denied = max(0, counters.pids_denied - self._denied_before)
            counters = dataclasses.replace(counters, pids_denied=denied)
        gone = not processes.is_alive(self._live.guest)
        crashpoint("enter.before-clean")
        self._clean()
        self._caller.answer(self._result(code, told, counters, gone))

    def _result(
        self, code: int | None, told: Mapping[str, Any], counters: words.Counters, gone: bool
    ) -> wire.Message | errors.AgentkError:
        stopped = self._cancelled or self._timed_out
        if "error" in told and not stopped:
            return _refusal(str(told["error"]), gone, told.get("errno") if self._wanted.sealed else None)
        if self._wanted.sealed is not None:
            done = told.get("done")
            if isinstance(done, dict):
                return done
            return _refusal(
                "it took too long" if self._timed_out else "it was ended before it was done", gone
            )
        intent = None
        if self._timed_out:
            intent = words.Intent("DeadlineExceeded", "it took too long")
        elif self._cancelled:
            intent = words.Intent("Killed", "it was taken back, or its box ended")
        ended = words.Exit(
            code=code,
            signal=reaping.signal_of(code) if code else None,
            source="none" if code is None else "wait",
            finished_at=now_text(),
            counters=counters,
            intent=intent,
            message="the box has ended" if gone else "",
        )
        return {"exit": wire.plain(ended), "timed_out": self._timed_out, "cancelled": self._cancelled}

    def _told_lines(self) -> dict[str, Any]:
        try:
            told = json.loads(self._told.partition(b"\n")[0])
        except (ValueError, RecursionError):
            return {}
        return told if isinstance(told, dict) else {}

    def _counters(self) -> words.Counters:
        box = self._box
        return self._world.groups.counters(box.namespace, box.cgroup, box.leaf)

    def _close_ends(self) -> None:
        for fd in self._ends:
            os.close(fd)
        self._ends = []

    def _clean(self) -> None:
        world, box = self._world, self._box
        self._caller.on_gone = None
        self._close_ends()
        if self._timer:
            self._timer.cancel()
        if self._keeper_fd >= 0:
            world.loop.forget(self._keeper_fd)
            os.close(self._keeper_fd)
            self._keeper_fd = -1
        if self._channel:
            world.loop.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None
        world.commands.pop(box.id, None)
        if self._intended:
            live = Live(box)
            ending.stop_all(world, live)
            ending.remove_leaf(world, live)
            world.records.forget(box.id)


def _refusal(why: str, gone: bool, code: object = None) -> errors.AgentkError:
    """`code`: errno of one of ours, which had begun."""
    if gone:
        return errors.Conflict("the box has just ended")
    if code in (errno.ENOENT, errno.ENOTDIR):
        return errors.NotFound(why[:500])
    if code == errno.EINVAL:
        return errors.BadRequest(why[:500])
    if code is not None:
        return errors.RuntimeRefused(why[:500])
    return errors.RuntimeRefused(f"cannot enter the box: {why[:500]}")
