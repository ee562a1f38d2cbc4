"""memory.remember, memory.recall, memory.search and memory.forget: what an agent keeps for later.

Every call works on rooms that `Memories` says are the caller's, or shared with it; ids and names of other rooms are as
if they were not there. What is kept and told goes on record, and is taken off the record when it is forgotten.
"""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from agentk.api import errors, memoryspecs
from agentk.broker import crash, memories
from agentk.broker.calling import memory_asked
from agentk.broker.memories import Standing
from agentk.broker.methods import ONE_CALL, Context, Done, Handle, Method, Params, parser, recording
from agentk.broker.words import Amount, Guest
from agentk.memory import contexts, database, embedding, forgetting, keeping, pages, search, vectors
from agentk.memory.driver import Conn
from agentk.memory.pages import Page

AT_LEAST = 0.15  # cosine: what is less near, and has none of the words, has nothing to do with the question
_EMBED_SECONDS = 30.0  # then it is kept without, and embedded later
_RECALL_BYTES = 4 * 1024 * 1024  # of one answer, as a line holds it
_TRUNCATIONS = 3
_PLACES = 10_000  # accounts that are remembered
_AT_ONCE = 1  # searches of one account; the others wait, and keep nobody else from the readers

T = TypeVar("T")


@dataclass(frozen=True)
class Embedded:
    vectors: tuple[bytes, ...]
    used: Amount


class Embedders(Protocol):
    """What makes vectors for a namespace, by a ModelRoute of it; agentk's own costs nothing and cannot fail."""

    def bound(
        self, namespace: str, embedder: memoryspecs.Embedder, texts: Sequence[str], guest: Guest
    ) -> Amount:
        """Raises NotFound without the route, and BudgetExceeded for what a budget cannot admit."""

    async def embed(
        self, namespace: str, embedder: memoryspecs.Embedder, texts: Sequence[str], guest: Guest | None
    ) -> Embedded: ...


Erase = Callable[[Sequence[str]], Awaitable[bool]]  # bodies of effects in the journal; whether all are gone


def methods(
    *,
    db: database.Database,
    known: memories.Memories,
    embedders: Embedders,
    erase: Erase,
    changed: Callable[[str], None],
) -> dict[str, Method]:
    """`changed` hears of every memory that is another now."""
    calls = _Calls(db, known, embedders, erase, changed)
    handlers: dict[str, tuple[Handle, str]] = {
        "memory.remember": (calls.remember, "content"),
        "memory.recall": (calls.recall, "query"),
        "memory.search": (calls.search, "query"),
        "memory.forget": (calls.forget, ""),
    }
    return {
        name: Method(
            name,
            recording(name),
            parser(name),
            handle,
            bound=calls.bound(field),
            repeatable=lambda guest, params: True,  # once more is the same: an id made of its key, or nothing
        )
        for name, (handle, field) in handlers.items()
    }


