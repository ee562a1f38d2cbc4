from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentk.control import admission, sharing
from agentk.control import claims as claiming
from agentk.control.claims import Amount, Claim, Hard, State
from agentk.control.sharing import Node


def node(running: int = 100) -> Node:
    return Node(running, running)


def claim(name: str, state: State = "waits", priority: int = 0, age: int = 0, mem: int = 1) -> Claim:
    return Claim(("ns", name), priority, f"2026-01-01T00:00:{age:02}Z", Amount(1, 100, mem), state)


def refused(claims: list[Claim], *rules: Hard, most: int = 100) -> set[str]:
    return {key[1] for key in sharing.reckon(claims, {"ns": rules}, node(most), 0).refused}


def test_without_a_quota_everybody_may() -> None:
    assert refused([claim("a"), claim("b")]) == set()


def test_a_full_quota_keeps_out() -> None:
    assert refused([claim("a", "holds"), claim("b")], Hard("q", agents=1)) == {"b"}


def test_those_that_run_are_never_sent_away() -> None:
    held = [claim("a", "holds"), claim("b", "holds")]
    assert refused(held, Hard("q", agents=1)) == set()


def test_the_highest_priority_goes_first() -> None:
    claims = [claim("low", priority=1), claim("high", priority=9, age=5)]
    assert refused(claims, Hard("q", agents=1)) == {"low"}


def test_then_the_oldest() -> None:
    assert refused([claim("young", age=9), claim("old", age=1)], Hard("q", agents=1)) == {"young"}


def test_one_without_room_holds_back_those_behind_it() -> None:
    claims = [claim("run", "holds", mem=3), claim("big", priority=5, mem=3), claim("small", mem=1)]
    assert refused(claims, Hard("q", memory_bytes=4)) == {"big", "small"}


def test_one_that_can_never_fit_holds_nobody_back() -> None:
    claims = [claim("huge", priority=5, mem=9), claim("small", mem=1)]
    assert refused(claims, Hard("q", memory_bytes=4)) == {"huge"}


def test_every_quota_of_the_namespace_counts() -> None:
    assert refused([claim("a")], Hard("wide", agents=5), Hard("narrow", cpu_millis=50)) == {"a"}


def test_another_namespace_is_not_held_back() -> None:
    other = replace(claim("b"), key=("other", "b"))
    answers = sharing.reckon([claim("a"), other], {"ns": [Hard("q", agents=0)]}, node(), 0)
    assert set(answers.refused) == {("ns", "a")}


def test_the_machine_takes_only_so_many() -> None:
    answers = sharing.reckon([claim("a", "holds"), claim("b")], {}, node(1), 0)
    assert answers.refused["ns", "b"].reason == "NodeFull"


@pytest.mark.parametrize(
    ("hard", "words"),
    [
        ({"agents": 0}, "agents"),
        ({"cpu": "50m"}, "50m CPU"),
        ({"memory": "0"}, "memory"),
        ({"cpu": "x"}, "CPU"),
    ],
)
def test_the_refusal_names_quota_and_bound(hard: dict[str, object], words: str) -> None:
    rule = claiming.hard({"metadata": {"name": "q"}, "spec": {"hard": hard}})
    answer = sharing.reckon([claim("a")], {"ns": [rule]}, node(9), 0).refused["ns", "a"]
    assert '"q"' in answer.message and words in answer.message


def test_the_ledger_lets_in_when_one_goes() -> None:
    ledger = admission.Ledger(node(), lambda: 0.0)
    ledger.set_quota("ns", "q", Hard("q", agents=1))
    ledger.note(claim("a"))
    ledger.note(claim("b", age=5))
    assert ledger.ask(("ns", "a")) is None
    ledger.note(claim("a", "holds"))
    assert ledger.ask(("ns", "b")) is not None
    assert ledger.used("ns") == Amount(1, 100, 1)
    ledger.note(claim("a", "rests"))
    assert ledger.admitted() == [("ns", "b")]


AGENTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(["holds", "waits", "rests"])), max_size=12
)


@given(agents=AGENTS, agents_hard=st.integers(0, 6), memory_hard=st.integers(0, 12), most=st.integers(0, 8))
@settings(max_examples=300)
def test_the_ledger_never_lets_in_more_than_fits(
    agents: list[tuple[int, int, State]], agents_hard: int, memory_hard: int, most: int
) -> None:
    """Asked one after the other, in any order, what is let in stays within every bound."""
    ledger = admission.Ledger(node(most), lambda: 0.0)
    ledger.set_quota("ns", "q", Hard("q", agents=agents_hard, memory_bytes=memory_hard))
    claims = [claim(str(n), state, prio, n % 60, mem) for n, (prio, mem, state) in enumerate(agents)]
    for one in claims:
        ledger.note(one)
    before = ledger.used("ns")
    for one in claims:
        if one.state == "waits" and ledger.ask(one.key) is None:
            ledger.note(replace(one, state="holds"))
            used = ledger.used("ns")
            assert used.agents <= min(agents_hard, most) and used.memory_bytes <= memory_hard
    assert ledger.admitted() == []
    assert ledger.used("ns").agents >= before.agents
