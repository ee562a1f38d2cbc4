"""What agents run in the background, how it ends, and what bounds it."""

import asyncio
from collections.abc import Iterator

import pytest

from agentk.api import errors
from agentk.broker import jobs
from tests.broker.execing_rig import World, living
from tests.runtime import launching
from tests.runtime.launching import Place

pytestmark = launching.needs_jail


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


SLEEP = "sleep 1000"


@living
async def test_who_hangs_up_ends_the_whole_tree(made: World) -> None:
    code = "touch begun; (setsid sleep 1000 &) ; sleep 1000"
    call = made.begun(code=code, language="shell")
    await launching.holds(lambda: made.exists("begun"))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await launching.holds(lambda: not made.commands())
    assert made.records() == [("intent", "exec", ""), ("result", "exec", "cancelled")]
    assert made.budgets.standing("a", 0.0).used.calls == 1


@living
async def test_in_the_background_it_is_polled_waited_for_and_kept(made: World) -> None:
    code = "mkfifo f; read -r x <f; echo $x; exit 5"
    told = await made.call("exec", code=code, language="shell", background=True)
    run = told["id"]
    assert told == {"id": run, "state": "Running"} == await made.call("exec.poll", id=run)
    waiting = asyncio.create_task(made.call("exec.poll", id=run, waitSeconds=300))
    await launching.holds(lambda: made.exists("f"))
    await made.call("exec", code="echo word >f", language="shell")
    ended = await waiting
    assert (ended["id"], ended["exitCode"], ended["stdout"]) == (run, 5, "word\n")
    assert await made.call("exec.poll", id=run) == ended
    assert await made.call("exec.cancel", id=run) == {"cancelled": False}
    for who, wrong in (("b", run), ("a", "no-such")):
        for method in ("exec.poll", "exec.cancel"):
            with pytest.raises(errors.NotFound):
                await made.call(method, who=who, id=wrong)
    made.journal.close()
    made.open()  # the daemon came back
    assert await made.call("exec.poll", id=run) == ended
    await made.jobs.sweep(["a"])
    assert await made.call("exec.poll", id=run) == ended
    made.now += jobs.KEPT_SECONDS + 1
    with pytest.raises(errors.NotFound):
        await made.call("exec.poll", id=run)
    await made.journal.verify()


@living
async def test_what_is_kept_holds_no_secret_and_nothing_of_agents_that_are_gone(made: World) -> None:
    other = (await made.call("exec", who="b", argv=["true"], background=True))["id"]
    await made.call("exec.poll", who="b", id=other, waitSeconds=300)
    run = (await made.call("exec", argv=["echo", "my hunter2"], background=True))["id"]
    assert (await made.call("exec.poll", id=run, waitSeconds=300))["stdout"] == "my ***\n"
    made.now += jobs.KEPT_SECONDS - 1
    await made.jobs.sweep(["a"])
    uids = made.journal.read(lambda conn: conn.execute("SELECT DISTINCT uid FROM jobs").fetchall())
    assert uids == [("a",)]
    made.now += 2
    await made.jobs.sweep(["a"])
    assert made.journal.read(lambda conn: conn.execute("SELECT * FROM jobs").fetchall()) == []


@living
async def test_in_the_background_it_is_cancelled_with_what_it_said(made: World) -> None:
    code = "echo begun; touch begun; (setsid sleep 1000 &) ; sleep 1000"
    run = (await made.call("exec", code=code, language="shell", background=True))["id"]
    await launching.holds(lambda: made.exists("begun"))
    assert await made.call("exec.cancel", id=run) == {"cancelled": True}
    told = await made.call("exec.poll", id=run)
    assert (told["state"], told["reason"], told["stdout"]) == ("Exited", "Cancelled", "begun\n")
    await launching.holds(lambda: not made.commands())
    ran = [record for record in made.records() if record[1] == "exec"]
    assert ran == [("intent", "exec", ""), ("result", "exec", "ok"), ("local", "exec", "ok")]


@living
async def test_one_that_is_cancelled_at_once_does_not_go_on(made: World) -> None:
    run = (await made.call("exec", code=SLEEP, language="shell", background=True))["id"]
    await made.call("exec.cancel", id=run)
    assert (await made.call("exec.poll", id=run))["reason"] == "Cancelled"


@living
async def test_what_runs_when_the_daemon_ends_has_an_unknown_end(made: World) -> None:
    run = (await made.call("exec", code=SLEEP, language="shell", background=True))["id"]
    lost = made.jobs._running.copy()
    made.journal.close()
    made.open()
    with pytest.raises(errors.OutcomeUnknown):
        await made.call("exec.poll", id=run)
    assert await made.call("exec.cancel", id=run) == {"cancelled": False}
    for job in lost.values():
        assert job.task is not None
        job.task.cancel()
        await asyncio.gather(job.task, return_exceptions=True)


@living
async def test_when_gate_closes_what_runs_ends_and_is_on_record(made: World) -> None:
    run = (await made.call("exec", code=SLEEP, language="shell", background=True))["id"]
    await made.jobs.close()
    with pytest.raises(errors.Cancelled):
        await made.call("exec.poll", id=run)
    await launching.holds(lambda: not made.commands())
    assert made.records()[-1] == ("local", "exec", "cancelled")


@living
async def test_what_runs_and_what_is_kept_is_bounded_for_an_agent(made: World) -> None:
    async def begin(who: str = "a") -> str:
        told = await made.call("exec", who=who, argv=["sleep", "1000"], background=True)
        return str(told["id"])

    runs = [await begin() for _ in range(jobs.RUNNING_MAX)]
    with pytest.raises(errors.TooManyRequests):
        await begin()
    other = await begin("b")
    for run in [*runs[1:], other]:
        who = "b" if run == other else "a"
        assert await made.call("exec.cancel", who=who, id=run) == {"cancelled": True}
    for n in range(jobs.KEPT_MAX):
        made.now += 1
        await made.journal.write(lambda tx, n=n: jobs._began(tx, "a", f"made-{n}", made.now))
        await made.journal.write(lambda tx, n=n: jobs._ended(tx, "a", f"made-{n}", b"{}", made.now))
    for run in runs[1:]:
        with pytest.raises(errors.NotFound):
            await made.call("exec.poll", id=run)
    assert (await made.call("exec.poll", id=runs[0]))["state"] == "Running"
    assert (await made.call("exec.poll", who="b", id=other))["state"] == "Exited"
    large = b" " * jobs.KEPT_MAX_BYTES + b"{}"
    await made.journal.write(lambda tx: jobs._ended(tx, "a", "made-0", large, made.now))
    rows = made.journal.read(
        lambda conn: conn.execute("SELECT count(*) FROM jobs WHERE uid = 'a'").fetchone()
    )
    assert rows[0] <= jobs.KEPT_MAX
