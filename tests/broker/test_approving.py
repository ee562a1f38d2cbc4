"""A person is asked: what a call that waits lives through, and that it is done once, as approved, or not at all."""

import asyncio
import json

import pytest

from agentk.api import admit, errors, kinds
from agentk.broker.previews import File
from agentk.broker.words import Call
from agentk.store import archives
from agentk.store import store as stores
from tests.broker.asking_world import ASK, SECRET, World, told, unheard


async def ended(task: "asyncio.Task[object]") -> object:
    return await asyncio.wait_for(task, 30)


@told
async def test_a_call_waits_and_is_done_once_approved(world: World) -> None:
    uid, call, asked = await world.parked("rm -rf build")
    spec = asked["spec"]
    assert (spec["summary"], spec["rule"], spec["default"]) == ("exec: rm -rf build", "careful", "Deny")
    assert spec["arguments"]["code"] == "rm -rf build" and admit.admit(asked)
    assert asked["metadata"]["ownerReferences"][0]["uid"] == uid
    assert (world.done, world.budgets.standing("q", 0.0).held.calls) == ([], 0), "nothing is held meanwhile"
    told = f"agentk approve {asked['metadata']['name']}  # exec: rm -rf build"
    await world.until(lambda: world.awaited[uid] == (told,))
    await world.answer(asked, reason="go on")
    assert await ended(call) == {"ran": "rm -rf build"}
    (done,) = await world.all()
    status = done["status"]
    assert (status["phase"], status["used"], status["waiting"]) == ("Approved", True, False)
    assert status["by"] == {"name": "alice", "uid": 1000} and status["reason"] == "go on"
    assert world.records() == [("approval.approve", "ok"), ("exec", "ok")]
    assert world.awaited[uid] == ()
    again = world.call(uid, "rm -rf build")
    await world.asked()
    assert len(world.done) == 1, "an approval is used once"
    again.cancel()


@told
async def test_a_denied_call_is_told_why_and_asked_anew_the_next_time(world: World) -> None:
    uid, call, asked = await world.parked()
    await world.answer(asked, "Denied", reason="not on a Friday")
    with pytest.raises(errors.ApprovalDenied, match="alice said no: not on a Friday"):
        await ended(call)
    again = world.call(uid)
    await world.asked()
    assert world.done == [] and ("exec", "denied") in world.records()
    again.cancel()


@told
async def test_the_same_key_has_the_same_answer(world: World) -> None:
    uid = await world.agent()
    first, second = world.call(uid, key="k"), world.call(uid, key="k")
    (asked,) = await world.asked()
    await world.answer(asked, "Denied")
    for call in (first, second, world.call(uid, key="k")):
        with pytest.raises(errors.ApprovalDenied):
            await ended(call)
    with pytest.raises(errors.Conflict, match="another call"):
        await ended(world.call(uid, "y", key="k"))
    first, second = world.call(uid, key="l"), world.call(uid, key="l")
    (asked,) = await world.asked()
    await world.answer(asked)
    assert await ended(first) == await ended(second) == {"ran": "x"}
    assert len(world.done) == 1


@told
async def test_who_repeats_a_call_waits_on_when_the_first_hangs_up(world: World) -> None:
    """A connection that broke may be noticed after its calls were made again."""
    uid = await world.agent()
    first, second = world.call(uid, key="k"), world.call(uid, key="k")
    (asked,) = await world.asked()
    first.cancel()
    await world.until(first.done)
    third = world.call(uid, key="k")
    await world.answer(asked)
    assert await ended(second) == await ended(third) == {"ran": "x"}
    assert (len(world.done), len(await world.all())) == (1, 1)


@told
async def test_two_equal_calls_at_once_are_two_questions(world: World) -> None:
    uid = await world.agent()
    calls = [world.call(uid), world.call(uid)]
    one, other = await world.asked(count=2)
    await world.answer(one)
    await world.until(lambda: any(call.done() for call in calls))
    assert [call.done() for call in calls].count(True) == 1
    await world.answer(other, "Denied")
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(type(one).__name__ for one in results) == ["ApprovalDenied", "dict"]
    assert len(world.done) == 1


