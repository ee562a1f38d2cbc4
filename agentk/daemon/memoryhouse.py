"""The memory of agents, built once: memory.db, what embeds, and the duties that nobody waits for.

Here the rooms meet that are strangers: the memory is handed plain functions for vectors (a ModelRoute's, or agentk's
own) and for what the journal has to erase. Duties: pages are embedded anew when an embedder changed, forgotten when
they are nobody's or old, and taken off the record for good.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agentk.api import errors, kinds, memoryspecs
from agentk.broker import crash, memories
from agentk.broker.calling import memory, said
from agentk.broker.calling.routing import LeftOf
from agentk.broker.guests import Guests
from agentk.broker.turns import Turn
from agentk.broker.words import Amount, Guest
from agentk.control import memories as told_in
from agentk.daemon import sentencing, unasked
from agentk.llm import asking
from agentk.llm.models import Models
from agentk.memory import database, embedding, forgetting, keeping, pages, vectors
from agentk.memory.driver import Conn
from agentk.store.journal import Journal

Object = Mapping[str, Any]
TakeTurn = Callable[[str, Guest, int], contextlib.AbstractAsyncContextManager[Turn]]

_EVERY_SECONDS = 60.0
_AGAIN_SECONDS = 60.0  # what a call under way may still write down is looked for after so long
_BATCH = 32  # texts of one request
_TEXT = embedding.READ  # characters of a text that are embedded
_ANSWER_BYTES = 64 * 1024 * 1024
_AT_ONCE = 50  # records erased while who forgets waits; more are erased behind their back
# A Memory that is not there although nobody deleted it may come back, with its database of objects: a backup restored.
_LOST_SECONDS = 7 * 86400.0
_RETRY_SECONDS, _RETRY_MOST = 5.0, 300.0

_log = logging.getLogger(__name__)


class Embedders:
    """Fits `memory.Embedders`: vectors by a ModelRoute, as any agent's call of it, by a sentence model, or agentk's
    own."""

    def __init__(
        self, models: Models, sentences: sentencing.Sentences, take_turn: TakeTurn, left: LeftOf
    ) -> None:
        self._models, self.sentences, self._take_turn, self._left = models, sentences, take_turn, left

    def bound(
        self, namespace: str, embedder: memoryspecs.Embedder, texts: Sequence[str], guest: Guest
    ) -> Amount:
        most = self._models.bound(namespace, embedder.route, _ask(embedder, texts))
        if most.cost_micro_usd is None and self._left(guest).cost_micro_usd is not None:
            raise errors.BudgetExceeded(
                f'nobody knows what "{embedder.model}" costs, so no budget of costUsd admits it',
                hint="write input_cost_per_token into the ModelRoute's litellmParams",
            )
        return Amount(most.tokens, 1, most.cost_micro_usd or 0)

    async def embed(
        self, namespace: str, embedder: memoryspecs.Embedder, texts: Sequence[str], guest: Guest | None
    ) -> memory.Embedded:
        """Raises AgentkError, or Unusable for an answer that has no vectors. A route is never asked without a guest,
        whose turn it is."""
        if embedder.sentence:
            return memory.Embedded(await self.sentences.embed([text[:_TEXT] for text in texts]), Amount())
        if not embedder.route:
            made = await asyncio.to_thread(lambda: [embedding.hashed(text, embedder.dims) for text in texts])
            return memory.Embedded(tuple(made), Amount())
        if guest is None:
            raise ValueError("a call of a model counts for somebody")
        ask, route = _ask(embedder, texts), f"{namespace}/{embedder.route}"
        most = self._models.bound(namespace, embedder.route, ask)
        async with self._take_turn(route, guest, most.tokens) as turn:
            reply = await self._models.send(namespace, embedder.route, ask)
            body = bytearray()
            async with reply:
                async for piece in reply.chunks():
                    body += piece
                    if len(body) > _ANSWER_BYTES:
                        raise errors.UpstreamError("the embedding model's answer is longer than it may be")
            turn.charge(reply.usage.input_tokens + reply.usage.output_tokens)
        told = await asyncio.to_thread(_vectors, bytes(body), len(texts), embedder.dims, reply.usage)
        used = reply.usage
        return memory.Embedded(told, Amount(used.input_tokens + used.output_tokens, 1, used.cost_micro_usd))


class Memoryhouse:
    def __init__(
        self,
        db: database.Database,
        guests: Guests,
        journal: Journal,
        embedders: Embedders,
        unasked: unasked.Unasked,
        kept_seconds: float,
    ) -> None:
        """`kept_seconds`: for so long the journal keeps what was asked and answered."""
        self.db, self.journal, self.embedders, self.unasked = db, journal, embedders, unasked
        self.known = memories.Memories(guests, embedders.sentences.name)
        self._kept_seconds = kept_seconds
        self._woken, self._behind = (
            asyncio.Event(),
            asyncio.Event(),
        )  # of what is to be let go of, and embedded
        self._errors: dict[str, str] = {}  # why embedding does not get on, by memory
        self._pauses: dict[str, tuple[float, float]] = {}  # until when, and how long the next is
        self.source = told_in.Source(self.stats)  # of what the steward tells

    def hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        """After `Guests.hear`."""
        if self.known.hear(kind, obj, gone):
            self._pauses.clear()
            self._woken.set()
            self._behind.set()

    async def run(self) -> None:
        """Until cancelled; only after every Memory and Agent was heard of. What has to go waits for no model."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_duty(self._sweep, self._woken), name="memory: letting go")
            group.create_task(_duty(self._embed_some, self._behind), name="memory: embedding")

    def wake(self, memory_id: str) -> None:
        """Somebody else changed what is in it."""
        self._woken.set()
        self._behind.set()
        self.source.changed(memory_id)

    async def close(self) -> None:
        await self.embedders.sentences.close()
        await asyncio.to_thread(self.db.close)

    async def erase(self, effects: Sequence[str]) -> bool:
        """Take what these calls asked and answered off the journal; whether that is done already."""
        if len(effects) > _AT_ONCE:
            self._woken.set()
            return False
        for effect in effects:
            with contextlib.suppress(errors.NotFound):
                await self.journal.erase(effect, "forgotten")
        if effects:
            again = time.time() + _AGAIN_SECONDS
            await self.db.write(lambda conn: forgetting.erased(conn, effects, again))
        return True

    async def stats(self, memory_id: str) -> dict[str, Any]:
        """What is in a memory, for its status."""
        found = self.known.by_id(memory_id)
        name = found[1].embedder.name if found else ""

        told = await self.db.read(lambda conn: told_of(conn, keeping.rooms(conn, memory_id), name))
        if error := self._errors.get(memory_id):
            told["embedding"]["error"] = error
        return told

    # duties

    async def _sweep(self) -> bool:
        now = time.time()
        for room in await self.db.read(keeping.every):
            if (standing := self.known.standing_of(room)) != "Held":
                at = room.id
                since = await self.db.write(lambda conn, at=at: forgetting.lost(conn, at, now))  # type: ignore[misc]
                if standing == "Gone" or now - since > _LOST_SECONDS:
                    await self._whole(room)
                continue
            if room.lost:
                at = room.id
                await self.db.write(lambda conn, at=at: forgetting.found(conn, at))  # type: ignore[misc]
            found = self.known.by_id(room.memory)
            retention = found[1].retention_seconds if found else None
            if retention is not None:
                await self._old(room, now - retention)
        for effects in _batches(await self.db.read(lambda conn: forgetting.pending(conn, now)), _AT_ONCE):
            await self.erase(effects)
        before = now - self._kept_seconds - 86400.0
        await self.db.write(lambda conn: forgetting.unmention(conn, before))
        return False

    async def _whole(self, room: keeping.Room) -> None:
        while (await self.db.write(lambda conn: forgetting.room(conn, room.id))).ids:
            continue
        await self.db.truncate()
        self.source.changed(room.memory)

    async def _old(self, room: keeping.Room, before: float) -> None:
        gone = False
        while (await self.db.write(lambda conn: forgetting.old(conn, room.id, before))).ids:
            gone = True
        if gone:
            await self.db.truncate()
            self.source.changed(room.memory)

    async def _embed_some(self) -> bool:
        """A batch for each memory that is behind; whether there is more to do at once."""
        more = False
        now = asyncio.get_running_loop().time()
        by_memory: dict[str, list[keeping.Room]] = {}
        for room in await self.db.read(keeping.every):
            by_memory.setdefault(room.memory, []).append(room)
        for memory_id, rooms in by_memory.items():
            found = self.known.by_id(memory_id)
            until, pause = self._pauses.get(memory_id, (0.0, _RETRY_SECONDS))
            if found is None or until > now:
                continue
            try:
                more |= await self._embed_of(found[0], found[1].embedder, rooms)
                self._errors.pop(memory_id, None)
                self._pauses.pop(memory_id, None)
            except (errors.AgentkError, pages.Unusable) as error:
                # What had vectors keeps them: they are found by those until the embedder can be had again.
                self._errors[memory_id] = str(error)[:500]
                self._pauses[memory_id] = now + pause, min(pause * 2, _RETRY_MOST)
                _log.warning("%s is not embedded by %s: %s", memory_id, found[1].embedder.name, error)
                asyncio.get_running_loop().call_later(pause, self._behind.set)
                self.source.changed(memory_id)
        return more

    async def _embed_of(
        self, namespace: str, embedder: memoryspecs.Embedder, rooms: Sequence[keeping.Room]
    ) -> bool:
        for room in rooms:
            if await self._embed_room(namespace, embedder, room):
                return True
        return False

    async def _embed_room(self, namespace: str, embedder: memoryspecs.Embedder, room: keeping.Room) -> bool:
        """A batch of a room; False when it has all."""
        at = room.id
        texts = await self.db.read(lambda conn: vectors.behind(conn, at, embedder.name, _BATCH))
        if not texts:
            return False
        made = await self.unasked.embed(namespace, embedder, [text for _, text in texts], room.memory)

        def shelve(conn: Conn) -> None:
            for (number, _), vector in zip(texts, made.vectors, strict=True):
                if keeping.there(conn, at, number):  # it may have been forgotten meanwhile
                    vectors.shelve(conn, at, number, embedder.name, vector)
            keeping.count(conn, at, {"embedded": made.used.tokens})
            vectors.bare(conn, at)

        await self.db.write(shelve)
        crash.crashpoint("memory.embedded")
        self.source.changed(room.memory)
        return True