class _Calls:
    def __init__(
        self,
        db: database.Database,
        known: memories.Memories,
        embedders: Embedders,
        erase: Erase,
        changed: Callable[[str], None],
    ) -> None:
        self._db, self._known, self._embedders, self._erase, self._changed = (
            db,
            known,
            embedders,
            erase,
            changed,
        )
        self._places: dict[str, asyncio.Semaphore] = {}  # by account

    def bound(self, field: str) -> Callable[[Guest, Params], Awaitable[Amount]]:
        """What a call whose `field` is embedded may use."""

        async def bound(guest: Guest, params: Params) -> Amount:
            standing = self._known.of(guest.uid)
            if not field or not params.get(field) or not standing.settings.embedder.route:
                return ONE_CALL
            text = vectors.told(params.get("name", ""), params[field])
            try:
                return self._embedders.bound(standing.namespace, standing.settings.embedder, [text], guest)
            except errors.NotFound:  # then it is kept, and found, without
                return ONE_CALL

        return bound

    async def remember(self, context: Context, params: Params) -> Done:
        call = context.call
        standing = self._known.of(call.guest.uid)
        text = params["content"]
        page = memory_asked.page_of(call.guest, call.key, params)
        vector = await self._vector(context, standing, vectors.told(page.name, text))
        origin = {"by": "agent", "run": call.guest.run_id}

        def work(conn: Conn) -> keeping.Kept:
            room = keeping.room(conn, standing.memory, standing.owner, standing.account)
            if params["agent"]:
                room = memory_asked.other(standing, keeping.rooms(conn, standing.memory), params["agent"])
            told = keeping.Told(context.effect, origin)
            return keeping.put(conn, room, page, standing.limits, told, vector)

        try:
            kept = await self._db.write(work, standing.whose)
        except pages.Unusable as error:
            raise errors.BadRequest(f"memory.remember: {error}") from None
        except keeping.Full as error:
            raise errors.TooLarge(
                f"the memory is full: {error}", hint="forget pages first: memory.forget"
            ) from None
        crash.crashpoint("memory.kept")
        self._changed(standing.memory)
        told = {"id": kept.page.id, "name": kept.page.name, "tokens": kept.page.tokens}
        return Done({**told, "replaced": kept.replaced, "embedded": vector is not None}, context.used)

    async def search(self, context: Context, params: Params) -> Done:
        standing, only = self._known.of(context.call.guest.uid), memory_asked.filter_of(params)
        query = params["query"].strip()
        near = await self._near(context, standing, query)
        name = standing.settings.embedder.name

        def work(conn: Conn) -> tuple[list[search.Hit], list[str], dict[int, str], tuple[int, int]]:
            rooms = standing.readable(keeping.rooms(conn, standing.memory))
            owners = {room.id: memories.name_of(room.owner) for room in rooms}
            among = memory_asked.chosen(standing, rooms, params)
            fitting = found(conn, among, query, params["limit"], near, only)
            progress = vectors.progress(conn, list(owners), name) if owners else (0, 0)
            asked = search.terms(query)
            return fitting, [search.snippet(hit.page, asked) for hit in fitting], owners, progress

        hits, snippets, owners, (done, total) = await self._read(standing, work, bool(query))
        await self._note(context, standing, [hit.page for hit in hits], asked=bool(query), touch=False)
        items = [
            {
                **line(hit.page, owners[hit.room]),
                "snippet": snippet,
                "by": list(hit.by),
            }
            | ({} if hit.similarity is None else {"similarity": round(hit.similarity, 4)})
            for hit, snippet in zip(hits, snippets, strict=True)
        ]
        return Done({"items": items, "pages": total, "embedder": name, "embedded": done}, context.used)

    async def recall(self, context: Context, params: Params) -> Done:
        standing, only = self._known.of(context.call.guest.uid), memory_asked.filter_of(params)
        query = params["query"].strip()
        near = await self._near(context, standing, query)

        def work(conn: Conn) -> tuple[list[Page], list[Page], dict[str, str]]:
            rooms = memory_asked.chosen(
                standing, standing.readable(keeping.rooms(conn, standing.memory)), params
            )
            among = [room.id for room in rooms]
            if not among:
                return [], [], {}
            told = keeping.get(conn, among, params["ids"], briefly=True)
            told += keeping.named(conn, among, params["names"], briefly=True)
            if query:
                told += [hit.page for hit in found(conn, rooms, query, params["limit"], near, only)]
            there = list({page.id: page for page in told}.values())
            fitting = _fitting(conn, among, there, params.get("maxTokens"))
            return there, fitting, keeping.owners(conn, [page.id for page in fitting])

        there, fitting, owners = await self._read(standing, work, bool(query))
        named = [page.id for page in fitting if page.id in params["ids"]]
        await self._note(context, standing, fitting, asked=bool(query), touch=True, wanted=named)
        had = {page.id for page in there} | {page.name for page in there}
        answer = {
            "items": [_whole(page, memories.name_of(owners[page.id])) for page in fitting],
            "missing": [
                one for one in (*params["ids"], *params["names"]) if memory_asked.same(one) not in had
            ],
            "left": len(there) - len(fitting),
        }
        return Done(answer, context.used)

    async def forget(self, context: Context, params: Params) -> Done:
        standing = self._known.of(context.call.guest.uid)

        def work(conn: Conn) -> forgetting.Gone:
            rooms = [room.id for room in standing.writable(keeping.rooms(conn, standing.memory))]
            names = [memory_asked.same(name) for name in params["names"]]
            return forgetting.forget(conn, rooms, params["ids"], names) if rooms else forgetting.NOTHING

        gone = await self._db.write(work)
        crash.crashpoint("memory.forgotten")
        self._changed(standing.memory)
        done = await erased(self._db, gone, self._erase)
        return Done({"forgotten": list(gone.ids), "checkpoints": gone.checkpoints, "erased": done})

    async def _read(self, standing: Standing, work: Callable[[Conn], T], scan: bool) -> T:
        """Few at a time for an agent and all that it spawned: the readers are everybody's."""
        if len(self._places) > _PLACES:
            self._places = {key: place for key, place in self._places.items() if place.locked()}
        place = self._places.setdefault(f"{standing.memory} {standing.account}", asyncio.Semaphore(_AT_ONCE))
        async with place:
            return await self._db.read(work, scan=scan)

    async def _vector(self, context: Context, standing: Standing, text: str) -> keeping.Vector | None:
        """None when the embedder cannot be had now: it is done later."""
        embedder = standing.settings.embedder
        if embedder.builtin:
            values = await asyncio.to_thread(embedding.hashed, text, embedder.dims)
            return keeping.Vector(embedder.name, values)
        made = await self._asked(context, standing, text)
        return None if made is None else keeping.Vector(embedder.name, made)

    async def _near(self, context: Context, standing: Standing, query: str) -> dict[str, bytes]:
        """The question as a vector of the route's model; agentk's own are made where they are needed."""
        if not query or standing.settings.embedder.builtin:
            return {}
        made = await self._asked(context, standing, query)
        return {} if made is None else {standing.settings.embedder.name: made}

    async def _asked(self, context: Context, standing: Standing, text: str) -> bytes | None:
        embedder, guest = standing.settings.embedder, context.call.guest
        context.used = context.bound
        try:
            async with asyncio.timeout(_EMBED_SECONDS):
                made = await self._embedders.embed(standing.namespace, embedder, [text], guest)
        except TimeoutError:
            context.meta["embedding"] = "it took too long"
            return None
        except (errors.AgentkError, pages.Unusable) as error:
            context.used, context.meta["embedding"] = ONE_CALL, str(error)[:500]
            return None
        context.used = Amount(made.used.tokens, 1, made.used.cost_micro_usd)
        return made.vectors[0]

    async def _note(
        self,
        context: Context,
        standing: Standing,
        told: list[Page],
        *,
        asked: bool,
        touch: bool,
        wanted: Sequence[str] = (),
    ) -> None:
        """What was asked and told: so that it can be taken off the record, and for the counts. `wanted` of them were
        asked for by id: those that left a managed conversation come back into it."""
        ids, now = [page.id for page in told], time.time()
        if not (ids or asked):
            return

        def work(conn: Conn) -> None:
            if asked:
                own = keeping.room(conn, standing.memory, standing.owner, standing.account).id
                keeping.count(conn, own, {"searches": 1, "hits": int(bool(ids))})
            if touch:
                keeping.touched(conn, ids, now)
            if wanted and (own_room := keeping.find(conn, standing.memory, standing.owner)):
                contexts.want(conn, own_room.id, wanted, now)
            forgetting.mention(conn, ids, context.effect, now)

        await self._db.write(work, standing.whose)
        self._changed(standing.memory)