@told
async def test_who_hangs_up_finds_its_approval_again(world: World) -> None:
    uid, call, asked = await world.parked()
    call.cancel()
    await world.until(lambda: _waiting(world, False))
    await world.answer(asked)
    assert await ended(world.call(uid, key="another key", attempt=2)) == {"ran": "x"}
    assert len(await world.all()) == 1


async def _waiting(world: World, waits: bool) -> bool:
    return all((one.get("status") or {}).get("waiting") == waits for one in await world.all())


@told
async def test_that_nobody_waits_any_more_is_told_once_it_can_be_written(world: World) -> None:
    _, call, _ = await world.parked()
    await world.until(lambda: _waiting(world, True))
    note, failed = world.approvals.answers.note, asyncio.Event()

    async def full(namespace: str, name: str, waits: bool) -> None:
        failed.set()
        world.approvals.answers.note = note  # type: ignore[method-assign]
        raise errors.Unavailable("the disk is full")

    world.approvals.answers.note = full  # type: ignore[method-assign]
    await world.hangs_up(call)
    await world.until(failed.is_set)
    world.approvals.changed.set()
    await world.until(lambda: _waiting(world, False))


@told
async def test_a_daemon_that_comes_later_goes_on_where_the_call_waited(world: World) -> None:
    uid, call, asked = await world.parked(key="k")
    await world.until(lambda: _waiting(world, True))
    await world.lose()  # the call dies with it, as with kill -9: nothing more is written
    await world.open()
    await world.until(lambda: _waiting(world, False))
    again = world.call(uid, key="k")
    await world.until(lambda: _waiting(world, True))
    await world.answer(asked)
    assert await ended(again) == {"ran": "x"} and len(await world.all()) == 1
    call.cancel()


@told
async def test_what_was_answered_while_no_daemon_waited_counts(world: World) -> None:
    uid = await world.agent()
    for phase in ("Approved", "Denied"):
        call = world.call(uid, phase)
        (asked,) = await world.asked()
        call.cancel()
        await world.answer(asked, phase)
        await world.lose()
        await world.open()
    assert await ended(world.call(uid, "Approved")) == {"ran": "Approved"}
    with pytest.raises(errors.ApprovalDenied):
        await ended(world.call(uid, "Denied"))


@told
async def test_nobody_answers(world: World) -> None:
    await world.policy(timeout="10s")
    _, call, asked = await world.parked()
    world.boot += 11
    await world.policy(timeout="10s", maxPending=3)  # wakes who waits: a timer does not know of this clock
    with pytest.raises(errors.ApprovalRequired, match="nobody has approved it in time"):
        await ended(call)
    (expired,) = await world.asked("Expired")
    assert expired["status"]["by"] == {"name": "deadline"}
    with pytest.raises(errors.Conflict, match="is Expired already"):
        await world.answer(asked)
    assert world.done == []


@told
async def test_who_answers_too_late_is_told_so(world: World) -> None:
    await world.policy(timeout="10s")
    _, call, asked = await world.parked()
    call.cancel()
    world.boot += 11
    with pytest.raises(errors.Conflict, match=r"ran out|Expired"):
        await world.answer(asked)


@told
async def test_a_default_of_allow_lets_through_who_still_waits_and_nobody_else(world: World) -> None:
    rule = {**ASK[0], "approval": {"timeout": "10s", "default": "Allow"}}
    await world.policy([rule, ASK[1]])
    uid = await world.agent()
    waits, left = world.call(uid, "waits"), world.call(uid, "left")
    await world.asked(count=2)
    left.cancel()
    await world.until(left.done)
    world.boot += 11
    await world.policy([rule, ASK[1]], maxPending=3)
    assert await ended(waits) == {"ran": "waits"}
    (expired,) = await world.asked("Expired")
    assert expired["spec"]["arguments"]["code"] == "left"
    assert [one["code"] for one in world.done] == ["waits"]


