"""The memory of agents for people: looked through, added to, moved and forgotten, of an Agent or of a whole Memory.

Whoever may speak to the daemon may read it all. What is added and forgotten is on record with who did it; never the
words, so that the record has nothing to forget.
"""

import base64
import binascii
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from agentk.api import errors, kinds, memoryspecs
from agentk.broker import memories
from agentk.broker.calling import memory
from agentk.daemon import answers, bodies, calls, desk, sockets
from agentk.daemon.memoryhouse import Memoryhouse, told_of
from agentk.memory import embedding, forgetting, keeping, moving, pages, search, tokens, vectors
from agentk.memory.driver import Conn
from agentk.store import journal_words as entries

_PUT = ("content", "name", "kind", "tags", "importance", "pinned", "agent")
_IMPORT = ("lines", "agent")
_FORGET = ("ids", "names", "all", "agent")
_LISTED = 200  # pages of one answer
_MOVED_BYTES = 2 * 1024 * 1024  # of one answer of lines; a page more may fit
_NAMES = 1000


@dataclass(frozen=True)
class _Place:
    """What a path is about: a memory, and the rooms of it that are meant."""

    uid: str
    name: str
    namespace: str
    memory: str
    settings: memoryspecs.Settings
    owner: str  # the room that is added to; "" where none is named
    account: str
    alone: bool  # only that room is read

    def rooms(self, conn: Conn) -> list[keeping.Room]:
        there = keeping.rooms(conn, self.memory)
        return [room for room in there if room.owner == self.owner] if self.alone else there

    @property
    def limits(self) -> keeping.Limits:
        bounds = self.settings.bounds
        return keeping.Limits(bounds.pages, bounds.bytes, bounds.total_pages, bounds.total_bytes)


async def read(call: calls.Call) -> Response:
    """`page` (id or name): one, whole. `lines`: pages to move. `stats`: counts. Else a line of each: the best for
    `query`, or the newest, older than `before`."""
    house = _house(call)
    place = await _place(call, house, call.query.get("agent", ""))
    if wanted := call.query.get("page"):
        return answers.plain(await _one(house, place, wanted))
    if calls.flag(call, "lines"):
        return answers.plain(await _lines(house, place, calls.whole(call, "after") or 0))
    if calls.flag(call, "stats"):
        return answers.plain(await _stats(house, place))
    return answers.plain(await _listed(call, house, place))


async def add(call: calls.Call) -> Response:
    """{content, name, kind, tags, importance, pinned} → the page; {lines}: JSON lines in base64 → how many."""
    house, body = _house(call), await bodies.optional(call.request)
    bodies.only(body, _IMPORT if "lines" in body else _PUT)
    place = await _place(call, house, str(body.get("agent") or ""))
    if not place.owner:
        raise errors.BadRequest("say of which agent", field="agent", hint="--agent NAME")
    if "lines" in body:
        made = await _taken_in(house, place, body["lines"])
        told: dict[str, Any] = {"pages": len(made)}
    else:
        page = _page(body)
        kept = await _keep(house, place, [(page, {"by": _who(call)})])
        told = {"id": kept[0].page.id, "name": kept[0].page.name, "replaced": kept[0].replaced}
    house.wake(place.memory)
    await _record(call, place, "people.memory.put", told)
    return answers.plain(told)


async def forget(call: calls.Call) -> Response:
    """{ids, names} or {all: true} → {forgotten, checkpoints, erased}."""
    house, body = _house(call), await bodies.optional(call.request)
    bodies.only(body, _FORGET)
    ids, names = _texts(body, "ids"), _texts(body, "names")
    place = await _place(call, house, str(body.get("agent") or ""))
    gone = list[str]()
    effects, checkpoints = set[str](), 0
    if body.get("all") is True:
        for room in await house.db.read(place.rooms):
            while (step := await house.db.write(lambda conn, at=room.id: forgetting.step(conn, at))).ids:  # type: ignore[misc]
                gone += step.ids
                effects |= {*step.effects}
                checkpoints = max(checkpoints, step.checkpoints)
    else:
        step = await house.db.write(
            lambda conn: forgetting.forget(conn, [room.id for room in place.rooms(conn)], ids, names)
        )
        gone, effects, checkpoints = list(step.ids), {*step.effects}, step.checkpoints
    done = await memory.erased(house.db, forgetting.Gone(tuple(gone), tuple(sorted(effects))), house.erase)
    house.wake(place.memory)
    await _record(call, place, "people.memory.forget", {"pages": len(gone)})
    return answers.plain({"forgotten": gone, "checkpoints": checkpoints, "erased": done})


# reading


