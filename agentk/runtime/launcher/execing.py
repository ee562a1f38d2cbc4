"""One command beside a box that runs: a sibling jail with the same files, uid, network and limits, or lower ones.

It has its own process namespace, /tmp and /dev/shm; /workspace is shared. A Podman box has no siblings: there it is a
process of the box itself, with the box's rights. Its leaf is in the agent's group, so fifty
of them share the agent's limits. Output is bounded or sent on as it comes; a command that takes too long, is taken
back, or whose box or caller is gone, is killed with all it started. It never outlives any of them.
"""

import array
import dataclasses
import os
import signal
import socket
from collections.abc import Mapping

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime import process
from agentk.runtime.launcher import (
    ending,
    exec_sibling,
    loop,
    processes,
    reaping,
    remains,
    starting,
    warming,
    wire,
)
from agentk.runtime.launcher.calling import Caller
from agentk.runtime.launcher.crash import crashpoint
from agentk.runtime.launcher.exec_streams import NAMES, Feed, Said, note, pipe
from agentk.runtime.launcher.exec_wanted import Wanted, check_lower
from agentk.runtime.launcher.world import Live, World, now_text

# Of one box, for what waits here waits in the memory of a process that all boxes hang on.
_AT_ONCE = 64
_FED_MAX_BYTES = 64 * 1024 * 1024
_KEPT_MAX_BYTES = 128 * 1024 * 1024


def run(world: World, live: Live, wanted: Wanted, caller: Caller) -> None:
    """Answers with the result when the command has ended. Raises Conflict when the box does not run."""
    exec_sibling.check_open(live)
    others = [other for other in world.commands_of(live.box.id) if isinstance(other, Command)]
    if len(others) >= _AT_ONCE:
        raise errors.TooManyRequests(f"{_AT_ONCE} commands run in this box already", retry_after_seconds=1)
    if wanted.exec_id and any(other.exec_id == wanted.exec_id for other in others):
        raise errors.Conflict(f"a command {wanted.exec_id} runs in this box already")
    check_lower(wanted.limits, live.box.limits)
    if sum(other.fed_bytes for other in others) + len(wanted.stdin) > _FED_MAX_BYTES:
        raise errors.TooManyRequests("too much input waits for commands in this box", retry_after_seconds=1)
    if sum(other.kept_bytes for other in others) + wanted.kept_bytes > _KEPT_MAX_BYTES:
        raise errors.TooManyRequests(
            "too much output is kept for commands in this box", retry_after_seconds=1
        )
    world.exec_count += 1
    Command(world, live, wanted, caller, world.exec_count).begin()


def cancel(world: World, box_id: str, exec_id: str) -> None:
    """End one at once. Repeatable: one that has ended, or never was, is no error."""
    for command in world.commands_of(box_id):
        if command.exec_id == exec_id:
            command.end()


def allow(world: World, box_id: str, exec_id: str, more: int) -> None:
    """The daemon took so many bytes of what one said. One that has ended needs none."""
    for command in world.commands_of(box_id):
        if command.exec_id == exec_id:
            command.allow(more)