@told
async def test_setting_the_clock_moves_no_deadline(world: World) -> None:
    await world.policy(timeout="1h")
    uid, call, asked = await world.parked()
    call.cancel()
    await world.lose()
    world.wall += 10 * 3600  # somebody set it while no daemon ran; the machine was not started again
    await world.open()
    again = world.call(uid)
    await world.answer(asked)
    assert await ended(again) == {"ran": "x"}


@told
async def test_after_a_reboot_the_wall_clock_counts(world: World) -> None:
    await world.policy(timeout="1h")
    uid = await world.agent()
    call = world.call(uid)
    await world.asked()
    call.cancel()
    await world.lose()
    world.wall, world.boot, world.boot_id = world.wall + 3700, 0.0, "second"
    await world.open()
    await world.asked("Expired")


@told
async def test_an_approval_that_nobody_came_for_is_over_at_its_deadline(world: World) -> None:
    await world.policy(timeout="10s")
    uid, call, asked = await world.parked()
    await world.hangs_up(call)
    await world.answer(asked)
    world.boot += 11
    again = world.call(uid)
    await world.asked("Pending")
    assert world.done == []
    again.cancel()


@told
async def test_the_policy_is_asked_again(world: World) -> None:
    uid = await world.agent()
    denied = world.call(uid)
    await world.asked()
    await world.policy([{**ASK[0], "effect": "Deny"}, ASK[1]])
    with pytest.raises(errors.Denied, match='"careful"'):
        await ended(denied)
    await world.policy()
    allowed = world.call(uid, "y")
    await world.asked()
    await world.policy([ASK[1]])
    assert await ended(allowed) == {"ran": "y"}
    assert [one["status"]["phase"] for one in await world.all()] == ["Expired", "Expired"]


@told
async def test_an_approval_does_not_outlive_a_denial(world: World) -> None:
    uid, call, asked = await world.parked()
    await world.hangs_up(call)
    await world.answer(asked)
    await world.policy([{**ASK[0], "effect": "Deny"}, ASK[1]])
    with pytest.raises(errors.Denied):
        await ended(world.call(uid))
    assert world.done == []


@told
async def test_a_file_that_changed_is_another_call(world: World) -> None:
    world.files, world.diff = [File("/workspace/a.py", "1" * 64, 10)], "--- a\n+++ b\n"
    _, call, asked = await world.parked()
    assert asked["spec"]["diff"] == world.diff and asked["spec"]["files"][0]["sizeBytes"] == 10
    world.files = [File("/workspace/a.py", "2" * 64, 10)]
    await world.answer(asked)
    with pytest.raises(errors.Conflict, match=r"/workspace/a\.py is not what it was"):
        await ended(call)
    assert world.done == []


@told
async def test_what_is_remembered_is_not_asked_again(world: World) -> None:
    world.files = [File("/workspace/a.py", "1" * 64, 10)]
    uid, other = await world.agent(), await world.agent("b")
    call = world.call(uid)
    (asked,) = await world.asked()
    await world.answer(asked, remember=True)
    for one in (call, world.call(uid), world.call(uid, attempt=3)):
        assert await ended(one) == {"ran": "x"}
    await world.lose()
    await world.open()
    assert await ended(world.call(uid)) == {"ran": "x"}
    assert len(await world.all()) == 1
    stranger, changed = world.call(other), world.call(uid, "y")
    await world.asked(count=2)  # another agent, and another call
    world.files = [File("/workspace/a.py", "2" * 64, 10)]
    edited = world.call(uid)
    await world.asked(count=3)  # and another file
    for task in (stranger, changed, edited):
        task.cancel()
    await world.store.delete(kinds.APPROVAL, "default", asked["metadata"]["name"])
    world.files = [File("/workspace/a.py", "1" * 64, 10)]
    await world.until(lambda: world.approvals.index.get(("default", asked["metadata"]["name"])) is None)
    forgotten = world.call(uid)
    await world.asked(count=4)
    forgotten.cancel()