async def _duty(work: Callable[[], Awaitable[bool]], woken: asyncio.Event) -> None:
    """Again and again: at once while there is more to do, else when it is woken, or now and then."""
    while True:
        woken.clear()
        try:
            if await work():
                continue
        except errors.AgentkError as error:
            _log.warning("memory: %s", error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EVERY_SECONDS):
                await woken.wait()


def told_of(conn: Conn, rooms: Sequence[keeping.Room], embedder: str) -> dict[str, Any]:
    """What is in these rooms, what searches found there, and how pages moved in conversations, for people."""
    among = [room.id for room in rooms]
    counts = keeping.counts(conn, among)
    done, total = vectors.progress(conn, among, embedder)
    searches, hits = counts.get("searches", 0), counts.get("hits", 0)
    told: dict[str, Any] = {
        "pages": sum(room.pages for room in rooms),
        "bytes": sum(room.bytes for room in rooms),
        "agents": sum(room.pages > 0 for room in rooms),
        "searches": searches,
        "hits": hits,
        **{what: counts.get(what, 0) for what in ("faults", "evictions")},
        "embedding": {
            "embedder": embedder,
            "done": done,
            "total": total,
            "tokens": counts.get("embedded", 0),
        },
    }
    return told | ({"hitRate": f"{round(100 * hits / searches)}%"} if searches else {})


def _ask(embedder: memoryspecs.Embedder, texts: Sequence[str]) -> asking.Ask:
    body: dict[str, Any] = {
        "model": embedder.model,
        "input": [text[:_TEXT] or " " for text in texts],
        "encoding_format": "float",
    }
    if embedder.dims:
        body["dimensions"] = embedder.dims
    return asking.Ask("openai.embeddings", body)


def _vectors(body: bytes, texts: int, dims: int, usage: asking.Usage) -> tuple[bytes, ...]:
    """As they are kept. Raises UpstreamError, or Unusable for what is no vector."""
    made = []
    for vector in said.embeddings(said.document(body), texts, usage)["embeddings"]:
        if not isinstance(vector, list):
            raise pages.Unusable("the embedding model answered in base64, and was asked for numbers")
        if dims and len(vector) != dims:
            raise pages.Unusable(f"the embedding model gave {len(vector)} numbers, and {dims} were asked for")
        made.append(vectors.packed(vector))
    return tuple(made)


def _batches(found: Sequence[str], most: int) -> list[Sequence[str]]:
    return [found[at : at + most] for at in range(0, len(found), most)]