class Command:
    """One that runs."""

    needs_env = True

    def __init__(self, world: World, live: Live, wanted: Wanted, caller: Caller, number: int) -> None:
        self.box_id, self.exec_id = live.box.id, wanted.exec_id
        self._world, self._live, self._wanted, self._caller = world, live, wanted, caller
        self._box = exec_sibling.named(live.box, number)
        self._keeper_pid, self._keeper_fd = 0, -1
        self._channel: socket.socket | None = None
        self._feed: Feed | None = None
        self.kept_bytes = wanted.kept_bytes
        self._said = Said(world.loop, wanted.bound, self._send if wanted.streams else None)
        self._said.is_full = lambda: caller.is_full
        self._begun = self._released = self._timed_out = self._cancelled = False
        self._timer: loop.Timer | None = None
        self._guest: words.Process | None = None
        self._guest_fd = -1
        self._refused = ""
        self._unenforced: tuple[str, ...] = ()
        self._denied_before = 0

    @property
    def fed_bytes(self) -> int:
        """Of its input, what is still here."""
        return self._feed.waiting_bytes if self._feed else len(self._wanted.stdin)

    def begin(self) -> None:
        """As soon as the box stands, as far as the fork. Answers by itself."""
        self._world.commands[self._box.id] = self
        self._caller.on_gone, self._caller.on_room = self.end, self._said.resume
        self._timer = self._world.loop.after(self._wanted.seconds, self._too_long)
        exec_sibling.when_it_stands(self._world, self._live, self)

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
        world = self._world
        if warming.serves(self._live, self._wanted):
            warming.refill(world, self._live)
        warm = warming.take(world, self._live, self._wanted)
        if warm is not None:
            self._use(warm, env)
            return
        self._box = box = exec_sibling.fill(world, self._live, self._box, env, self._wanted)
        world.records.intend(box)  # so that a launcher that comes after us ends what we leave
        world.groups.make_leaf(box.namespace, box.cgroup, box.leaf)
        self._denied_before = world.groups.pids_denied(box.namespace, box.cgroup, box.leaf) or 0
        self._limit()
        self._fork()
        self._begun = True

    def _use(self, warm: warming.Warm, env: Mapping[str, str]) -> None:
        """A Python that waited becomes this command."""
        world, wanted = self._world, self._wanted
        del world.commands[self._box.id]
        cwd = wanted.cwd or self._live.box.cwd
        self._box = box = dataclasses.replace(warm.box, argv=wanted.argv, env={**env, **wanted.env}, cwd=cwd)
        world.commands[box.id] = self
        self._keeper_pid, self._keeper_fd, self._guest = warm.keeper_pid, warm.keeper_fd, warm.guest
        self._begun = True
        world.loop.watch(self._keeper_fd, loop.READ, lambda _: self._ended())
        self._denied_before = world.groups.pids_denied(box.namespace, box.cgroup, box.leaf) or 0
        given: list[int] = []
        try:
            warm.tell(box, self._pipes(given, os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)))
            self._released = True
            self._watch_guest()
        except OSError:
            self._stop()  # it has just ended, and says why
        finally:
            for fd in given:
                os.close(fd)

    def end(self) -> None:
        """Kill it with all it started; it answers when all is dead. Repeatable."""
        self._cancelled = not self._timed_out
        self._stop()

    def allow(self, more: int) -> None:
        """So much more may be sent on."""
        self._said.allow(more)

    def freeze(self, frozen: bool) -> None:
        """Stand still with its box, or go on. Its time goes on all the same."""
        if self._begun:
            box, groups = self._box, self._world.groups
            (groups.freeze if frozen else groups.thaw)(box.namespace, box.cgroup, box.leaf)

    def _limit(self) -> None:
        box, limits = self._box, self._wanted.limits
        if limits == words.Limits():
            return
        unenforced = self._world.groups.limit_leaf(box.namespace, box.cgroup, box.leaf, limits)
        if unenforced and box.enforcement == "Strict":
            raise errors.RuntimeRefused(
                "this host does not hold these limits: " + "; ".join(unenforced),
                hint="see `agentk doctor`, or let the Runtime say enforcement: BestEffort",
                causes=[errors.Cause("limits", text) for text in unenforced],
            )
        self._unenforced = tuple(unenforced)

    def _fork(self) -> None:
        world, box = self._world, self._box
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.setblocking(False)
        self._channel = ours
        given: list[int] = []  # descriptors that are only for the child
        try:
            if box.runtime == "podman":
                ends = self._pipes(given, os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
                self._keeper_pid = exec_sibling.enter(world, self._live, box, ends, self._wanted, theirs)
                return self._watch(ours)
            stdin, *outputs = self._pipes(given)
            order = dataclasses.replace(
                starting.make_order(world, box), output=(outputs[0], outputs[1]), stdin=stdin
            )
            if box.runtime == "process":
                folder = world.workspaces.ensure(box.uid, box.host_uid, None).path
                self._keeper_pid = process.fork(dataclasses.replace(order, folder=folder), theirs)
            else:
                self._keeper_pid = exec_sibling.fork(world, self._live, order, theirs)
        finally:
            theirs.close()
            for fd in given:
                os.close(fd)
        return self._watch(ours)

    def _watch(self, channel: socket.socket) -> None:
        self._keeper_fd = os.pidfd_open(self._keeper_pid)
        self._world.loop.watch(self._keeper_fd, loop.READ, lambda _: self._ended())
        self._world.loop.watch(channel.fileno(), loop.READ, lambda _: self._heard())

    def _pipes(self, given: list[int], nothing: int = -1) -> list[int]:
        """Its descriptors 0, 1 and 2, which go to `given` as well; `nothing` is its input when it is fed none."""
        outputs = []
        for name in NAMES:
            read, write = pipe(self._box.host_uid)
            self._said.watch(name, read)
            outputs.append(write)
        given += outputs
        if self._wanted.stdin:
            reads, writes = pipe(self._box.host_uid)
            self._feed = Feed(self._world.loop, writes, self._wanted.stdin)
            # the feed has it, as long as it needs it
            self._wanted = dataclasses.replace(self._wanted, stdin=b"")
        else:
            reads = nothing
        given += [reads] if reads >= 0 else []
        return [reads, *outputs]

    def _heard(self) -> None:
        if self._channel is None:
            return
        try:
            data, ancillary, _, _ = self._channel.recvmsg(4096, socket.CMSG_SPACE(12))
        except BlockingIOError:
            return
        if not data:
            self._world.loop.forget(self._channel.fileno())
        for line in data.splitlines():
            if line == b"r":
                self._release(array.array("i", ancillary[0][2])[0])
            else:
                self._refused = str(starting.message_of(line).get("error", ""))

    def _release(self, pid: int) -> None:
        """Its first process waits for our word, which one that was taken back meanwhile never hears."""
        assert self._channel is not None
        world, box = self._world, self._box
        self._guest = processes.identify(pid)
        try:
            if self._cancelled or self._timed_out:
                self._stop()
                return
            if world.groups.version != "none" and pid not in world.groups.pids(
                box.namespace, box.cgroup, box.leaf
            ):
                raise OSError("the command is not in its cgroup")
            world.records.write_handle(box.id, {"guest": dataclasses.asdict(self._guest or _GONE)})
            self._channel.send(b"g\n")
            self._released = True
            self._watch_guest()
        except OSError as error:
            self._refused = str(error)
            self._stop()

    def _send(self, name: str, data: str) -> None:
        self._caller.note(note(self.box_id, self.exec_id, name, data))

    def _too_long(self) -> None:
        self._timed_out = not self._cancelled
        self._stop()

    def _stop(self) -> None:
        world, box = self._world, self._box
        if not self._begun:
            self._tell(words.Exit(None, None, "none", now_text()))
            return
        processes.send(self._guest, signal.SIGKILL)
        world.groups.kill(box.namespace, box.cgroup, box.leaf, wait_seconds=0)
        if box.runtime == "process":
            process.kill_all(box.id)
        if self._guest is None and self._keeper_fd >= 0:
            signal.pidfd_send_signal(self._keeper_fd, signal.SIGKILL)

    def _watch_guest(self) -> None:
        """The end of a jail's first process is the end of all in it. Its keeper's comes later: nobody need wait."""
        guest = self._guest
        if self._box.runtime != "nsjail" or guest is None or not processes.tells_its_end(guest):
            return
        pidfd = processes.open_pidfd(guest)
        if pidfd is not None:
            self._guest_fd = pidfd
            self._world.loop.watch(pidfd, loop.READ, lambda _: self._guest_ended())

    def _guest_ended(self) -> None:
        assert self._guest is not None
        code = processes.code_of(self._guest, self._guest_fd)
        self._forget_guest()
        if code is not None:  # else its keeper was faster, and ends in a moment
            self._said.finish()
            self._answer(self._judged(code << 8, code))
            self._let_go()
            remains.Remains(self._world, self.box_id, self._box, self._keeper_pid, self._keeper_fd)

    def _ended(self) -> None:
        world, box = self._world, self._box
        _, status = os.waitpid(self._keeper_pid, os.WNOHANG)
        code: int | None = None
        if box.runtime == "podman":  # nobody waited for a word: it ran, unless it says why not
            self._heard()
            self._released = not self._refused
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code
        self._said.finish()
        log = ending.log_text(world, Live(box))
        ended = self._judged(status if code is None else None, code, log)
        if self._released or self._timed_out or self._cancelled:
            self._tell(ended)
            return
        why = self._refused or reaping.complaints(log) or "it did not start"
        self._clean()
        self._caller.answer(errors.RuntimeRefused(f"cannot run a command in the box: {why}"))

    def _judged(self, status: int | None, code: int | None, log: str = "") -> words.Exit:
        box = self._box
        counters = self._world.groups.counters(box.namespace, box.cgroup, box.leaf)
        if counters.pids_denied is not None:  # some kernels count them for the whole agent
            denied = max(0, counters.pids_denied - self._denied_before)
            counters = dataclasses.replace(counters, pids_denied=denied)
        return reaping.judge(status, log, None, counters, now_text(), told=code)

    def _tell(self, ended: words.Exit) -> None:
        """The end of it, once."""
        if self._box.id in self._world.commands:
            self._answer(ended)
            self._clean()  # only now: it takes longer than most commands, and nobody need wait for it

    def _answer(self, ended: words.Exit) -> None:
        result = words.ExecResult(
            exit=ended,
            stdout=self._said.kept("out"),
            stderr=self._said.kept("err"),
            timed_out=self._timed_out,
            stdout_truncated=self._said.truncated("out"),
            stderr_truncated=self._said.truncated("err"),
            cancelled=self._cancelled,
            unenforced=self._unenforced,
        )
        self._caller.on_gone = self._caller.on_room = None
        self._caller.answer(wire.exec_result(result))
        crashpoint("exec.after-answer")

    def _clean(self) -> None:
        world, box = self._world, self._box
        self._let_go()
        if self._keeper_fd >= 0:
            world.loop.forget(self._keeper_fd)
            os.close(self._keeper_fd)
            self._keeper_fd = -1
        world.commands.pop(box.id, None)
        remains.sweep(world, box)

    def _let_go(self) -> None:
        """Of all but its keeper."""
        looping = self._world.loop
        self._caller.on_gone = self._caller.on_room = None
        if self._timer:
            self._timer.cancel()
        self._forget_guest()
        if self._channel:
            looping.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None
        if self._feed:
            self._feed.close()
        self._said.close()

    def _forget_guest(self) -> None:
        if self._guest_fd >= 0:
            self._world.loop.forget(self._guest_fd)
            os.close(self._guest_fd)
            self._guest_fd = -1


_GONE = words.Process(0, 0, "")