@told
async def test_a_remembered_denial_denies(world: World) -> None:
    uid, call, asked = await world.parked()
    await world.answer(asked, "Denied", remember=True)
    for one in (call, world.call(uid), world.call(uid)):
        with pytest.raises(errors.ApprovalDenied):
            await ended(one)
    assert len(await world.all()) == 1


@told
async def test_what_is_remembered_of_calls_alike_is_of_no_others(world: World) -> None:
    world.files = [File("job.sh", "1" * 64, 10)]
    uid, call, asked = await world.parked("ls a")
    with pytest.raises(errors.Invalid, match='no argument "cod"'):
        await world.answer(asked, remember=True, matching=(("cod", "ls *"),))
    await world.answer(asked, remember=True, matching=(("code", "ls *"),))
    for one in (call, world.call(uid, "ls b"), world.call(uid, "ls ", key="k")):
        assert await ended(one)
    await world.lose()
    await world.open()
    assert await ended(world.call(uid, "ls c"))
    assert len(await world.all()) == 1
    others = [
        world.call(uid, "rm b"),
        world.call(uid, "ls b", stdin="x"),
        world.call(uid, "ls b", env={"A": "b"}),
    ]
    await world.asked(count=3)
    world.files = [File("job.sh", "2" * 64, 10)]
    others.append(world.call(uid, "ls b"))  # a file that was named then is another one by now
    await world.asked(count=4)
    for task in others:
        task.cancel()


@told
async def test_what_is_remembered_of_a_command_is_of_no_other_behind_it(world: World) -> None:
    uid = await world.agent()
    call = world.call(uid, "ls a")
    (asked,) = await world.asked()
    await world.answer(asked, remember=True, matching=(("code", "ls *"),))
    assert await ended(call) and await ended(world.call(uid, "ls b c"))
    others = ("ls; rm -rf .", "ls a\nrm b", "ls $(rm a)", "ls `rm a`", "ls a > b", "ls & rm a")
    calls = [world.call(uid, other) for other in others]
    await world.asked(count=len(others))
    for one in calls:
        one.cancel()


@told
async def test_a_denial_of_calls_alike_comes_first(world: World) -> None:
    uid = await world.agent()
    for phase, code, glob in (("Denied", "git push", "git push*"), ("Approved", "git log", "git *")):
        call = world.call(uid, code)
        (asked,) = await world.asked()
        await world.answer(asked, phase, remember=True, matching=(("code", glob),))
        await asyncio.gather(call, return_exceptions=True)
    assert await ended(world.call(uid, "git status"))
    with pytest.raises(errors.ApprovalDenied):
        await ended(world.call(uid, "git push --force"))


@told
async def test_an_approval_that_comes_back_with_a_backup_is_none(world: World) -> None:
    uid = await world.agent()
    for remember in (False, True):
        call = world.call(uid, str(remember))
        (asked,) = await world.asked()
        call.cancel()
        await world.until(call.done)
        await world.answer(asked, remember=remember)
    archive = world.folder / "backup.tar"
    await world.store.backup(archive)
    assert await ended(world.call(uid, "False")) and await ended(world.call(uid, "True"))
    await world.lose()
    world.store.close()
    archives.restore(world.folder, archive)
    world.store = stores.Store.open(world.folder)
    await world.open()
    calls = [world.call(uid, "False"), world.call(uid, "True")]
    await world.asked(count=2)
    for call in calls:
        call.cancel()
    assert len(world.done) == 2


@told
async def test_a_guest_cannot_flood_people(world: World) -> None:
    await world.policy(maxPending=2)
    uid = await world.agent()
    calls = [world.call(uid, str(number)) for number in range(2)]
    await world.asked(count=2)
    for call in calls:
        call.cancel()
    with pytest.raises(errors.TooManyRequests, match="2 calls of this agent wait"):
        await ended(world.call(uid, "third"))
    again = world.call(uid, "1")  # one of the two, made again
    await world.until(lambda: len(world.awaited[uid]) == 1)
    again.cancel()
    assert len(await world.all()) == 2


