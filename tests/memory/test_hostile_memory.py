"""What a guest may send to its memory to hurt others: each costs what it is long, and harms nobody."""

import asyncio
import threading

from agentk.broker.managing import working
from agentk.memory import search

_LONG = "a" + "!" * (search.QUERY_CHARS - 2) + "a"


def test_a_question_is_read_once_whatever_it_is_made_of() -> None:
    for _ in range(2_000):  # as often as others ask meanwhile: read again from every sign, that were an hour
        [word] = search.terms(_LONG)
    assert word.startswith('"a!!') and search.terms("!" * search.QUERY_CHARS) == []
    assert search.terms('(hello), "world"! a-b --x--') == ['"hello"', '"world"', '"a-b"', '"x"']


def test_who_says_much_is_worked_for_apart_one_piece_at_a_time() -> None:
    """A piece that cannot end holds up its own agent alone."""
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}] * 400}] * 4
    assert working.much({"messages": parts}) and working.much({"input": ["x" * 70_000]})
    assert working.much({"messages": [{"role": "user", "content": "hi"}] * 400})
    assert not working.much({"messages": [{"role": "user", "content": "hi" * 1000}] * 20})

    async def story() -> None:
        work, end = working.Working(), threading.Event()
        held = [asyncio.ensure_future(work.apart("long", True, end.wait)) for _ in range(20)]
        assert await work.apart("other", True, lambda: 7) == 7
        assert await work.apart("long", False, lambda: 8) == 8 and not any(one.done() for one in held)
        end.set()
        await asyncio.gather(*held)
        work.close()

    asyncio.run(story())