async def _listed(call: calls.Call, house: Memoryhouse, place: _Place) -> dict[str, Any]:
    query = call.query.get("query", "")[: search.QUERY_CHARS].strip()
    limit = min(calls.whole(call, "limit") or 50, _LISTED)
    before = calls.whole(call, "before") or 0
    only = keeping.Filter(
        _kinds(call.query.get("kinds", "")),
        tuple(filter(None, call.query.get("tags", "").split(","))),
        _moment(call, "since"),
        _moment(call, "until"),
    )
    near = await _near(house, place, query)

    def work(conn: Conn) -> dict[str, Any]:
        rooms = place.rooms(conn)
        owners = {room.id: room.owner for room in rooms}
        if query:
            hits, asked = memory.found(conn, rooms, query, limit, near, only), search.terms(query)
            return {"items": [_shown(hit.page, owners[hit.room], asked, hit) for hit in hits]}
        told = keeping.listed(conn, list(owners), only, limit, before)
        items = [_shown(page, owners[at], ()) for _, page, at in told]
        return {"items": items} | ({"before": told[-1][0]} if len(told) == limit else {})

    return await house.db.read(work, scan=bool(query))


async def _near(house: Memoryhouse, place: _Place, query: str) -> dict[str, bytes]:
    embedder = place.settings.embedder
    if not query or embedder.builtin:
        return {}
    try:
        made = await house.unasked.embed(place.namespace, embedder, [query], place.memory)
    except (
        errors.AgentkError,
        pages.Unusable,
    ):  # then by words, and by agentk's own vectors where there are some
        return {}
    return {embedder.name: made.vectors[0]}


async def _one(house: Memoryhouse, place: _Place, wanted: str) -> dict[str, Any]:
    def work(conn: Conn) -> dict[str, Any] | None:
        among = [room.id for room in place.rooms(conn)]
        found = keeping.get(conn, among, [wanted]) or keeping.named(conn, among, [wanted])
        if not found:
            return None
        owner = keeping.owners(conn, [found[0].id])[found[0].id]
        line = moving.line(found[0], keeping.origin(conn, found[0].id))
        return {"agent": memories.name_of(owner), **line}

    told = await house.db.read(work)
    if told is None:
        raise errors.NotFound(
            f"no page {json.dumps(wanted[:100])} of {place.name}", hint=f"agentk memory ls {place.name}"
        )
    return told


async def _lines(house: Memoryhouse, place: _Place, after: int) -> dict[str, Any]:
    def work(conn: Conn) -> dict[str, Any]:
        among = [room.id for room in place.rooms(conn)]
        lines, size, last = list[dict[str, Any]](), 0, 0
        for number, page in keeping.following(conn, among, after, _LISTED):
            lines.append(moving.line(page, keeping.origin(conn, page.id)))
            size, last = size + len(page.content) + len(page.text), number
            if size > _MOVED_BYTES:
                break
        head = moving.head(f"{place.namespace}/{place.name}", time.time())
        return {"head": head, "lines": lines} | ({"after": last} if lines else {})

    return await house.db.read(work)


async def _stats(house: Memoryhouse, place: _Place) -> dict[str, Any]:
    name = place.settings.embedder.name

    def work(conn: Conn) -> dict[str, Any]:
        rooms = place.rooms(conn)
        among = [room.id for room in rooms]
        return {
            **told_of(conn, rooms, name),
            "agents": {room.owner: {"pages": room.pages, "bytes": room.bytes} for room in rooms[:_NAMES]},
            "kinds": {kind: {"pages": n, "tokens": t} for kind, (n, t) in keeping.kinds(conn, among).items()},
            "counts": keeping.counts(conn, among),
            "limits": {"pages": place.limits.pages, "bytes": place.limits.bytes},
        }

    return await house.db.read(work)


def _shown(
    page: pages.Page, owner: str, asked: Sequence[str], hit: search.Hit | None = None
) -> dict[str, Any]:
    told = {**memory.line(page, memories.name_of(owner)), "snippet": search.snippet(page, asked)}
    told |= {"pinned": page.pinned, "used": page.used, "accesses": page.accesses}
    if hit is not None:
        told["by"] = list(hit.by)
        told |= {} if hit.similarity is None else {"similarity": round(hit.similarity, 4)}
    return told


# adding


def _page(body: Mapping[str, Any]) -> pages.Page:
    content, tags = body.get("content"), body.get("tags") or []
    if (
        not isinstance(content, str)
        or not isinstance(tags, list)
        or not all(isinstance(t, str) for t in tags)
    ):
        raise errors.BadRequest("content is text, tags are texts", field="content")
    kind, name, importance = body.get("kind") or "note", body.get("name") or "", body.get("importance", 0.5)
    if not isinstance(kind, str) or not isinstance(name, str) or not isinstance(importance, int | float):
        raise errors.BadRequest("kind and name are texts, importance is a number", field="kind")
    data = content.encode("utf-8", "replace")
    more = {
        "name": name,
        "tags": tuple(tags),
        "importance": float(importance),
        "pinned": body.get("pinned") is True,
    }
    return keeping.fresh(kind, data.decode(), max(1, tokens.estimate(data)), **more)


