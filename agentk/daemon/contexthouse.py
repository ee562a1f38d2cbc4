"""Managed context, built once: the gate's windows over the agents' memory, with a model for notes and ears for people.

Here the rooms meet: pages are kept where the agent's other pages are, notes are asked of the agent's own model through
the gate, and so is a search by meaning, where its Memory has an embedder that knows of meaning.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from agentk.api import errors
from agentk.broker.calling.routing import route_name
from agentk.broker.managing import managed, saving
from agentk.broker.managing import settings as reading
from agentk.broker.words import Call, Guest
from agentk.memory import contexts, keeping, telling, tokens
from agentk.memory.driver import Conn

if TYPE_CHECKING:
    from agentk.daemon.gatehouse import Gatehouse

T = TypeVar("T")
Object = Mapping[str, Any]

FOLD = "fold"  # the form of a call that asks for a note: never managed itself
_NEIGHBOURS = 50
_VECTORS = 64  # of one turn that are made at once
_QUERY_CHARS = 8192
_WINDOWS = 20  # that people are told of
_CACHING = frozenset({"anthropic"})  # providers that cache what is marked


class Keeper:
    """Fits `saving.Keeper`."""

    def __init__(self, house: "Gatehouse") -> None:
        self._house = house
        self._behind = set[str]()  # memories that get pages without vectors

    def place(self, guest: Guest) -> saving.Place:
        standing = self._house.memory.known.of(guest.uid)
        return saving.Place(standing.memory, standing.owner, standing.account, standing.limits)

    async def read(self, work: Callable[[Conn], T]) -> T:
        return await self._house.memory.db.read(work)

    async def write(self, work: Callable[[Conn], T], whose: str = "") -> T:
        return await self._house.memory.db.write(work, whose)

    def kept(self, guest: Guest, place: saving.Place) -> None:
        if self._means(guest) or place.memory in self._behind:
            self._behind.discard(place.memory)
            self._house.memory.wake(place.memory)  # to embed them
        else:
            self._house.memory.source.changed(place.memory)

    async def vectors(self, guest: Guest, texts: Sequence[str]) -> Sequence[keeping.Vector | None]:
        """A model's are made in the background, and so are very many: nobody waits for them before it is answered."""
        standing = self._house.memory.known.of(guest.uid)
        embedder = standing.settings.embedder
        if len(texts) > _VECTORS:
            self._behind.add(standing.memory)
        if self._means(guest) or not texts or len(texts) > _VECTORS:
            return [None] * len(texts)
        made = await self._house.memory.embedders.embed(standing.namespace, embedder, texts, None)
        return [keeping.Vector(embedder.name, vector) for vector in made.vectors]

    async def near(self, guest: Guest, text: str, least: float, heard: saving.Heard) -> Mapping[str, float]:
        """agentk's own embedder knows words alone, and those are compared better with all of a conversation at hand."""
        if not self._means(guest) or not text.strip():
            return {}
        asked = {"query": text[:_QUERY_CHARS], "limit": _NEIGHBOURS, "agents": [guest.name]}
        key = f"near-{secrets.token_hex(16)}"
        try:
            found = await self._house.gate.call(Call(guest, "memory.search", asked, key=key), _unheard)
        except (
            errors.AgentkError
        ):  # its Policy, its budget, or its embedder: what has its words is found all the same
            return {}
        finally:
            if (known := self._house.journal.known(guest.uid, guest.attempt, key)) is not None:
                heard(known.effect)
        near = {str(one["id"]): float(one.get("similarity", 0.0)) for one in found["items"]}
        return {page: value for page, value in near.items() if value >= least}

    def _means(self, guest: Guest) -> bool:
        """Whether its embedder is another than agentk's own."""
        return not self._house.memory.known.of(guest.uid).settings.embedder.builtin