@told
async def test_nor_can_it_by_those_that_it_spawns(world: World) -> None:
    await world.policy(maxPending=2)
    uid = await world.agent()
    children = [await world.agent(name, parent=uid) for name in ("b", "c")]
    calls = [world.call(one) for one in children]
    await world.asked(count=2)
    for one in (uid, children[0]):
        with pytest.raises(errors.TooManyRequests, match="2 calls of"):
            await ended(world.call(one, "third"))
    for call in calls:
        call.cancel()


@told
async def test_a_default_that_was_taken_back_lets_nobody_through(world: World) -> None:
    rules = [{**ASK[0], "approval": {"timeout": "10s", "default": "Allow"}}, ASK[1]]
    await world.policy(rules)
    uid = await world.agent()
    call = world.call(uid)
    await world.asked()
    await world.policy()
    world.boot += 11
    await world.policy(maxPending=3)
    with pytest.raises(errors.ApprovalRequired):
        await ended(call)
    assert world.done == []


@told
async def test_a_secret_is_bound_and_not_shown(world: World) -> None:
    uid, secret = await world.agent(), SECRET.decode()
    call = world.call(uid, f"login {secret}\0")
    (asked,) = await world.asked()
    assert secret not in json.dumps(asked) and "[redacted]" in asked["spec"]["summary"]
    await world.hangs_up(call)
    await world.answer(asked)
    other = world.call(uid, "login [redacted]\0")  # reads the same, and is not
    await world.asked()
    other.cancel()
    assert world.done == []
    assert await ended(world.call(uid, f"login {secret}\0"))


@told
async def test_a_name_never_becomes_another_calls(world: World) -> None:
    """Somebody may look at one, and answer when it is gone and the same key was used for something else."""
    uid, names = await world.agent(), set[str]()
    for code, digest in (("ls", "1"), ("rm -rf /", "1"), ("ls", "2")):
        world.files = [File("a.sh", digest * 64, 1)]
        call = world.call(uid, code, key="k")
        (asked,) = await world.asked()
        names.add(asked["metadata"]["name"])
        await world.store.delete(kinds.APPROVAL, "default", asked["metadata"]["name"])
        with pytest.raises(errors.ApprovalDenied, match="deleted"):
            await ended(call)
        await world.until(lambda: not world.approvals.index.of(uid))
    assert len(names) == 3


@told
async def test_who_deletes_it_refuses_it(world: World) -> None:
    _, call, asked = await world.parked()
    await world.store.delete(kinds.APPROVAL, "default", asked["metadata"]["name"])
    with pytest.raises(errors.ApprovalDenied, match="deleted"):
        await ended(call)


@told
async def test_with_its_agent_ends_what_it_asked(world: World) -> None:
    uid = await world.agent()
    for status, why in (
        ({"phase": "Failed"}, "its agent has ended"),
        ({"phase": "Running", "run": {"firstAttempt": 2}}, "its agent was started anew"),
    ):
        call = world.call(uid, why)
        (asked,) = await world.asked()
        call.cancel()
        await world.status(uid, **status)
        await world.until(lambda: _is_over(world, asked["metadata"]["name"], why))  # noqa: B023
        await world.status(uid, phase="Running")


async def _is_over(world: World, name: str, why: str) -> bool:
    status = (await world.store.get(kinds.APPROVAL, "default", name)).get("status") or {}
    return (status.get("phase"), status.get("reason")) == ("Expired", why)


@told
async def test_answers_do_not_pile_up(world: World) -> None:
    await world.policy(retention="1h")
    uid = await world.agent()
    for number in range(3):
        call = world.call(uid, str(number))
        (asked,) = await world.asked()
        await world.answer(asked, "Denied", remember=number == 0)
        with pytest.raises(errors.ApprovalDenied):
            await ended(call)
    world.boot += 3700
    await world.keeping.look()
    assert [one["spec"]["arguments"]["code"] for one in await world.all()] == ["0"], "the remembered one"


