"""skill.search, skill.get, skill.save, skill.run and skill.delete: what agents know how to do, kept for later.

A Skill's files were written by somebody else, or by a model: here they are data. They are read by no program of the
host, and run nowhere but in a jail beside the caller's, with the caller's rights.
"""

import asyncio
import base64
import functools
import json
from collections.abc import Mapping
from typing import Any

from agentk.api import errors, kinds, skillspecs
from agentk.broker import crash, exec_orders, policy, previews, skilling
from agentk.broker.calling import skills_running, skills_saving
from agentk.broker.calling.execing import Execute
from agentk.broker.methods import ONE_CALL, Context, Done, Handle, Method, Params, parser, recording
from agentk.broker.words import Guest
from agentk.runtime import box
from agentk.store import store as stores
from agentk.tools import searching

_NAMES_MAX = 200  # of files that skill.get tells
_CHOSEN_MAX = 1000
_READ_MAX = 8  # Skills that are held whole, for whoever reads them file by file
_TEXT_BYTES = 256 * 1024  # of one answer

Object = Mapping[str, Any]


class Shelf:
    """Every Skill there is, without its files."""

    def __init__(self) -> None:
        self._all: dict[skilling.Key, skilling.Entry] = {}
        self._chosen: dict[str, tuple[Object, list[skilling.Entry]]] = {}  # by uid, until something changes
        self._read: dict[skilling.Key, dict[str, Any]] = {}  # the latest last; nobody changes them

    def hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        if kind is not kinds.SKILL:
            return
        self._chosen.clear()
        if gone:
            metadata = obj["metadata"]
            self._all.pop((str(metadata.get("namespace")), str(metadata["name"])), None)
        else:
            one = skilling.entry(obj)
            self._all[one.key] = one

    def of(self, guest: Guest) -> list[skilling.Entry]:
        """Those it may use, one of each name."""
        known = self._chosen.get(guest.uid)
        if known is not None and known[0] is guest.spec:
            return known[1]
        if len(self._chosen) >= _CHOSEN_MAX:
            self._chosen.clear()
        found = skilling.chosen(guest.spec, guest.namespace, self._all.values())
        self._chosen[guest.uid] = guest.spec, found
        return found

    async def whole(self, store: stores.Store, key: skilling.Key) -> Object | None:
        """As it is stored now, with its files."""
        known = self._read.pop(key, None)
        there = await store.find(kinds.SKILL, *key, known=known)
        if there is not None:
            self._read[key] = there
            for other in list(self._read)[:-_READ_MAX]:
                del self._read[other]
        return there

    def of_namespace(self, namespace: str) -> list[skilling.Entry]:
        return [one for one in self._all.values() if one.namespace == namespace]


def methods(*, store: stores.Store, shelf: Shelf, execute: Execute) -> dict[str, Method]:
    calls = _Calls(store, shelf, execute)
    saving = skills_saving.Saving(store, shelf.of_namespace, shelf.hear)
    handlers: dict[str, Handle] = {
        "skill.search": calls.search,
        "skill.get": calls.get,
        "skill.save": saving.save,
        "skill.run": calls.run,
        "skill.delete": saving.delete,
    }
    again = {"skill.save", "skill.delete"}  # the same once more changes nothing
    return {
        name: Method(
            name,
            recording(name),
            parser(name),
            handle,
            facts=_about,
            repeatable=lambda guest, params, name=name: name in again,  # type: ignore[misc]
            preview=calls.preview if name == "skill.run" else None,
        )
        for name, handle in handlers.items()
    }


def _about(guest: Guest, params: Params) -> policy.Facts:
    return policy.NOTHING


async def granted(store: stores.Store, shelf: Shelf, guest: Guest, name: str) -> Object:
    """The Skill that a name means to this agent. Raises NotFound, whether it exists or not."""
    wanted = skillspecs.base(name)
    places = {(guest.namespace, name): None}  # what was just saved may not have been heard of
    places |= {
        one.key: None
        for one in shelf.of(guest)
        if one.name == name or (wanted == name and skillspecs.base(one.name) == name)
    }
    ordered = sorted(places, key=lambda key: (skillspecs.base(key[1]) == key[1], key[0] != guest.namespace))
    for namespace, called in ordered:
        there = await shelf.whole(store, (namespace, called))
        if there is not None and skilling.may_use(guest.spec, guest.namespace, skilling.entry(there)):
            return there
    raise errors.NotFound(
        f"no Skill {json.dumps(name[:100])} among those that this agent may use",
        hint="skill.search lists them; spec.skills.use of the agent says which",
        field="params.name",
    )


