"""How many boxes a Pool makes and ends: for whatever is there, and over time until it rests."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from agentk.control import pooling
from agentk.control.pooling import History, Waiting, Wish

SHAPE = "right"
WISHES = st.builds(
    lambda numbers, rate, age: Wish(*sorted(numbers), rate, age),
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 9)),
    st.floats(0.1, 50),
    st.floats(1, 100),
)
BOXES = st.lists(
    st.builds(
        Waiting,
        st.uuids().map(str),
        st.sampled_from([SHAPE, SHAPE, "other"]),
        st.sampled_from(["creating", "ready", "ready", "gone"]),
        st.floats(0, 150),
    ),
    max_size=12,
    unique_by=lambda one: one.uid,
)
HISTORIES = st.builds(
    History,
    st.floats(0, 1000),
    st.floats(0, 1000) | st.just(-math.inf),
    st.integers(0, 3),
    st.floats(900, 1001) | st.just(-math.inf),
    st.integers(0, 3),
    st.floats(900, 1100) | st.just(-math.inf),
)
NOW = 1000.0


def boxes(count: int, age: float = 1.0, shape: str = SHAPE, state: pooling.State = "ready") -> list[Waiting]:
    return [Waiting(f"{shape}-{age}-{state}-{n}", shape, state, age) for n in range(count)]


def wish(
    size: int, least: int | None = None, most: int | None = None, rate: float = 10, age: float = 60
) -> Wish:
    return Wish(size if least is None else least, size, size if most is None else most, rate, age)


@given(WISHES, BOXES, HISTORIES, st.integers(0, 12))
def test_whatever_is_there_the_plan_keeps_its_bounds(
    wished: Wish, there: list[Waiting], history: History, room: int
) -> None:
    plan, after = pooling.decide(wished, SHAPE, there, history, room, NOW)
    ended = set(plan.end)
    assert len(ended) == len(plan.end) and ended <= {one.uid for one in there}
    kept = [one for one in there if one.uid not in ended]
    assert all(one.shape == SHAPE and one.state != "gone" for one in kept)
    fresh = [one for one in kept if one.age_seconds < wished.max_age_seconds]
    assert plan.create >= 0 and len(fresh) + plan.create <= max(plan.wanted, 0)
    assert plan.wanted <= min(room, wished.most)
    assert not plan.create or len(kept) + plan.create <= room
    assert len(kept) <= max(room, plan.wanted) or not plan.create
    assert not (plan.create and history.retry_at > NOW)
    assert plan.again is None or plan.again >= 0
    assert plan.create == 0 or after.paid_until <= NOW + 1e-6


@given(WISHES, BOXES, HISTORIES, st.integers(0, 12))
def test_no_good_box_is_ended_while_too_few_wait(
    wished: Wish, there: list[Waiting], history: History, room: int
) -> None:
    plan, _ = pooling.decide(wished, SHAPE, there, history, room, NOW)
    ended = [one for one in there if one.uid in plan.end]
    good = [
        one
        for one in there
        if one.shape == SHAPE and one.state != "gone" and one.age_seconds < wished.max_age_seconds
    ]
    if len(good) <= plan.wanted:
        assert not [one for one in ended if one in good]


@settings(deadline=None)
@given(WISHES, BOXES, st.integers(0, 12))
def test_left_alone_it_comes_to_rest_with_what_is_wanted(
    wished: Wish, there: list[Waiting], room: int
) -> None:
    now, history, looks = NOW, History(asked_at=NOW), 0
    while True:
        plan, history = pooling.decide(wished, SHAPE, there, history, room, now)
        there = [one for one in there if one.uid not in plan.end]
        there = [Waiting(one.uid, one.shape, "ready", one.age_seconds) for one in there]
        there += [Waiting(f"new-{looks}-{n}", SHAPE, "creating", 0.0) for n in range(plan.create)]
        fresh = [one for one in there if one.age_seconds < wished.max_age_seconds and one.state == "ready"]
        if len(fresh) == len(there) == plan.wanted:
            break
        now, looks = now + (0.0 if plan.create else min(plan.again or 0.0, 10.0)), looks + 1
        assert looks < 100
    assert len(there) == min(wished.size, room)


@given(st.floats(0.1, 100), st.integers(1, 300))
def test_no_more_are_made_in_a_time_than_the_rate_allows(rate: float, steps: int) -> None:
    history, made, now = History(asked_at=NOW), 0, NOW
    for _ in range(steps):
        plan, history = pooling.decide(wish(1000, rate=rate), SHAPE, [], history, 1000, now)
        made += plan.create
        now += 0.05
    burst = max(1, math.ceil(rate * 0.1))
    assert made <= (now - NOW) * rate + burst + 1e-6


def test_a_change_of_the_template_ends_what_waits_at_once() -> None:
    plan, _ = pooling.decide(wish(3), "new", boxes(3), History(NOW), 100, NOW)
    assert (len(plan.end), plan.create) == (3, 1)


def test_while_no_box_can_be_made_what_waits_stays() -> None:
    plan, _ = pooling.decide(wish(3), "", boxes(2), History(NOW), 100, NOW)
    assert (plan.end, plan.create) == ((), 0)


def test_old_boxes_wait_until_new_ones_are_ready() -> None:
    old = boxes(2, age=61)
    plan, _ = pooling.decide(wish(2), SHAPE, old, History(NOW), 100, NOW)
    assert (plan.end, plan.create) == ((), 1)
    plan, _ = pooling.decide(wish(2), SHAPE, [*old, *boxes(1, state="creating")], History(NOW), 100, NOW)
    assert plan.end == ()
    plan, _ = pooling.decide(wish(2), SHAPE, [*old, *boxes(1)], History(NOW), 100, NOW)
    assert len(plan.end) == 1
    plan, _ = pooling.decide(wish(2), SHAPE, [*old, *boxes(2)], History(NOW), 100, NOW)
    assert set(plan.end) == {one.uid for one in old}


def test_where_there_is_no_room_for_both_an_old_box_goes_first() -> None:
    plan, _ = pooling.decide(wish(2), SHAPE, boxes(2, age=61), History(NOW), 2, NOW)
    assert (len(plan.end), plan.create) == (1, 1)


def test_agents_take_the_room_of_boxes_that_wait() -> None:
    plan, _ = pooling.decide(wish(4), SHAPE, boxes(4), History(NOW), 1, NOW)
    assert (len(plan.end), plan.wanted) == (3, 1)


def test_it_grows_for_those_who_found_none_and_goes_back() -> None:
    wished, history = wish(2, most=4), History(NOW)
    for _ in range(5):
        history = pooling.asked(history, wished, False, NOW)
    assert pooling.wanted(wished, history, NOW + 59) == 4
    assert pooling.wanted(wished, history, NOW + 60) == 2
    history = pooling.asked(history, wished, True, NOW + 61)
    assert pooling.wanted(wished, history, NOW + 61) == 2
    history = pooling.asked(history, wished, False, NOW + 62)
    assert pooling.wanted(wished, history, NOW + 62) == 3


def test_it_shrinks_when_nobody_asks() -> None:
    wished, history = wish(3, least=1), History(NOW)
    assert pooling.wanted(wished, history, NOW + 599) == 3
    assert pooling.wanted(wished, history, NOW + 600) == 1
    plan, _ = pooling.decide(wished, SHAPE, boxes(3), history, 100, NOW + 600)
    assert len(plan.end) == 2
    assert pooling.wanted(wished, pooling.asked(history, wished, True, NOW + 700), NOW + 700) == 3


def test_what_cannot_be_made_is_tried_less_and_less_often() -> None:
    history, waits = History(NOW), []
    for _ in range(8):
        history = pooling.failed(history, NOW)
        plan, _ = pooling.decide(wish(1), SHAPE, [], history, 10, NOW)
        assert plan.create == 0 and plan.again is not None
        waits.append(plan.again)
    assert waits == sorted(waits) and (waits[0], waits[-1]) == (1.0, 60.0)
    assert pooling.decide(wish(1), SHAPE, [], pooling.made(history), 10, NOW)[0].create == 1


def test_numbers_of_a_spec() -> None:
    assert pooling.wish({"size": 3}) == Wish(3, 3, 3, 10.0, 3600.0)
    spec = {"size": 3, "min": 1, "max": 9, "refillRate": "30/m", "maxAge": "90s"}
    assert pooling.wish(spec) == Wish(1, 3, 9, 0.5, 90.0)
    assert pooling.wish({"size": 3, "refillRate": "soon"}).per_second == 10.0