@told
async def test_two_people_cannot_both_answer(world: World) -> None:
    _, call, asked = await world.parked()
    answers = await asyncio.gather(world.answer(asked), world.answer(asked, "Denied"), return_exceptions=True)
    assert [isinstance(one, errors.Conflict) for one in answers].count(True) == 1
    await asyncio.gather(call, return_exceptions=True)
    decided = [status for method, status in world.records() if method.startswith("approval.")]
    assert sorted(decided) in (["error", "ok"], ["ok"])


@told
async def test_a_call_that_is_not_journalled_can_be_asked_about(world: World) -> None:
    await world.policy([{"name": "all", "effect": "Ask", "methods": ["*"]}])
    uid = await world.agent()
    guest = world.guests.find(f"{uid}-1")
    call = asyncio.create_task(world.gate.call(Call(guest, "noop", {"payload": 1}), unheard))
    (asked,) = await world.asked()
    await world.answer(asked)
    assert await ended(call) == {"ran": ""}


@told
async def test_nothing_is_done_for_an_agent_that_is_frozen(world: World) -> None:
    await world.policy(timeout="10s")
    uid, call, asked = await world.parked()
    world.still.tell(uid, True)
    await world.answer(asked)
    world.boot += 11
    await world.policy(timeout="10s", maxPending=3)
    await world.asked("Approved")
    assert (world.done, call.done()) == ([], False)
    world.still.tell(uid, False)
    assert await ended(call) == {"ran": "x"}


@told
async def test_a_question_is_answered_by_a_person(world: World) -> None:
    await world.policy([{"name": "all", "effect": "Allow", "methods": ["*"]}], timeout="1h")
    uid = await world.agent()
    call = world.question(uid, question="Which?", choices=["a", "b"])
    (asked,) = await world.asked()
    assert asked["spec"]["question"] == {"text": "Which?", "choices": ["a", "b"]} and admit.admit(asked)
    with pytest.raises(errors.Invalid, match="is a question"):
        await world.answer(asked)
    with pytest.raises(errors.Invalid, match="one of: a, b"):
        await world.answer(asked, text="c")
    call.cancel()
    await world.lose()
    await world.open()
    await world.answer(asked, text="b")
    again = world.question(uid, question="Which?", choices=["a", "b"])
    assert await ended(again) == {"answer": "b", "by": "alice (uid 1000)"}
    assert world.records()[-2:] == [("approval.answer", "ok"), ("human.ask", "ok")]
    denied = world.question(uid, question="Why?")
    (asked,) = await world.asked()
    await world.answer(asked, "Denied", reason="no time")
    with pytest.raises(errors.ApprovalDenied, match="no time"):
        await ended(denied)


@told
async def test_a_question_has_an_answer_of_its_own_when_nobody_gives_one(world: World) -> None:
    rules = [{"name": "all", "effect": "Allow", "methods": ["*"]}]
    await world.policy(rules, timeout="1h", default="Allow")
    uid = await world.agent()
    with pytest.raises(errors.BadRequest, match="none of the choices"):
        await ended(world.question(uid, question="Which?", choices=["a"], default="b"))
    one = world.question(uid, question="Which?", default="a", timeoutSeconds=10)
    other = world.question(uid, question="Which?", timeoutSeconds=604800)
    await world.asked(count=2)
    world.boot += 11
    await world.policy(rules, timeout="1h", maxPending=3)
    assert await ended(one) == {"answer": "a", "by": "deadline"}
    world.boot += 3600
    await world.policy(rules, timeout="1h", maxPending=4)
    with pytest.raises(errors.ApprovalRequired, match="nobody has answered"):
        await ended(other)


@told
async def test_who_answers_what_is_no_question_is_told_so(world: World) -> None:
    _, call, asked = await world.parked()
    with pytest.raises(errors.Invalid, match="asks nothing"):
        await world.answer(asked, text="yes")
    call.cancel()
