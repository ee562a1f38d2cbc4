"""Clients that cut their own lists go on with their windows, and pages that agents ask for by id come into them."""

import asyncio
import itertools
import json
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agentk.memory import contexts, keeping, layout
from tests.broker import managing_rig as rigs

FACT = "My boat is called Halcyon and it is moored in Faro, where the sea is warm."


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def said(n: int, who: str = "") -> str:
    about = "abcdefghij"[n % 10] * 12
    return FACT if n == 2 else f"{who}Item {n} is about {about}, and there is more to tell of {about}{n}."


async def talked(cut: Callable[[list[Any]], list[Any]], turns: int = 45) -> list[Any]:
    """What a model was sent by a client that cuts its list so."""
    with tempfile.TemporaryDirectory() as folder:
        talk: list[Any] = []
        clock = itertools.count(1_000_000)
        async with rigs.rig(
            rigs.counts(lambda body: "So it is, and long may it be."), folder=folder, clock=clock
        ) as (
            up,
            world,
            keeper,
        ):
            for n in range(turns):
                talk.append({"role": "user", "content": said(n)})
                talk.append((await world.call("think", messages=cut(talk), maxTokens=5))["message"])
            talk.append({"role": "user", "content": "Where is my boat moored?"})
            await world.call("think", messages=cut(talk), maxTokens=5)
            assert len(await keeper.read(lambda conn: contexts.newest(conn, [1]))) == 1
            return [seen.body["messages"] for seen in up.seen]


def summed(talk: list[Any]) -> list[Any]:
    return (
        [{"role": "user", "content": f"[So far: {len(talk)} messages]"}, *talk[-7:]]
        if len(talk) > 9
        else talk
    )


def test_a_client_that_sends_its_newest_messages_alone_is_answered_as_if_it_sent_all() -> None:
    async def story() -> None:
        whole = await talked(lambda talk: talk)
        assert "moored in Faro" in json.dumps(whole[-1]) and any(
            str(item["content"]).startswith(layout.QUOTE) for item in whole[-1]
        )
        assert await talked(lambda talk: talk[-7:]) == whole
        assert await talked(lambda talk: [talk[0], *talk[-7:]] if len(talk) > 9 else talk) == whole
        ours = await talked(summed)
        assert ours[-1][0] == {"role": "user", "content": "[So far: 91 messages]"}
        assert "moored in Faro" in json.dumps(ours[-1])

    run(story)


def test_two_clients_of_one_agent_that_cut_their_lists_never_see_each_others_words() -> None:
    async def story() -> None:
        async with rigs.rig(rigs.counts(lambda body: "It is noted; and what else is there to say?")) as (
            up,
            world,
            keeper,
        ):
            talks: list[list[Any]] = [[], []]
            for n in range(24):
                for who, talk in enumerate(talks):
                    # Every third message is the same of both.
                    text = said(n, "" if n % 3 == 0 else f"client{who}: ")
                    talk.append({"role": "user", "content": text})
                    talk.append((await world.call("think", messages=talk[-7:], maxTokens=5))["message"])
            for seen in up.seen:
                text = json.dumps(seen.body)
                assert not ("client0" in text and "client1" in text)
            assert len(await keeper.read(lambda conn: contexts.newest(conn, [1]))) <= 4

    run(story)


@pytest.mark.parametrize("cut", [100, 9], ids=["said", "not said any more"])
def test_a_page_that_is_asked_for_by_id_is_in_the_next_prompt_word_for_word(cut: int) -> None:
    async def story() -> None:
        async with rigs.rig(rigs.counts()) as (up, world, keeper):
            talk: list[Any] = []
            odd = 'Pin é\u2028"\\ 🦊 of the safe: \t4711, \\n and\n no other.'
            for n in range(30):
                talk.append({"role": "user", "content": odd if n == 4 else said(n)})
                talk.append((await world.call("think", messages=talk[-cut:], maxTokens=5))["message"])
            [known] = await keeper.read(lambda conn: contexts.newest(conn, [1]))
            page = next(slot for slot in known.window.slots if slot.seq == 9)
            assert not page.resident and "4711" not in json.dumps(up.seen[-1].body)
            await keeper.write(lambda conn: contexts.want(conn, 1, [page.id, "p" + "0" * 16], 1.0))
            talk.append({"role": "user", "content": "Well?"})
            talk.append((await world.call("think", messages=talk[-cut:], maxTokens=5))["message"])
            quoted = [
                item["content"]
                for item in up.seen[-1].body["messages"]
                if str(item["content"]).startswith(layout.QUOTE)
            ]
            assert any(odd in one for one in quoted)
            [known] = await keeper.read(lambda conn: contexts.newest(conn, [1]))
            back = next(slot for slot in known.window.slots if slot.seq == 9)
            assert (back.resident, back.faults, back.at) == (True, 1, 61)
            kept = (await keeper.read(lambda conn: keeping.get(conn, [1], [page.id])))[0]
            assert json.loads(kept.content)["content"] == odd
            assert await keeper.read(lambda conn: contexts.wanted(conn, 1)) == ()
            counts = await keeper.read(lambda conn: keeping.counts(conn, [1]))
            assert counts["faults"] >= 1

    run(story)
