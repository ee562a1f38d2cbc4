"""skill.save and skill.delete: what an agent learned, as an object, with the versions before it.

Only what agents saved is ever replaced or deleted by one: a Skill that a person applied stays as it is. The same save
twice is one version, so a call whose end nobody saw may be made again.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentk.api import admit, errors, kinds, ownership, skillspecs
from agentk.broker import crash, skilling
from agentk.broker.calling import relatives
from agentk.broker.methods import ONE_CALL, Context, Done, Params
from agentk.broker.words import Guest
from agentk.store import store as stores

SAVED_MAX = 100  # names that agents saved, in one namespace …
SAVED_BYTES = 2 * 1024 * 1024  # … and their files, so that what there is to import always fits a box
KEPT_BYTES = 8 * 1024 * 1024  # of all versions before them

Object = Mapping[str, Any]


class Saving:
    def __init__(
        self,
        store: stores.Store,
        there: Callable[[str], Sequence[skilling.Entry]],
        heard: Callable[[kinds.Kind, Object, bool], None],
    ) -> None:
        """`there`: the Skills of a namespace; `heard`: of what was made, before the feed tells it."""
        self._store, self._there, self._heard = store, there, heard
        self._locks: dict[str, asyncio.Lock] = {}  # by namespace

    async def save(self, context: Context, params: Params) -> Done:
        guest, name = context.call.guest, params["name"]
        self._may(guest, name)
        wanted, digest = await asyncio.to_thread(_admitted, guest, params)
        context.used = ONE_CALL
        async with self._locks.setdefault(guest.namespace, asyncio.Lock()):
            before = await self._store.find(kinds.SKILL, guest.namespace, name)
            if before is not None:
                _only_agents(before)
            told = {"name": name, "digest": digest}
            if before is not None and _same(before, wanted):
                return Done({**told, "version": before["spec"]["version"]})
            self._room(guest, wanted)
            crash.crashpoint("skill.saving")
            if before is not None:
                await self._keep(before)
                crash.crashpoint("skill.kept")
            made = await self._put(wanted, before)
            await self._prune(made)
        return Done({**told, "version": made["spec"]["version"]})

    async def delete(self, context: Context, params: Params) -> Done:
        guest, name = context.call.guest, params["name"]
        self._may(guest, name)
        async with self._locks.setdefault(guest.namespace, asyncio.Lock()):
            before = await self._store.find(kinds.SKILL, guest.namespace, name)
            if before is None:
                return Done({"deleted": False})
            _only_agents(before)
            for one in await self._versions(guest.namespace):
                if skillspecs.base(_name(one)) == name:
                    await self._remove(one)
            await self._remove(before)
        return Done({"deleted": True})

    def _may(self, guest: Guest, name: str) -> None:
        if not skillspecs.is_name(name):
            told = "expected lower-case letters and digits, with single '-' between them"
            raise errors.BadRequest(told, field="params.name")
        if not skilling.may_save(guest.spec, name):
            raise errors.Forbidden(
                f'spec.skills.save of this agent does not name "{name}"',
                hint=f"agentk get agent {guest.name} -n {guest.namespace} -o yaml",
            )

    def _room(self, guest: Guest, wanted: Object) -> None:
        mine = skilling.entry(wanted)
        others = [
            one
            for one in self._there(guest.namespace)
            if one.saved_by and one.name != mine.name and skillspecs.base(one.name) == one.name
        ]
        if len(others) >= SAVED_MAX or sum(one.size_bytes for one in others) + mine.size_bytes > SAVED_BYTES:
            raise errors.TooManyRequests(
                f"agents of this namespace have saved {len(others)} Skills: "
                f"at most {SAVED_MAX}, and {SAVED_BYTES // 2**20} MiB of files",
                hint="skill.delete those that are not needed",
            )

    async def _put(self, wanted: dict[str, Any], before: Object | None) -> Object:
        namespace, name = wanted["metadata"]["namespace"], wanted["metadata"]["name"]
        spec = dict(wanted["spec"])
        if before is not None:
            spec["version"] = int(before["spec"].get("version", 1)) + 1
            for field in ("historyLimit", "namespaces"):  # what a person said of it
                if field in before["spec"]:
                    spec[field] = before["spec"][field]
        now = stores.now_text()

        def change(there: Object | None) -> dict[str, Any]:
            made: dict[str, Any] = {**wanted, "spec": spec}
            if there is not None:
                _only_agents(there)
                metadata = {**there["metadata"], "annotations": wanted["metadata"]["annotations"]}
                made = {**there, "metadata": metadata, "spec": spec}
            old = dict(there) if there is not None else None
            return ownership.own_update(old, made, relatives.MANAGER, now)

        if before is None:
            try:
                made = await self._store.create(change(None), in_live_namespace=True)
            except errors.AlreadyExists:
                raise errors.Conflict(f'the name "{name}" was taken meanwhile', hint="try again") from None
        else:
            version = before["metadata"]["resourceVersion"]
            made = await self._store.modify(
                kinds.SKILL, namespace, name, change, expect_resource_version=version
            )
        self._heard(kinds.SKILL, made, False)
        return made

    async def _keep(self, before: Object) -> None:
        """What it was, under its number. Repeatable."""
        metadata, version = before["metadata"], int(before["spec"].get("version", 1))
        old = {
            "apiVersion": before["apiVersion"],
            "kind": before["kind"],
            "metadata": {
                "name": f"{metadata['name']}.v{version}",
                "namespace": metadata["namespace"],
                "labels": {skillspecs.VERSION_OF: metadata["name"][:63].rstrip("-")},
                "annotations": metadata.get("annotations") or {},
            },
            "spec": before["spec"],
        }
        with contextlib.suppress(errors.AlreadyExists):
            await self._store.create(ownership.own_update(None, old, relatives.MANAGER, stores.now_text()))

    async def _versions(self, namespace: str) -> list[Object]:
        """Older ones that agents saved, of all names, the oldest of each first; without their files."""
        found = await self._store.list(kinds.SKILL, namespace, labels=skillspecs.VERSION_OF, heads=True)
        own = [one for one in found.items if skillspecs.base(_name(one)) != _name(one) and _saved_by(one)]
        return sorted(own, key=lambda one: int(one["spec"].get("version", 1)))

    async def _prune(self, made: Object) -> None:
        """As many versions of it as it wants, as long as those of all names have room."""
        versions = await self._versions(made["metadata"]["namespace"])
        own = [one for one in versions if skillspecs.base(_name(one)) == _name(made)]
        size, left = sum(map(skillspecs.size, versions)), len(own)
        for one in own:
            if left <= int(made["spec"].get("historyLimit", 3)) and size <= KEPT_BYTES:
                break
            await self._remove(one)
            size, left = size - skillspecs.size(one), left - 1

    async def _remove(self, skill: Object) -> None:
        metadata = skill["metadata"]
        with contextlib.suppress(errors.NotFound, errors.Conflict):
            await self._store.delete(
                kinds.SKILL, metadata["namespace"], metadata["name"], uid=metadata["uid"]
            )
        self._heard(kinds.SKILL, skill, True)


def _admitted(guest: Guest, params: Params) -> tuple[dict[str, Any], str]:
    """The object, and the digest of its files. Raises BadRequest in the words of the call."""
    files: dict[str, str] = dict(params["files"])
    if "code" in params:
        if "__init__.py" in files:
            raise errors.BadRequest("is __init__.py, which files has too", field="params.code")
        files["__init__.py"] = params["code"]
    for field, text in (*params.items(), *files.items(), *((name, name) for name in files)):
        try:
            str(text if isinstance(text, str) else "").encode()
        except UnicodeEncodeError:
            raise errors.BadRequest("holds half a letter", field=f"params.{field[:50]!a}") from None
    if skillspecs.FILE in files:
        raise errors.BadRequest(
            "SKILL.md is made of name, description and instructions", field=f"params.files.{skillspecs.FILE}"
        )
    head = "\n".join(
        f"{key}: {json.dumps(params[key], ensure_ascii=False)}" for key in ("name", "description")
    )
    files[skillspecs.FILE] = f"---\n{head}\n---\n\n{params['instructions']}"
    obj = {
        "apiVersion": kinds.SKILL.api_version,
        "kind": kinds.SKILL.kind,
        "metadata": {
            "name": params["name"],
            "namespace": guest.namespace,
            "annotations": {skillspecs.SAVED_BY: guest.uid},
        },
        "spec": {"description": params["description"], "source": {"inline": {"files": files}}},
    }
    try:
        made = admit.admit(obj)
        return made, skillspecs.digest(skillspecs.contents(made))
    except errors.Invalid as error:
        causes = [
            errors.Cause(cause.field.replace("spec.source.inline", "params"), cause.message)
            for cause in error.causes
        ]
        raise errors.BadRequest(error.message, causes=causes, hint=error.hint) from None


def _only_agents(skill: Object) -> None:
    """Also of one that a person took over: its files are theirs then."""
    others = [
        entry
        for entry in skill["metadata"].get("managedFields") or ()
        if entry.get("manager") != relatives.MANAGER
        and "f:source" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    ]
    if others or not _saved_by(skill):
        name = skill["metadata"]["name"]
        raise errors.Forbidden(f'Skill "{name}" is a person\'s: no agent replaces it', hint="another name")


def _name(skill: Object) -> str:
    return str(skill["metadata"]["name"])


def _saved_by(skill: Object) -> str:
    return str((skill["metadata"].get("annotations") or {}).get(skillspecs.SAVED_BY, ""))


def _same(before: Object, wanted: Object) -> bool:
    return all(before["spec"][field] == wanted["spec"][field] for field in ("description", "source"))
