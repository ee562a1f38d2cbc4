"""Mailboxes: what is sent is there until acknowledged, from whom the gate says, and to whom the Policy lets."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.store import guest_rooms as rooms
from tests.broker import tenants

Story = Callable[[tenants.Tenants], Coroutine[Any, Any, None]]


def run(folder: Path, story: Story, **given: Any) -> None:
    async def whole() -> None:
        there = tenants.Tenants(folder, **given)
        for name in ("ann", "bob", "cid"):
            there.hear(tenants.agent(name, labels={"role": "worker" if name != "ann" else "boss"}))
        try:
            await story(there)
        finally:
            await there.aclose()

    asyncio.run(whole())


def test_a_message_comes_until_it_is_acknowledged(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        sent = await there.call("ann", "message.send", to="bob", body={"n": 1}, replyTo="x")
        (got,) = (await there.call("bob", "message.recv", leaseSeconds=10))["messages"]
        assert got["id"] == sent["id"] and got["body"] == {"n": 1} and got["replyTo"] == "x"
        assert (got["from"], got["deliveries"]) == ("d/ann", 1)
        assert (await there.call("bob", "message.recv"))["messages"] == []
        there.now += 10
        (again,) = (await there.call("bob", "message.recv"))["messages"]
        assert (again["id"], again["deliveries"]) == (sent["id"], 2)
        assert await there.call("bob", "message.ack", ids=[sent["id"]]) == {"acknowledged": 1}
        assert await there.call("bob", "message.ack", ids=[sent["id"]]) == {"acknowledged": 0}
        there.now += 10_000
        assert (await there.call("bob", "message.recv"))["messages"] == []

    run(tmp_path, story)


def test_nobody_reads_or_acknowledges_anothers_mail(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        sent = await there.call("ann", "message.send", to="d/bob", body=1)
        assert (await there.call("cid", "message.recv"))["messages"] == []
        assert await there.call("cid", "message.ack", ids=[sent["id"]]) == {"acknowledged": 0}
        assert len((await there.call("bob", "message.recv"))["messages"]) == 1

    run(tmp_path, story)


def test_who_waits_is_woken_by_what_comes(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        waits = there.begun("bob", "message.recv", waitSeconds=300)
        await there.settled()
        await there.call("ann", "message.send", to="bob", body="now")
        assert [one["body"] for one in (await waits)["messages"]] == ["now"]

    run(tmp_path, story)


def test_a_wait_that_ends_with_nothing_answers_so_and_leaves_no_trace(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        assert await there.call("bob", "message.recv", waitSeconds=0.01) == {"messages": []}
        assert await there.call("bob", "queue.get", queue="q", waitSeconds=0.01) == {"items": []}
        assert (there.records(), there.waiting._lines) == ([], {})

    run(tmp_path, story)


def test_who_hangs_up_while_taking_gives_back_what_nobody_heard_of(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        for method, params, answer in (
            ("message.recv", {}, "messages"),
            ("queue.get", {"queue": "q"}, "items"),
        ):
            await there.call("ann", "message.send", to="bob", body=1)
            await there.call("bob", "queue.put", queue="q", item=1)
            waits = there.begun("bob", method, waitSeconds=300, leaseSeconds=43200, **params)
            for _ in range(3):  # its write is under way
                await asyncio.sleep(0)
            waits.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits
            await there.waiting.close()
            (got,) = (await there.call("bob", method, **params))[answer]
            assert got["deliveries"] == 1

    run(tmp_path, story)


def test_a_message_to_nobody_is_an_error_that_says_so(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        for to in ("nobody", "other/ann", "d/", "/", "d/x/ann", "/ann"):
            with pytest.raises(errors.NotFound, match="no agent"):
                await there.call("ann", "message.send", to=to, body=1)

    run(tmp_path, story)


def test_a_full_mailbox_refuses_and_one_sender_cannot_fill_it(tmp_path: Path) -> None:
    bounds = rooms.Bounds(mail=rooms.Bound(6, 1000), mail_from_one=rooms.Bound(4, 1000))

    async def story(there: tenants.Tenants) -> None:
        for n in range(4):
            await there.call("ann", "message.send", to="bob", body=n)
        with pytest.raises(errors.TooManyRequests, match="room for 4"):
            await there.call("ann", "message.send", to="bob", body="more")
        for n in range(2):
            await there.call("cid", "message.send", to="bob", body=n)
        with pytest.raises(errors.TooManyRequests, match="room for 6"):
            await there.call("cid", "message.send", to="bob", body="more")
        taken = (await there.call("bob", "message.recv"))["messages"]
        await there.call("bob", "message.ack", ids=[one["id"] for one in taken])
        await there.call("ann", "message.send", to="bob", body="again")
        with pytest.raises(errors.TooManyRequests):
            await there.call("ann", "message.send", to="bob", body="x" * 1000)

    run(tmp_path, story, bounds=bounds)


def test_a_family_has_one_share_of_a_strangers_mailbox(tmp_path: Path) -> None:
    """A sender that spawns others must not shut a mailbox to everybody else."""
    bounds = rooms.Bounds(mail=rooms.Bound(6, 1000), mail_from_one=rooms.Bound(3, 1000))

    async def story(there: tenants.Tenants) -> None:
        there.hear(tenants.agent("kid", parent="ann"))
        for sender in ("ann", "kid", "kid"):
            await there.call(sender, "message.send", to="bob", body=1)
        for sender in ("ann", "kid"):
            with pytest.raises(errors.TooManyRequests, match="room for 3"):
                await there.call(sender, "message.send", to="bob", body="more")
        await there.call("cid", "message.send", to="bob", body=1)
        for _ in range(3):  # at home each has its own
            await there.call("kid", "message.send", to="ann", body=1)
        await there.call("ann", "message.send", to="ann", body=1)

    run(tmp_path, story, bounds=bounds)


def test_a_broadcast_reaches_whom_each_message_would(tmp_path: Path) -> None:
    rules = [
        {"name": "broadcast", "effect": "Allow", "methods": ["message.broadcast", "message.recv"]},
        {"name": "mail", "effect": "Allow", "methods": ["message.send"], "targets": ["namespace"]},
        {"name": "not-cid", "effect": "Deny", "methods": ["message.send"], "targets": ["d/cid"]},
    ]

    async def story(there: tenants.Tenants) -> None:
        there.hear(tenants.agent("far", namespace="elsewhere"))
        with pytest.raises(errors.Denied, match="not-cid"):
            await there.call("ann", "message.send", to="cid", body=1)
        told = await there.call("ann", "message.broadcast", body="all")
        assert told["delivered"] == 1
        (got,) = (await there.call("bob", "message.recv"))["messages"]
        assert (got["id"], got["body"]) == (told["id"], "all")
        assert (await there.call("ann", "message.recv"))["messages"] == []
        selected = await there.call(
            "ann", "message.broadcast", body=1, labelSelector="role=boss", includeSelf=True
        )
        assert selected["delivered"] == 1
        with pytest.raises(errors.BadRequest):
            await there.call("ann", "message.broadcast", body=1, labelSelector="((")

    run(tmp_path, story, rules=rules)


def test_a_broadcast_skips_full_mailboxes_and_wakes_who_waits(tmp_path: Path) -> None:
    bounds = rooms.Bounds(mail=rooms.Bound(1, 1000))

    async def story(there: tenants.Tenants) -> None:
        await there.call("ann", "message.send", to="cid", body=0)
        waits = there.begun("bob", "message.recv", waitSeconds=300)
        await there.settled()
        assert (await there.call("ann", "message.broadcast", body=1))["delivered"] == 1
        assert len((await waits)["messages"]) == 1

    run(tmp_path, story, bounds=bounds)


def test_a_broadcast_too_large_for_all_its_copies_is_refused(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        for n in range(80):
            there.hear(tenants.agent(f"many-{n}"))
        with pytest.raises(errors.TooLarge, match="copies"):
            await there.call("ann", "message.broadcast", body="x" * 250_000)
        assert (await there.call("ann", "message.broadcast", body="x"))["delivered"] == 82

    run(tmp_path, story)


def test_one_answer_is_never_more_than_a_line_holds(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        for sender in ("ann", "cid"):
            for _ in range(20):
                await there.call(sender, "message.send", to="bob", body="x" * 262_000)
        first = (await there.call("bob", "message.recv", max=100))["messages"]
        rest = (await there.call("bob", "message.recv", max=100))["messages"]
        assert (
            sum(len(one["body"]) for one in first)
            <= 4 * 1024 * 1024
            < sum(len(one["body"]) for one in first + rest)
        )

    run(tmp_path, story)


def test_a_broadcasts_repeated_key_delivers_once(tmp_path: Path) -> None:
    async def story(there: tenants.Tenants) -> None:
        told = [await there.call("ann", "message.broadcast", body=1, once="k") for _ in range(2)]
        assert told[0] == told[1] and len((await there.call("bob", "message.recv"))["messages"]) == 1

    run(tmp_path, story)