async def _taken_in(house: Memoryhouse, place: _Place, packed: Any) -> list[keeping.Kept]:
    """Lines as `agentk memory export` writes them, the first of all in front of each batch. All of them, or none."""
    try:
        lines = base64.b64decode(str(packed), validate=True).splitlines()
    except (binascii.Error, ValueError):
        raise errors.BadRequest("lines are base64", field="lines") from None
    to = moving.Place(place.memory, place.owner)
    made = []
    at = 0
    try:
        source = moving.source_of(_json(lines[0] if lines else b""))
        for at, line in enumerate(lines[1:], 2):  # noqa: B007 told when it is wrong
            made.append(moving.parsed(_json(line), source, to))
    except pages.Unusable as error:
        raise errors.BadRequest(f"line {at or 1}: {error}", field="lines") from None
    return await _keep(house, place, made)


def _json(line: bytes) -> Any:
    try:
        return bodies.from_json(line)
    except errors.AgentkError as error:
        raise pages.Unusable(error.message) from None


async def _keep(
    house: Memoryhouse, place: _Place, made: Sequence[tuple[pages.Page, Mapping[str, str]]]
) -> list[keeping.Kept]:
    """With vectors of agentk's own; a model's are made in the background."""
    embedder = place.settings.embedder

    def work(conn: Conn) -> list[keeping.Kept]:
        room = keeping.room(conn, place.memory, place.owner, place.account)
        kept = []
        for page, origin in made:
            vector = None
            if embedder.builtin:
                values = embedding.hashed(vectors.told(page.name, page.text), embedder.dims)
                vector = keeping.Vector(embedder.name, values)
            kept.append(keeping.put(conn, room, page, place.limits, keeping.Told(origin=origin), vector))
        return kept

    try:
        return await house.db.write(work)
    except pages.Unusable as error:
        raise errors.BadRequest(str(error)) from None
    except keeping.Full as error:
        raise errors.TooLarge(
            f"the memory is full: {error}", hint="raise spec.limits, or forget pages"
        ) from None


# who and where


async def _place(call: calls.Call, house: Memoryhouse, agent: str) -> _Place:
    target = call.target
    obj = await call.store.get(target.kind, target.namespace, target.name)
    uid, name = str(obj["metadata"]["uid"]), str(obj["metadata"]["name"])
    if target.kind is kinds.AGENT:
        standing = house.known.standing(obj)
        place = standing.memory, standing.settings, standing.owner, standing.account
        return _Place(uid, name, target.namespace, *place, alone=True)
    found = house.known.by_id(f"memory/{uid}")
    settings = found[1] if found else memoryspecs.read(obj.get("spec") or {})
    if agent and not _is_name(agent):
        raise errors.BadRequest("an agent is named as objects are", field="agent")
    return _Place(
        uid, f"memory/{name}", target.namespace, f"memory/{uid}", settings, agent, agent, bool(agent)
    )


def _is_name(text: str) -> bool:
    return len(text) <= 253 and all(
        letter.isascii() and (letter.isalnum() or letter in "-.") for letter in text
    )


def _texts(body: Mapping[str, Any], field: str) -> list[str]:
    given = body.get(field) or []
    if not isinstance(given, list) or len(given) > _NAMES or not all(isinstance(one, str) for one in given):
        raise errors.BadRequest(f"{field} are at most {_NAMES} texts", field=field)
    return list(given)


def _kinds(given: str) -> tuple[str, ...]:
    asked = tuple(filter(None, given.split(",")))
    for one in asked:
        if one not in pages.KINDS:
            raise errors.BadRequest(f"kind {one[:40]!r} is none of {', '.join(pages.KINDS)}")
    return asked


def _moment(call: calls.Call, name: str) -> float | None:
    found = calls.moment(call, name)
    return None if found is None else found.timestamp()


async def _record(call: calls.Call, place: _Place, method: str, told: Mapping[str, Any]) -> None:
    intent = entries.Intent(
        namespace=place.namespace,
        agent=place.name,
        uid=place.uid,
        attempt=1,
        run=f"{place.uid}-people",
        method=method,
        body=json.dumps({"by": _who(call)}).encode(),
        meta={"dialect": "control"},
    )
    counted = {key: told[key] for key in ("pages", "id") if key in told}
    await desk.of(call).journal.record(intent, entries.Outcome("ok", json.dumps(counted).encode()))


def _house(call: calls.Call) -> Memoryhouse:
    if call.services.memory is None:
        raise errors.Unavailable("this daemon keeps no memory")
    return call.services.memory


def _who(call: calls.Call) -> str:
    peer = call.request.scope.get("state", {}).get("peer")
    return f"uid {peer.uid}" if isinstance(peer, sockets.Peer) else "somebody"