class Counters:
    """Fits `counting.Counters`: the tokenizers of the models that a route may reach."""

    def __init__(self, house: "Gatehouse") -> None:
        self._house = house

    async def of(self, guest: Guest, model: str) -> tokens.Counter:
        models = self._models(guest, model)
        if models is None:
            return tokens.ESTIMATE
        if not models:
            return tokens.SCRIPTED
        name, tokenizers = await self._house.tokenizers.name(models), self._house.tokenizers
        if not name:
            return tokens.ESTIMATE

        def count(text: bytes) -> int:
            known = tokenizers.known(name, text.decode("utf-8", "replace"))
            return len(text) if known is None else known  # never more than it has bytes

        return tokens.Counter(f"tokenizer {name}", count, "words")

    async def ready(self, guest: Guest, model: str, texts: Sequence[bytes]) -> bool:
        models = self._models(guest, model)
        plain = [text.decode("utf-8", "replace") for text in texts]
        return bool(models) and await self._house.tokenizers.count(models or (), plain)

    def _models(self, guest: Guest, model: str) -> tuple[str, ...] | None:
        try:
            return self._house.models.counted_as(guest.namespace, route_name(guest), model)
        except errors.AgentkError:
            return None


def built(house: "Gatehouse", now: Callable[[], float]) -> managed.Managed:
    async def summarise(guest: Guest, system: str, text: str, most: int, key: str) -> str:
        asked = {"system": system, "prompt": text, "maxTokens": most}
        told = await house.gate.call(Call(guest, "think", asked, form=FOLD, key=key), _unheard)
        return str(told["text"])

    def marks(guest: Guest, model: str) -> bool:
        try:
            chain = house.models.route(guest.namespace, route_name(guest)).chain(model)
        except errors.AgentkError:
            return False
        providers = {deployment.provider for group in chain for deployment in group}
        return bool(providers) and providers <= _CACHING

    return managed.Managed(
        Keeper(house),
        lambda guest: memory_of(house, guest.namespace, guest.spec),
        summarise,
        marks,
        now,
        Counters(house),
    )


def memory_of(house: "Gatehouse", namespace: str, spec: Object) -> Object:
    """Spec of the Memory that an agent uses, or of its own. Raises NotFound."""
    told: Object = spec.get("memory") or {}
    ref = str((told.get("ref") or {}).get("name") or "")
    return house.memory.known.named(namespace, ref).get("spec") or {} if ref else told


class Windows:
    """What people may know of an agent's windows."""

    def __init__(self, house: "Gatehouse", now: Callable[[], float]) -> None:
        self._house, self._now = house, now

    async def listed(self, agent: Object) -> Object:
        standing = self._house.memory.known.standing(agent)

        def read(conn: Conn) -> list[dict[str, Any]]:
            room = keeping.find(conn, standing.memory, standing.owner)
            found = contexts.newest(conn, [room.id], _WINDOWS) if room else []
            return [telling.whole(known, at == 0) for at, known in enumerate(found)]

        return {"kind": "WindowList", "items": await self._house.memory.db.read(read)}

    async def explained(self, agent: Object, page: str) -> Object:
        """Of a page by its id, or by its place in the newest window. Raises NotFound."""
        standing = self._house.memory.known.standing(agent)
        namespace = str(agent["metadata"]["namespace"])
        spec = agent.get("spec") or {}
        wanted = reading.of(spec.get("memory") or {}, memory_of(self._house, namespace, spec))
        now = self._now()

        def read(conn: Conn) -> dict[str, Any] | None:
            room = keeping.find(conn, standing.memory, standing.owner)
            if room is None or wanted is None:
                return None
            newest = contexts.newest(conn, [room.id], 1) if page.isdecimal() else []
            one = telling.numbered(newest[0], int(page)) if newest else page
            for known in newest or contexts.having(conn, [room.id], one):
                texts = contexts.texts(conn, room.id, [slot.id for slot in known.window.slots])
                told = telling.explained(known, one, texts, wanted.settings, now)
                if told is not None:
                    found = keeping.get(conn, [room.id], [one])
                    return {**told, "kind": "WindowPage", "text": found[0].text[:2_000] if found else ""}
            return None

        told = await self._house.memory.db.read(read)
        if told is None:
            name = agent["metadata"]["name"]
            raise errors.NotFound(
                f'no window of agent "{name}" has a page {page[:64]}', hint=f"agentk memory map {name}"
            )
        return told


async def _unheard(item: Any) -> None:
    """Nobody listens to its stream."""
