"""exec, exec.poll and exec.cancel: programs of an agent in a jail of their own, beside the agent's.

The runtime makes that jail from the agent's own box: the same files, uid, network and rights, and the same limits or
lower ones. Nothing of a guest ever runs anywhere else. Who hangs up ends what it waited for, with all that started.
"""

import asyncio
import codecs
import posixpath
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from agentk.api import errors
from agentk.broker import exec_orders, policy, previewing, previews, sessions
from agentk.broker.jobs import Jobs
from agentk.broker.methods import ONE_CALL, Context, Done, Method, Params, parser, recording
from agentk.broker.words import Guest
from agentk.runtime import box
from agentk.runtime.ends import Ends

Hears = Callable[[str, bytes], Awaitable[None]]
ON_A_FILE = "exec.file"  # the forms
WRITING, APPENDING = "exec.file.write", "exec.file.append"
_STREAMS = {"out": "stdout", "err": "stderr"}


class Execute(Protocol):
    """As `jails.Jails.exec`."""

    async def __call__(
        self,
        box_id: str,
        argv: Sequence[str],
        timeout_seconds: float,
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        limits: box.Limits | None = None,
        cwd: str = "",
        output_bytes: int | None = None,
        exec_id: str = "",
        on_output: Hears | None = None,
    ) -> box.ExecResult: ...


def methods(*, execute: Execute, jobs: Jobs, stay: sessions.Sessions) -> dict[str, Method]:
    calls = _Calls(execute, jobs, stay)
    return {
        "exec": Method("exec", recording("exec"), parser("exec"), calls.exec, _about, preview=calls.preview),
        "exec.poll": Method("exec.poll", recording("exec.poll"), parser("exec.poll"), calls.poll),
        "exec.cancel": Method("exec.cancel", recording("exec.cancel"), parser("exec.cancel"), calls.cancel),
    }


def forms(*, execute: Execute, jobs: Jobs, stay: sessions.Sessions) -> dict[str, Method]:
    """exec as a dialect uses it to read or write one file, whose path is the last word of `argv`, and before it where
    that is really kept."""
    calls = _Calls(execute, jobs, stay)
    reading = Method("exec", recording("exec"), parser("exec"), calls.exec, about_file)
    return {
        ON_A_FILE: reading,
        WRITING: replace(reading, preview=calls.preview_write),
        APPENDING: replace(reading, preview=calls.preview_append),
    }


def about_file(guest: Guest, params: Params) -> policy.Facts:
    """The file where exec would find it."""
    here = exec_orders.directory(params["workingDir"])
    return policy.Facts(language="argv", file=posixpath.join(here, params["argv"][-1]))


def _about(guest: Guest, params: Params) -> policy.Facts:
    return policy.Facts(language=exec_orders.language(params))


class _Calls:
    def __init__(self, execute: Execute, jobs: Jobs, stay: sessions.Sessions) -> None:
        self._execute, self._jobs, self._sessions = execute, jobs, stay

    async def exec(self, context: Context, params: Params) -> Done:
        order, guest, run = exec_orders.read(params), context.call.guest, context.effect
        if "session" in params:
            exec_orders.check_session(params)
            context.used = ONE_CALL
            telling = _Telling(context, order) if params["stream"] else None
            return _done(context, await self._step(guest, run, params, order, telling))
        if not params["background"]:
            context.used = ONE_CALL
            telling = _Telling(context, order) if params["stream"] else None
            return _done(context, await self._run(guest, run, order, telling))
        if params["stream"]:
            raise errors.BadRequest("a run in the background has nobody to stream to", field="params.stream")

        async def in_background() -> dict[str, Any]:
            kept: dict[str, Any] = await context.background(await self._run(guest, run, order, None))
            return kept

        await self._jobs.begin(context.call, run, in_background)
        return Done({"id": run, "state": "Running"})

    async def poll(self, context: Context, params: Params) -> Done:
        return Done(await self._jobs.poll(context.call.guest, params["id"], params["waitSeconds"]))

    async def cancel(self, context: Context, params: Params) -> Done:
        return Done({"cancelled": await self._jobs.cancel(context.call.guest, params["id"])})

    async def preview(self, guest: Guest, params: Params) -> previews.Preview:
        return await previewing.of_exec(self._execute, guest, params)

    async def preview_write(self, guest: Guest, params: Params) -> previews.Preview:
        return await previewing.of_write(self._execute, guest, params, append=False)

    async def preview_append(self, guest: Guest, params: Params) -> previews.Preview:
        return await previewing.of_write(self._execute, guest, params, append=True)

    async def _run(
        self, guest: Guest, run: str, order: exec_orders.Order, telling: "_Telling | None"
    ) -> dict[str, Any]:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            result = await self._execute(
                guest.box_id,
                order.argv,
                order.timeout_seconds,
                stdin=order.stdin,
                env=order.env,
                limits=order.limits,
                cwd=order.cwd,
                output_bytes=None if telling else order.output_bytes,
                exec_id=run,
                on_output=telling.hear if telling else None,
            )
        except errors.AgentkError as error:
            raise exec_orders.refused(error) from None
        absent = exec_orders.missing(order, result)
        if absent is not None:
            raise absent
        if telling:
            await telling.end()
        return exec_orders.answer(run, order, result, clock() - began, telling.kept if telling else None)

    async def _step(
        self, guest: Guest, run: str, params: Params, order: exec_orders.Order, telling: "_Telling | None"
    ) -> dict[str, Any]:
        clock = asyncio.get_running_loop().time
        began = clock()
        hear = telling.hear if telling else None
        step = sessions.Step(params["code"], order.timeout_seconds, order.output_bytes, hear)
        result, state = await self._sessions.run(guest, params["session"], step)
        if telling:
            await telling.end()
        return {**exec_orders.answer(run, order, result, clock() - began), "session": state}


def _done(context: Context, told: dict[str, Any]) -> Done:
    if told["exitCode"]:
        context.meta["failed"] = 1  # the call was made; what it was for was not done
    return Done(told)


class _Telling:
    """Sends on what a program says, as text of whole characters, and keeps the first and the last of it."""

    def __init__(self, context: Context, order: exec_orders.Order) -> None:
        self._context, self._encoding = context, order.encoding
        self.kept = {name: Ends(order.output_bytes) for name in _STREAMS.values()}
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {name: decoder("replace") for name in _STREAMS.values()}

    async def hear(self, stream: str, data: bytes) -> None:
        name = _STREAMS[stream]
        self.kept[name].add(data)
        if self._encoding == "base64":
            piece, _ = exec_orders.text(data, self._encoding)
        else:
            piece = self._decoders[name].decode(data)
        await self._tell(name, piece)

    async def end(self) -> None:
        """What was the beginning of a character is no more than that."""
        for name, decoder in self._decoders.items():
            await self._tell(name, decoder.decode(b"", final=True))

    async def _tell(self, name: str, piece: str) -> None:
        if piece:
            await self._context.emit({name: piece})
