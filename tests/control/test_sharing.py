"""Who makes room for whom on this machine."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agentk.control import admission, sharing
from agentk.control.claims import THERE, Amount, Claim, Hard, State
from agentk.control.sharing import LEAST_RUN_SECONDS, Node

NOW = 1000.0


def claim(
    name: str,
    state: State,
    priority: int = 0,
    *,
    cpu: int = 100,
    mem: int = 1,
    since: float = 0,
    **more: object,
) -> Claim:
    one = Claim(("ns", name), priority, f"2026-01-01T00:00:{name}Z", Amount(1, cpu, mem), state, since)
    return replace(one, **more)  # type: ignore[arg-type]


def node(running: int = 1, **more: float) -> Node:
    return replace(Node(boxes=100, running=running), **more)  # type: ignore[arg-type]


def victims(node: Node, *claims: Claim, quotas: tuple[Hard, ...] = (), now: float = NOW) -> dict[str, str]:
    found = sharing.reckon(claims, {"ns": quotas}, node, now).victims
    return {key[1]: one.how for key, one in found.items()}


def reasons(node: Node, *claims: Claim, now: float = NOW) -> dict[str, str]:
    found = sharing.reckon(claims, {}, node, now).refused
    return {key[1]: one.reason for key, one in found.items()}


# making room


def test_the_lowest_priority_is_frozen_for_a_higher_one() -> None:
    claims = [claim("a", "holds", 2), claim("b", "holds", 1), claim("c", "waits", 9)]
    assert victims(node(2), *claims) == {"b": "Freeze"}
    assert reasons(node(2), *claims) == {"c": "Preempting"}


def test_nobody_of_the_same_priority_or_a_higher_one_makes_room() -> None:
    assert victims(node(2), claim("a", "holds", 9), claim("b", "holds", 5), claim("c", "waits", 5)) == {}


def test_one_that_says_never_waits() -> None:
    claims = [claim("a", "holds"), claim("c", "waits", 9, preempts=False)]
    assert victims(node(), *claims) == {} and reasons(node(), *claims) == {"c": "NodeFull"}


def test_one_that_cannot_be_frozen_is_ended() -> None:
    assert victims(node(), claim("a", "holds", ends=True), claim("c", "waits", 9)) == {"a": "End"}


def test_of_the_same_priority_who_began_last_makes_room() -> None:
    claims = [claim("a", "holds", since=1), claim("b", "holds", since=2), claim("c", "waits", 9)]
    assert victims(node(2), *claims) == {"b": "Freeze"}


def test_no_more_make_room_than_are_needed() -> None:
    small = [claim(f"{n}", "holds", cpu=100) for n in range(8)]
    big = claim("b", "holds", 1, cpu=400)
    wants = claim("w", "waits", 9, cpu=400)
    assert len(victims(node(99, cpu_millis=1200), *small, big, wants)) == 4
    assert victims(node(99, cpu_millis=1400), *small, big, wants) == {"6": "Freeze", "7": "Freeze"}


def test_memory_is_not_freed_by_freezing() -> None:
    claims = [claim("a", "holds", mem=6), claim("f", "yields", 1, mem=3), claim("c", "waits", 9, mem=5)]
    assert victims(node(9, memory_bytes=10), *claims) == {"a": "End"}


def test_a_frozen_one_is_ended_when_memory_is_short() -> None:
    claims = [claim("f", "yields", 1, mem=9), claim("c", "waits", 9, mem=5)]
    assert victims(node(9, memory_bytes=10), *claims) == {"f": "End"}
    assert set(reasons(node(9, memory_bytes=10), *claims)) == {"f", "c"}


def test_what_a_person_suspended_is_left_alone() -> None:
    claims = [claim("s", "stands", 1, mem=9), claim("c", "waits", 9, mem=5)]
    assert victims(node(9, memory_bytes=10), *claims) == {}


def test_when_all_of_them_would_not_do_nobody_is_touched() -> None:
    claims = [claim("a", "holds", 1), claim("b", "holds", 9, cpu=500), claim("c", "waits", 5, cpu=500)]
    assert victims(node(9, cpu_millis=900), *claims) == {}


def test_what_is_ending_already_is_waited_for() -> None:
    claims = [claim("a", "holds", leaving=True), claim("b", "holds"), claim("c", "waits", 9)]
    assert victims(node(2), *claims) == {}
    assert victims(node(2), *claims, claim("d", "waits", 8)) == {"b": "Freeze"}


def test_nobody_makes_room_in_a_quota() -> None:
    claims = [claim("a", "holds"), claim("c", "waits", 9)]
    assert victims(node(9), *claims, quotas=(Hard("q", agents=1),)) == {}


def test_a_frozen_agent_keeps_its_part_of_the_quota() -> None:
    claims = [claim("a", "yields"), claim("b", "waits", 9)]
    answer = sharing.reckon(claims, {"ns": [Hard("q", agents=1)]}, node(9), NOW)
    assert set(answer.refused) == {("ns", "b")}


def test_one_that_has_just_begun_is_left_alone_for_a_moment() -> None:
    claims = [claim("a", "holds", since=NOW), claim("c", "waits", 9)]
    assert victims(node(), *claims) == {}
    assert sharing.reckon(claims, {}, node(), NOW).again == NOW + LEAST_RUN_SECONDS
    assert victims(node(), *claims, now=NOW + LEAST_RUN_SECONDS) == {"a": "Freeze"}


def test_one_that_could_never_fit_moves_nobody_and_holds_nobody_back() -> None:
    claims = [claim("a", "holds"), claim("c", "waits", 9, cpu=5000), claim("d", "waits", cpu=100)]
    assert victims(node(2, cpu_millis=1000), *claims) == {}
    assert reasons(node(2, cpu_millis=1000), *claims) == {"c": "NodeFull"}


def test_what_was_made_room_for_is_not_taken_by_those_behind() -> None:
    claims = [
        claim("a", "holds", 1, cpu=300),
        claim("w", "waits", 9, cpu=400),
        claim("x", "waits", 8, cpu=100),
    ]
    assert victims(node(9, cpu_millis=400), *claims) == {"a": "Freeze"}
    assert set(reasons(node(9, cpu_millis=400), *claims)) == {"w", "x"}


# going on


def test_the_oldest_of_the_highest_priority_goes_on_first() -> None:
    frozen = [claim("2", "yields", 5), claim("1", "yields", 5), claim("0", "yields", 1)]
    assert set(reasons(node(), *frozen)) == {"2", "0"}


def test_an_old_frozen_one_goes_before_a_young_one_that_never_ran() -> None:
    assert set(reasons(node(), claim("1", "yields"), claim("2", "waits"))) == {"2"}


def test_one_that_lacks_memory_does_not_keep_frozen_ones_from_going_on() -> None:
    claims = [claim("s", "stands", mem=9), claim("w", "waits", 9, mem=5), claim("f", "yields", mem=1)]
    assert set(reasons(node(9, memory_bytes=10), *claims)) == {"w"}


# time slices


def test_without_time_slices_who_runs_goes_on() -> None:
    assert victims(node(), claim("a", "holds"), claim("b", "waits")) == {}


def test_who_has_run_longest_gives_its_turn_to_who_has_waited_longest() -> None:
    sliced = node(2, slice_seconds=10)
    claims = [
        claim("a", "holds", since=980),
        claim("b", "holds", since=985),
        claim("c", "yields", since=995),
        claim("d", "waits", since=990),
    ]
    found = sharing.reckon(claims, {}, sliced, NOW).victims
    assert {key[1]: (one.how, one.why, one.by) for key, one in found.items()} == {
        "a": ("Freeze", "TimeSliced", ("ns", "d")),
        "b": ("Freeze", "TimeSliced", ("ns", "c")),
    }


def test_a_turn_lasts_its_slice() -> None:
    claims = [claim("a", "holds", since=NOW - 4), claim("b", "waits", since=NOW)]
    assert victims(node(1, slice_seconds=10), *claims) == {}
    assert sharing.reckon(claims, {}, node(1, slice_seconds=10), NOW).again == NOW + 6


def test_one_that_cannot_be_frozen_keeps_its_turn() -> None:
    assert victims(node(1, slice_seconds=1), claim("a", "holds", ends=True), claim("b", "waits")) == {}


# properties

STATES: list[State] = ["holds", "yields", "stands", "waits", "rests"]
A_CLAIM = st.builds(
    lambda number, state, priority, cpu, mem, since, preempts, ends, leaving: claim(
        f"{number:02}", state, priority, cpu=cpu, mem=mem, since=since,
        preempts=preempts, ends=ends, leaving=leaving and state in ("holds", "yields"),
    ),
    st.integers(0, 59), st.sampled_from(STATES), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3),
    st.sampled_from([980.0, 990.0, 999.5]), st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip
CLAIMS = st.lists(A_CLAIM, max_size=10, unique_by=lambda one: one.key)
NODES = st.builds(
    lambda boxes, running, cpu, mem, each: Node(boxes, running, cpu, mem, each),
    st.integers(1, 8), st.integers(1, 5), st.none() | st.integers(0, 9), st.none() | st.integers(0, 9),
    st.sampled_from([0.0, 10.0]),
)  # fmt: skip


def after(claims: list[Claim], node: Node) -> tuple[list[Claim], sharing.Reckoning]:
    """What is there once all that is allowed was done and all that leave have left."""
    answer = sharing.reckon(claims, {}, node, NOW)
    made = []
    for one in claims:
        if one.leaving:
            continue
        if one.state in ("waits", "yields") and one.key not in answer.refused:
            made.append(replace(one, state="holds"))
        elif one.key in answer.victims:
            if answer.victims[one.key].how == "Freeze":
                made.append(replace(one, state="yields"))
        else:
            made.append(one)
    return made, answer


def room(claims: list[Claim], node: Node) -> sharing.Space:
    space = node.space
    for one in claims:
        space = space.minus(sharing._taken(one))
    return space


@given(CLAIMS, NODES)
@settings(max_examples=500)
def test_what_is_let_in_never_crosses_the_machine(claims: list[Claim], node: Node) -> None:
    before = room(claims, node)
    answer = sharing.reckon(claims, {}, node, NOW)
    let_in = [one for one in claims if one.state in ("waits", "yields") and not one.leaving]
    let_in = [one for one in let_in if one.key not in answer.refused]
    for one in let_in:
        before = before.minus(sharing._wanted(one))
    wanted = [max(part) for part in zip((0, 0, 0, 0), *map(sharing._wanted, let_in), strict=True)]
    assert all(left >= 0 for left, want in zip(before, wanted, strict=True) if want)


@given(CLAIMS, NODES)
@settings(max_examples=500)
def test_nobody_makes_room_for_lower_ones_and_equals_only_by_turns(claims: list[Claim], node: Node) -> None:
    by_key = {one.key: one for one in claims}
    for key, found in sharing.reckon(claims, {}, node, NOW).victims.items():
        victim = by_key[key]
        assert victim.state in ("holds", "yields") and not victim.leaving
        if victim.priority == found.priority:
            assert node.slice_seconds and found.why == "TimeSliced" and found.how == "Freeze"
            assert victim.since <= NOW - node.slice_seconds
        else:
            assert victim.priority < found.priority and found.why == "Preempted"
            assert by_key[found.by].preempts
        if victim.state == "holds":
            assert victim.since <= NOW - LEAST_RUN_SECONDS


@given(CLAIMS, NODES)
@settings(max_examples=500)
def test_room_that_is_made_is_enough_and_none_of_it_too_much(claims: list[Claim], node: Node) -> None:
    made, answer = after(claims, node)
    if not answer.victims:
        return
    served = {found.by for found in answer.victims.values()}
    free = room(made, node)
    for one in claims:
        if one.key in served:
            want = sharing._wanted(one)
            assert not any(free.lacks(want)), "what was freed lets in whom it was freed for"
            free = free.minus(want)
    alone = list(answer.victims.values())
    if len(served) == 1 and not any(one.leaving for one in claims):  # else it is not plain who needs it
        wants = next(one for one in claims if one.key in served)
        for key in answer.victims:
            kept = [replace(one, state="holds") if one.key == key else one for one in made if one.key != key]
            kept.append(next(one for one in claims if one.key == key))
            assert any(room(kept, node).lacks(sharing._wanted(wants))), (
                f"{key} made room for nothing: {alone}"
            )


@given(CLAIMS, NODES, st.randoms())
@settings(max_examples=200)
def test_the_order_in_which_they_are_told_of_does_not_matter(
    claims: list[Claim], node: Node, random: object
) -> None:
    shuffled = list(claims)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (sharing.reckon(given, {}, node, NOW) for given in (claims, shuffled))
    assert one.victims == other.victims and one.refused == other.refused


class World:
    """Agents that want to run for ever, looked at again and again."""

    def __init__(self, node: Node, claims: list[Claim]) -> None:
        self.now = NOW
        self.ledger = admission.Ledger(node, lambda: self.now)
        self.claims: dict[str, Claim] = {}
        self.freezes: dict[str, int] = {}
        self.ran: dict[str, float] = {}
        for one in claims:
            self.note(one)

    def note(self, one: Claim, state: State = "waits") -> None:
        self.claims[one.key[1]] = replace(one, state=state)
        self.ledger.note(self.claims[one.key[1]])

    def step(self, seconds: float) -> None:
        for name, one in self.claims.items():
            found = self.ledger.preempted(one.key)
            if found is not None:
                self.freezes[name] = self.freezes.get(name, 0) + 1
                self.note(one, "yields" if found.how == "Freeze" else "waits")
            elif one.state in ("waits", "yields") and self.ledger.ask(one.key) is None:
                self.note(one, "holds")
        assert all(left >= 0 for left in room(list(self.claims.values()), self.ledger.node))
        for name, one in self.claims.items():
            if one.state == "holds":
                self.ran[name] = self.ran.get(name, 0) + seconds
        self.now += seconds


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.integers(1, 3), st.sampled_from([None, 4, 6]))
@settings(max_examples=100, deadline=None)
def test_with_time_slices_everybody_of_a_priority_runs(
    sizes: list[int], running: int, cpu: int | None
) -> None:
    claims = [claim(f"{n:02}", "waits", cpu=size) for n, size in enumerate(sizes)]
    world = World(Node(100, running, cpu, None, 10.0), claims)
    steps = 40 * (len(sizes) + 1)
    for _ in range(steps):
        world.step(1.0)
    assert set(world.ran) == set(world.claims), "everybody ran"
    for name, count in world.freezes.items():
        assert count <= steps / 10 + 1, f"{name} was frozen more than once a slice"
    if len(set(sizes)) == 1 and cpu is None:
        assert max(world.ran.values()) - min(world.ran.values()) <= 20


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=8), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_without_them_it_comes_to_rest_with_the_highest(agents: list[tuple[int, bool]], running: int) -> None:
    claims = [claim(f"{n:02}", "waits", priority, ends=ends) for n, (priority, ends) in enumerate(agents)]
    half = len(claims) // 2
    world = World(node(running), claims[:half])
    for _ in range(5):
        world.step(1.0)
    for one in claims[half:]:
        world.note(one)
    for _ in range(10):
        world.step(1.0)
    frozen = dict(world.freezes)
    for _ in range(10):
        world.step(1.0)
    assert frozen == world.freezes, "nobody is frozen again for nothing"
    runs = sorted((one.priority for one in world.claims.values() if one.state == "holds"), reverse=True)
    assert runs == sorted((one.priority for one in claims), reverse=True)[: len(runs)]
    assert len(runs) == min(running, len(claims))
    assert all(one.state in THERE or one.state == "waits" for one in world.claims.values())
