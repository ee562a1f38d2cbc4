"""What a guest may send to its memory to hurt others: each costs what it is long, and harms nobody."""

from agentk.memory import search

_LONG = "a" + "!" * (search.QUERY_CHARS - 2) + "a"


def test_a_question_is_read_once_whatever_it_is_made_of() -> None:
    for _ in range(2_000):  # as often as others ask meanwhile: read again from every sign, that were an hour
        [word] = search.terms(_LONG)
    assert word.startswith('"a!!') and search.terms("!" * search.QUERY_CHARS) == []
    assert search.terms('(hello), "world"! a-b --x--') == ['"hello"', '"world"', '"a-b"', '"x"']
