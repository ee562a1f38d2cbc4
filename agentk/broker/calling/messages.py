"""message.*: a mailbox for each agent. Who a message is from is what the gate knows of its sender.

Mail is for another agent's eyes, so a Policy decides for each receiver: a broadcast is judged as one message.send to
each, and skips whom the Policy does not let it write to.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from agentk.api import errors, selectors
from agentk.broker import policy, policy_rules
from agentk.broker.calling import events, places, queues
from agentk.broker.calling.waiting import Waiting, nothing_more
from agentk.broker.guests import Guests
from agentk.broker.methods import Context, Done, Method, Params, no_facts, parser, recording
from agentk.broker.words import Guest
from agentk.store import guest_items as items
from agentk.store import guest_rooms as rooms
from agentk.store import writer
from agentk.store.journal import Journal

_BOUNDS = rooms.Bounds()
_JUDGED_A_TURN = 50  # receivers of a broadcast: some 1 ms of the loop
_BROADCAST_BYTES = 16 * 1024 * 1024  # of all copies of one message: what the writer writes at once

Object = Mapping[str, Any]


def methods(
    *,
    journal: Journal,
    waiting: Waiting,
    guests: Guests,
    rules: Callable[[Guest], policy_rules.Rules],
    bounds: rooms.Bounds = _BOUNDS,
) -> dict[str, Method]:
    calls = _Calls(journal, waiting, guests, rules, bounds)
    handlers = {
        "message.send": (calls.send, calls.facts),
        "message.recv": (calls.recv, no_facts),
        "message.ack": (calls.ack, no_facts),
        "message.broadcast": (calls.broadcast, no_facts),
    }
    return {
        name: Method(name, recording(name), parser(name), handle, facts)
        for name, (handle, facts) in handlers.items()
    }


class _Calls:
    def __init__(
        self,
        journal: Journal,
        waiting: Waiting,
        guests: Guests,
        rules: Callable[[Guest], policy_rules.Rules],
        bounds: rooms.Bounds,
    ) -> None:
        self._journal, self._waiting, self._guests = journal, waiting, guests
        self._rules, self._bounds = rules, bounds

    def facts(self, guest: Guest, params: Params) -> policy.Facts:
        """Also of an agent that is not there: whether it is, only who may write to it is told."""
        namespace, name = _address(guest, params["to"])
        found = self._guests.named(namespace, name)
        if found is None:
            return policy.Facts(
                target=f"{namespace}/{name}", relations=policy.related(guest, namespace, "", ())
            )
        return self._facts_of(guest, found)

    def _facts_of(self, guest: Guest, agent: Object) -> policy.Facts:
        metadata = agent["metadata"]
        namespace = str(metadata.get("namespace") or "")
        above = self._guests.parents(str(metadata["uid"]))
        relations = policy.related(guest, namespace, str(metadata["uid"]), above)
        return policy.Facts(target=f"{namespace}/{metadata['name']}", relations=relations)

    async def send(self, context: Context, params: Params) -> Done:
        guest = context.call.guest
        namespace, name = _address(guest, params["to"])
        found = self._guests.named(namespace, name)
        if found is None:
            raise errors.NotFound(f'no agent "{name}" in namespace "{namespace}"')
        letter = self._letter(guest, params)
        uid = str(found["metadata"]["uid"])

        def work(tx: writer.Tx) -> dict[str, str]:
            broken = self._deliver(tx, guest, letter, found)
            if broken:
                hint = "it has to message.ack what it has read; try again later"
                raise rooms.full(f"the mailbox of {namespace}/{name} is full", broken, hint)
            return {"id": letter.id}

        return Done(await self._waiting.written(context.transact(work), lambda told: self._arrived([uid])))

    async def broadcast(self, context: Context, params: Params) -> Done:
        guest = context.call.guest
        letter = self._letter(guest, params)
        receivers = await self._receivers(
            guest, selectors.labels(params["labelSelector"]), params["includeSelf"]
        )
        if len(receivers) * len(letter.body) > _BROADCAST_BYTES:
            raise errors.TooLarge(
                f"{len(receivers)} copies of this are more than {_BROADCAST_BYTES >> 20} MiB",
                hint="send less, or to fewer with labelSelector",
            )
        delivered: list[str] = []

        def work(tx: writer.Tx) -> dict[str, Any]:
            delivered[:] = [uid for uid, agent in receivers if not self._deliver(tx, guest, letter, agent)]
            return {"id": letter.id, "delivered": len(delivered)}

        return Done(
            await self._waiting.written(context.transact(work), lambda told: self._arrived(delivered))
        )

    async def recv(self, context: Context, params: Params) -> Done:
        line = (places.mailbox(context.call.guest.uid), "")
        look = partial(self._look, line, params)
        return Done(await self._waiting.served(line, params["waitSeconds"], look) or {"messages": []})

    async def ack(self, context: Context, params: Params) -> Done:
        scope = places.mailbox(context.call.guest.uid)
        return Done(
            await context.transact(
                lambda tx: {"acknowledged": items.acknowledge(tx.conn, scope, "", params["ids"])}
            )
        )

    async def _look(
        self, line: tuple[str, str], params: Params
    ) -> tuple[dict[str, Any] | None, float | None]:
        at, now = self._journal.read(lambda conn: items.next_at(conn, *line)), self._waiting.now()
        if at is None or at > now:
            return None, at
        take = items.Take(
            *line, params["max"], queues.ANSWER_BYTES, queues.ANSWER_VALUES, now, now + params["leaseSeconds"]
        )
        taken = await self._waiting.written(
            self._journal.write(lambda tx: items.take(tx.conn, take)),
            nothing_more,
            partial(self._give_back, take),
        )
        return ({"messages": [_told(item) for item in taken]}, None) if taken else (None, now)

    async def _give_back(self, take: items.Take, taken: list[items.Item]) -> None:
        await self._journal.write(lambda tx: items.give_back(tx.conn, take, [item.id for item in taken]))
        self._waiting.ring((take.scope, take.name))

    async def _receivers(
        self, guest: Guest, match: selectors.Match, include_self: bool
    ) -> list[tuple[str, Object]]:
        rules = self._rules(guest)
        found: list[tuple[str, Object]] = []
        for number, agent in enumerate(self._guests.of_namespace(guest.namespace)):
            if number % _JUDGED_A_TURN == _JUDGED_A_TURN - 1:
                await asyncio.sleep(0)
            uid = str(agent["metadata"]["uid"])
            if uid == guest.uid and not include_self:
                continue
            if not match(agent):
                continue
            if policy.decide(rules, "message.send", self._facts_of(guest, agent)).effect == "Allow":
                found.append((uid, agent))
        return found

    def _letter(self, guest: Guest, params: Params) -> items.Put:
        """Without its receiver."""
        body = {"from": f"{guest.namespace}/{guest.name}", "body": params["body"]}
        told = {**body, **places.optional(replyTo=params.get("replyTo"))}
        return items.Put("", "", places.new_id(), guest.uid, places.kept(told), self._waiting.now())

    def _deliver(self, tx: writer.Tx, guest: Guest, letter: items.Put, to: Object) -> rooms.Bound | None:
        """What it would have broken, when it was not delivered."""
        bounds = self._bounds
        uid = str(to["metadata"]["uid"])
        put = replace(letter, scope=places.mailbox(uid), sender=self._counted(guest, uid))
        broken = items.put(tx.conn, put, bounds.mail, bounds.mail_from_one)
        if not broken:
            data = {"id": letter.id, "from": f"{guest.namespace}/{guest.name}"}
            event = events.of_agent(self._guests, to, "message.received", data, letter.now)
            events.write(tx, event, bounds)
        return broken

    def _counted(self, guest: Guest, uid: str) -> str:
        """Whose share of the mailbox a letter takes: its sender's, but to strangers all of a family have one share, or
        whoever spawns a few more would have all of it."""
        own = (guest.uid, *guest.parents)
        return guest.uid if own[-1] in (uid, *self._guests.parents(uid)) else own[-1]

    def _arrived(self, delivered: list[str]) -> None:
        for uid in delivered:
            self._waiting.ring((places.mailbox(uid), ""))
            self._waiting.toll((uid, *self._guests.parents(uid)))


def _address(guest: Guest, to: str) -> tuple[str, str]:
    """Namespace and name."""
    namespace, slash, name = to.rpartition("/")
    return (namespace, name) if slash else (guest.namespace, to)


def _told(item: items.Item) -> dict[str, Any]:
    letter = places.shown(item.body)
    return {"id": item.id, **letter, "sentAt": places.moment(item.put_at), "deliveries": item.deliveries}