async def files(store: stores.Store, shelf: Shelf, guest: Guest, name: str) -> Mapping[str, bytes]:
    """Raises NotFound."""
    skill = await granted(store, shelf, guest, name)
    return await asyncio.to_thread(skillspecs.contents, skill)


class _Calls:
    def __init__(self, store: stores.Store, shelf: Shelf, execute: Execute) -> None:
        self._store, self._shelf, self._execute = store, shelf, execute

    async def search(self, context: Context, params: Params) -> Done:
        there = {one.name: one for one in self._shelf.of(context.call.guest)}
        entries = [searching.Entry(one.name, one.namespace, one.description) for one in there.values()]
        few = len(entries) <= searching.FEW or not params["search"]
        work = functools.partial(searching.found, entries, params["search"])
        ranked = work() if few else await asyncio.to_thread(work)
        begin = int(params["continue"] or 0)
        page = ranked[begin : begin + params["limit"]]
        items = [_line(there[one.name]) for one in page]
        answer: dict[str, Any] = {"items": items}
        if begin + len(page) < len(ranked):
            answer["continue"] = str(begin + len(page))
        return Done(answer)

    async def get(self, context: Context, params: Params) -> Done:
        skill = await granted(self._store, self._shelf, context.call.guest, params["name"])
        return Done(await asyncio.to_thread(_told, skill, params.get("file", "")))

    async def preview(self, guest: Guest, params: Params) -> previews.Preview:
        """What somebody approves is this Skill: another version of it is asked for anew."""
        held = await files(self._store, self._shelf, guest, params["name"])
        digest = (await asyncio.to_thread(skillspecs.digest, held)).removeprefix("sha256:")
        file = previews.File(f"skill/{params['name']}", digest, sum(map(len, held.values())))
        return previews.Preview((file,))

    async def run(self, context: Context, params: Params) -> Done:
        guest = context.call.guest
        skill = await granted(self._store, self._shelf, guest, params["name"])
        held = await asyncio.to_thread(skillspecs.contents, skill)
        order = await asyncio.to_thread(skills_running.order, skill, held, params)
        context.used = ONE_CALL
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            ran: box.ExecResult = await self._execute(
                guest.box_id,
                order.argv,
                order.timeout_seconds,
                stdin=order.stdin,
                cwd=order.cwd,
                output_bytes=order.output_bytes,
                exec_id=context.effect,
            )
        except errors.AgentkError as error:
            raise exec_orders.refused(error) from None
        crash.crashpoint("skill.ran")
        told = exec_orders.answer(context.effect, order, ran, clock() - began)
        return Done(skills_running.answer(told, params))


def _line(one: skilling.Entry) -> dict[str, Any]:
    return {
        "name": one.name,
        "namespace": one.namespace,
        "module": f"{skillspecs.PACKAGE}.{skillspecs.module(one.name)}",
        "version": one.version,
        "saved": bool(one.saved_by),
        "description": one.description,
    }


def _told(skill: Object, file: str) -> dict[str, Any]:
    held = skillspecs.contents(skill)
    if file:
        return _file(held, file)
    listed = [{"path": name, "bytes": len(data)} for name, data in sorted(held.items())]
    return {
        **_line(skilling.entry(skill)),
        "digest": skillspecs.digest(held),
        "text": held.get(skillspecs.FILE, b"")[:_TEXT_BYTES].decode("utf-8", "replace"),
        "files": listed[:_NAMES_MAX],
    }


def _file(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    data = files.get(name)
    if data is None:
        raise errors.NotFound(
            f"it has no file {json.dumps(name[:100])}",
            hint=kinds.did_you_mean(name, sorted(files)[:_NAMES_MAX], "files"),
            field="params.file",
        )
    try:
        return {"content": data.decode(), "encoding": "utf-8", "bytes": len(data)}
    except UnicodeDecodeError:
        return {"content": base64.b64encode(data).decode(), "encoding": "base64", "bytes": len(data)}
