"""The launcher's few fixed verbs. Each answers, now or later; none waits. Every one but LASTING is repeatable."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from typing import Any

from agentk.api import errors
from agentk.data import places
from agentk.runtime import box as words
from agentk.runtime.launcher import (
    calling,
    carrying,
    checking,
    child,
    claiming,
    connecting,
    ending,
    entering,
    environment_verbs,
    exec_wanted,
    execing,
    image_verbs,
    loop,
    output,
    processes,
    starting,
    wire,
    workspace_verbs,
)
from agentk.runtime.launcher.crash import crashpoint
from agentk.runtime.launcher.world import Live, World, boottime

_LISTEN_SECONDS = 0.003  # PID 1 needs about that long before it hears signals
_LISTEN_TRIES = 400
_END_SECONDS = 30.0  # removing a container takes most of a second, on a slow machine many
_PROBE_BYTES = 1 << 20
Answer = Callable[[wire.Message | errors.AgentkError], None]
Verb = Callable[[World, wire.Message, Answer], None]
Lasting = Callable[[World, wire.Message, Sequence[int], calling.Caller], None]


def find(name: str) -> Verb:
    """Raises BadRequest for a verb this launcher does not know (a newer daemon's)."""
    if name not in _VERBS:
        raise errors.BadRequest(f"this launcher knows no verb {name!r}", hint="it is older: restart it")
    return _VERBS[name]


def hello(world: World) -> wire.Message:
    """Who we are."""
    return {
        "version": wire.VERSION,
        "pid": os.getpid(),
        "boot_id": world.boot_id,
        "verbs": sorted([*_VERBS, *LASTING, "give_fds", "hello", "take_fds"]),
        "cgroup": world.groups.version,
        "missing": {name: str(why) for name, why in world.groups.missing.items()},
        "nsjail": str(world.settings.binary or ""),
        "rootless": world.settings.rootless,
        "max_boxes": world.settings.max_boxes,
    }


def _start(world: World, message: wire.Message, answer: Answer) -> None:
    told = message.get("box")
    if not isinstance(told, dict):
        raise errors.BadRequest("start needs a box")

    def done(result: words.Seen | errors.AgentkError) -> None:
        answer({"seen": wire.plain(result)} if isinstance(result, words.Seen) else result)

    starting.start(world, wire.box_from(told), done)


def _claim(world: World, message: wire.Message, answer: Answer) -> None:
    told = message.get("box")
    if not isinstance(told, dict):
        raise errors.BadRequest("claim needs a box")
    waiting_id = checking.check_id(message.get("waiting_id"))

    def done(result: words.Seen | errors.AgentkError) -> None:
        answer({"seen": wire.plain(result)} if isinstance(result, words.Seen) else result)

    claiming.claim(world, waiting_id, wire.box_from(told), done)


def _signal(world: World, message: wire.Message, answer: Answer) -> None:
    live = _find(world, message)
    number = message.get("signal")
    if not isinstance(number, int) or number not in signal.valid_signals():
        raise errors.BadRequest(f"{number!r} is no signal")
    ending.intend(world, live, wire.intent_from(message.get("intent")))
    _deliver(world, live, number, answer, _LISTEN_TRIES)


def _deliver(world: World, live: Live, number: int, answer: Answer, tries: int) -> None:
    """A box that has only just begun does not hear yet: wait for it, or the signal would be lost."""
    guest = live.guest
    if live.phase == "Running" and guest is not None and number != signal.SIGKILL and not live.listens:
        live.listens = live.box.runtime == "process" or processes.listens(guest.pid, number)
        if not live.listens and tries:
            world.loop.after(_LISTEN_SECONDS, lambda: _deliver(world, live, number, answer, tries - 1))
            return
    processes.send(guest, number)
    crashpoint("signal.after-signal")
    answer({})


def _kill(world: World, message: wire.Message, answer: Answer) -> None:
    live = _find(world, message)
    ending.intend(world, live, wire.intent_from(message.get("intent")))
    attempt = world.starting.get(live.box.id)
    if attempt is not None:
        attempt.fail(errors.Conflict("the box was killed while it started"))
    elif live.phase == "Running":
        ending.stop_all(world, live)
        crashpoint("signal.after-signal")
    answer({})


def _list(world: World, message: wire.Message, answer: Answer) -> None:
    answer({"boxes": [wire.plain(world.seen(live)) for live in world.lives.values()]})


def _counters(world: World, message: wire.Message, answer: Answer) -> None:
    answer({"counters": wire.plain(world.counters(_find(world, message)))})


def _remove(world: World, message: wire.Message, answer: Answer) -> None:
    box_id = checking.check_id(message.get("box_id"))
    attempt = world.starting.get(box_id)
    if attempt is not None:
        attempt.fail(errors.Conflict("the box was removed while it started"))
    ending.remove(world, box_id)
    answer({})


def _release(world: World, message: wire.Message, answer: Answer) -> None:
    namespace, uid = checking.check_agent(message.get("namespace"), message.get("uid"))
    for attempt in list(world.starting.values()):
        if attempt.uid == uid:
            attempt.fail(errors.Conflict("the agent was removed while its box started"))
    ending.release(world, namespace, uid)
    answer({})


def _exec(world: World, message: wire.Message, fds: Sequence[int], caller: calling.Caller) -> None:
    execing.run(world, _find(world, message), exec_wanted.read(message), caller)


def _enter(world: World, message: wire.Message, fds: Sequence[int], caller: calling.Caller) -> None:
    entering.enter(world, _find(world, message), message, fds, caller)


def _connect(world: World, message: wire.Message, fds: Sequence[int], caller: calling.Caller) -> None:
    connecting.connect(world, _find(world, message), message, caller)


def _pack(world: World, message: wire.Message, fds: Sequence[int], caller: calling.Caller) -> None:
    carrying.pack(world, _find(world, message), message, fds, caller)


def _unpack(world: World, message: wire.Message, fds: Sequence[int], caller: calling.Caller) -> None:
    carrying.unpack(world, _find(world, message), message, fds, caller)


def _exec_cancel(world: World, message: wire.Message, answer: Answer) -> None:
    box_id = checking.check_id(message.get("box_id"))
    execing.cancel(world, box_id, exec_wanted.check_exec_id(message.get("exec_id")))
    answer({})


def _exec_more(world: World, message: wire.Message, answer: Answer) -> None:
    box_id = checking.check_id(message.get("box_id"))
    exec_id = exec_wanted.check_exec_id(message.get("exec_id"))
    execing.allow(world, box_id, exec_id, exec_wanted.check_window(message.get("bytes")))
    answer({})


def _freeze(world: World, message: wire.Message, answer: Answer) -> None:
    live = _running(world, message)
    if not world.groups.freeze(live.box.namespace, live.box.cgroup, live.leaf):
        world.groups.thaw(live.box.namespace, live.box.cgroup, live.leaf)
        raise errors.Unavailable("the box cannot be frozen", hint="agentk doctor  # says whether cgroups can")
    live.frozen = True
    for command in world.commands_of(live.box.id):
        command.freeze(True)
    answer({})


def _thaw(world: World, message: wire.Message, answer: Answer) -> None:
    live = _running(world, message)
    live.frozen = False
    if workspace_verbs.holds(world, live.box.uid):
        answer({})  # it goes on when its workspace has been taken
        return
    world.groups.thaw(live.box.namespace, live.box.cgroup, live.leaf)
    for command in world.commands_of(live.box.id):
        command.freeze(False)
    answer({})


def _namespace_limits(world: World, message: wire.Message, answer: Answer) -> None:
    namespace, _ = checking.check_agent(message.get("namespace"), "x")
    numbers = [message.get(name) for name in ("cpu_millis", "memory_bytes")]
    if any(number is not None and (not isinstance(number, int) or number <= 0) for number in numbers):
        raise errors.BadRequest("limits are numbers above 0")
    answer({"unenforced": world.groups.set_namespace_limits(namespace, *numbers)})


def _probe(world: World, message: wire.Message, answer: Answer) -> None:
    """In a child: it tries real namespaces and programs, and may take its time. One of a kind at a time, for all who
    ask. Podman's service is started when it is asked about; else it is only told of."""
    kind = "podman" if message.get("runtime") == "podman" else "nsjail"
    asking = world.asking_probe.setdefault(kind, [])
    asking.append(answer)
    if len(asking) > 1:
        return

    def told(result: dict[str, Any] | errors.AgentkError) -> None:
        _fork_probe(world, kind, result if isinstance(result, dict) else {"error": result.message})

    if kind == "podman" and shutil.which("podman"):
        world.podman.ready(told, version=True)
    else:
        _fork_probe(world, kind, {"pid": world.podman.service_pid} if world.podman.service_pid else {})


def _fork_probe(world: World, kind: str, serving: dict[str, Any]) -> None:
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            child.close_all_but({write, world.workspaces.holder_fd, world.workspaces.users_fd})
            from agentk.runtime import probing  # here only: it costs the launcher a tenth of its start

            probed = probing.probe(
                places.Places(world.settings.state, world.settings.run),
                world.groups,
                world.workspaces,
                kind=kind,
                serving=serving,
            )
            output.write_all(write, json.dumps(wire.plain(probed)).encode())
        finally:
            os._exit(0)
    os.close(write)
    told = bytearray()

    def more(_: int) -> None:
        data = os.read(read, _PROBE_BYTES)
        told.extend(data)
        if data:
            return
        world.loop.forget(read)
        os.close(read)
        ending.bury(world, pid)
        result: wire.Message | errors.AgentkError
        try:
            result = {"probe": json.loads(told)}
        except ValueError:
            result = errors.Unavailable("probing this host failed; the launcher's log says why")
        for one in world.asking_probe.pop(kind, []):
            one(result)

    world.loop.watch(read, loop.READ, more)


def _shutdown(world: World, message: wire.Message, answer: Answer) -> None:
    """End this launcher; `kill_boxes`: its boxes first, and every group; `if_idle`: only when it keeps none."""
    running = [live for live in world.lives.values() if live.phase in ("Starting", "Running")]
    busy = any(not live.box.waits for live in running)  # one that waits ends with us, and keeps nobody
    if message.get("if_idle") and busy:
        answer({"stays": True})
        return
    answer({})
    if message.get("kill_boxes"):
        for box_id in list(world.lives):
            _remove(world, {"box_id": box_id}, lambda _: None)
        _stop_when_clear(world, boottime() + _END_SECONDS)
    else:
        for live in running:
            _remove(world, {"box_id": live.box.id}, lambda _: None)
            _release(world, {"namespace": live.box.namespace, "uid": live.box.uid}, lambda _: None)
        gone = {(live.box.namespace, live.box.cgroup) for live in running}
        _stop_without(world, gone, boottime() + _END_SECONDS)


def _stop_without(world: World, gone: set[tuple[str, str]], deadline: float) -> None:
    """When these groups are no more. Others stay: their agents' counters go on."""
    clear = not world.podman.is_busy and gone.isdisjoint(entry[:2] for entry in world.groups.leftovers())
    if boottime() > deadline or clear:
        world.loop.after(0, world.loop.stop)
    else:
        world.loop.after(_LISTEN_SECONDS, lambda: _stop_without(world, gone, deadline))


def _stop_when_clear(world: World, deadline: float) -> None:
    """Killed processes need a moment to leave their groups, and only an empty group can be removed."""
    for namespace, uid, _ in world.groups.leftovers():
        world.groups.remove_group(namespace, uid)
    removed = not world.podman.is_busy
    if removed:
        world.podman.close()
    if boottime() > deadline or (removed and not world.groups.leftovers() and world.groups.close_root()):
        world.loop.stop()
    else:
        world.loop.after(_LISTEN_SECONDS, lambda: _stop_when_clear(world, deadline))


def _find(world: World, message: wire.Message) -> Live:
    box_id = checking.check_id(message.get("box_id"))
    if box_id not in world.lives:
        raise errors.NotFound(f"there is no box {box_id}")
    return world.lives[box_id]


def _running(world: World, message: wire.Message) -> Live:
    live = _find(world, message)
    if live.phase != "Running":
        raise errors.Conflict(f"the box is {live.phase}, not Running")
    return live


# Those that are not repeatable, and that end with the connection they were asked on.
LASTING: dict[str, Lasting] = {
    "exec": _exec,
    "enter": _enter,
    "connect": _connect,
    "pack": _pack,
    "unpack": _unpack,
    "take_workspace": workspace_verbs.take,
    "put_workspace": workspace_verbs.put,
}
_VERBS: dict[str, Verb] = {
    "start": _start,
    "claim": _claim,
    "signal": _signal,
    "kill": _kill,
    "list": _list,
    "counters": _counters,
    "remove": _remove,
    "release": _release,
    "exec_cancel": _exec_cancel,
    "exec_more": _exec_more,
    "freeze": _freeze,
    "thaw": _thaw,
    "namespace_limits": _namespace_limits,
    "probe": _probe,
    "shutdown": _shutdown,
    "environments": environment_verbs.listing,
    "keep_environment": environment_verbs.keep,
    "remove_environment": environment_verbs.remove,
    "interpreter": environment_verbs.interpreter,
    "image": image_verbs.image,
}