async def erased(db: database.Database, gone: forgetting.Gone, erase: Erase) -> bool:
    """Whether nothing of what was forgotten is left in memory.db, its log, and the journal."""
    cut = False
    for _ in range(_TRUNCATIONS):
        cut = cut or await db.truncate()
    crash.crashpoint("memory.truncated")
    return await erase(gone.effects) and cut


def found(
    conn: Conn,
    rooms: Sequence[keeping.Room],
    query: str,
    limit: int,
    near: Mapping[str, bytes],
    only: keeping.Filter,
) -> list[search.Hit]:
    """The best for a question, or the newest. `near`: the question by embedders that are asked; agentk's own are asked
    here, wherever vectors of theirs are."""
    among = [room.id for room in rooms]
    if not among:
        return []
    if not query:
        newest = keeping.listed(conn, among, only, limit)
        return [search.Hit(page, room, 0.0, None, ()) for _, page, room in newest]
    own = {shelf.embedder: shelf.dims for shelf in vectors.shelves(conn, among)}
    hashed = {
        name: embedding.hashed(query, dims)
        for name, dims in own.items()
        if name.startswith(f"{memoryspecs.BUILTIN}/") and dims
    }
    asked = search.Asked(query, limit, {**hashed, **near}, only, AT_LEAST, briefly=True)
    return search.search(conn, among, asked)


def _fitting(conn: Conn, among: Sequence[int], there: Sequence[Page], most: int | None) -> list[Page]:
    """Those that fit, whole; one at a time, for they may be large."""
    fitting, taken, size = list[Page](), 0, 0
    for brief in there:
        if (most is not None and taken + brief.tokens > most) or size > _RECALL_BYTES:
            continue
        for page in keeping.get(conn, among, [brief.id]):
            bytes_told = len(json.dumps(page.content.decode("utf-8", "replace"), ensure_ascii=False).encode())
            if size + bytes_told <= _RECALL_BYTES:
                fitting.append(page)
                taken, size = taken + page.tokens, size + bytes_told
    return fitting


def line(page: Page, agent: str) -> dict[str, Any]:
    """All of a page but its words."""
    told = {"id": page.id, "name": page.name, "kind": page.kind, "agent": agent, "tags": list(page.tags)}
    return told | {"tokens": page.tokens, "importance": page.importance, "created": page.created}


def _whole(page: Page, agent: str) -> dict[str, Any]:
    try:
        return {**line(page, agent), "content": page.content.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        packed = base64.b64encode(page.content).decode()
        return {**line(page, agent), "content": packed, "encoding": "base64"}
