"""What agents may run beside themselves: real gate, real journal, real launcher, real jails."""

import asyncio
import base64
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.broker import gate, jobs, policy
from agentk.broker.budgets import Budgets
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.calling import execing
from agentk.broker.words import Call, Guest
from agentk.runtime import jails
from agentk.store.journal import Journal
from agentk.store.journal_anchor import StateAnchor
from tests.runtime import launching
from tests.runtime.launching import Place

pytestmark = launching.needs_jail
ALL = [{"name": "all", "effect": "Allow", "methods": ["*"]}]
SLEEP = "sleep 1000"
Test = Callable[["World"], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


def redact(data: bytes) -> bytes:
    return data.replace(b"hunter2", b"***")


class World:
    """A gate, and boxes of agents a and b, which only wait."""

    def __init__(self, folder: Path, there: Place, runtime: jails.Jails) -> None:
        self.folder, self.there, self.runtime = folder, there, runtime
        self.anchor: list[str] = []
        self.rules: list[dict[str, Any]] = ALL
        self.now = 1_700_000_000.0
        self.open()

    def open(self) -> None:
        self.journal = Journal.open(
            self.folder, StateAnchor(lambda: self.anchor[-1] if self.anchor else None, self.anchor.append)
        )
        self.jobs = jobs.Jobs(self.journal, self.runtime.exec_cancel, redact, lambda: self.now)
        self.budgets = Budgets()
        for name in ("a", "b"):
            self.budgets.put(name, Owner("agent", name), Limits(), 0.0)
        rooms = gate.Rooms(
            execing.methods(execute=self.runtime.exec, jobs=self.jobs),
            lambda guest: policy.read("p", {"level": "baseline", "rules": self.rules}),
            self.journal,
            self.budgets,
            lambda guest: (guest.uid,),
            lambda *about: contextlib.nullcontext(gate._NO_TURN),
        )
        self.gate = gate.Gate(rooms)

    async def call(
        self, method: str, *, who: str = "a", key: str = "", heard: list[Any] | None = None, **params: Any
    ) -> Any:
        async def emit(item: Any) -> None:
            if heard is not None:
                heard.append(item)

        guest = Guest(who, "default", who, 1, f"{who}-1", f"{who}-1")
        return await self.gate.call(Call(guest, method, params, key=key), emit)

    def begun(self, **params: Any) -> "asyncio.Task[Any]":
        return asyncio.create_task(self.call("exec", **params))

    def records(self) -> list[tuple[str, str, str]]:
        def read(conn: Any) -> list[tuple[str, str, str]]:
            sql = "SELECT kind, method, status FROM records WHERE uid <> '' AND method <> '' ORDER BY id"
            return [tuple(row) for row in conn.execute(sql)]

        return self.journal.read(read)

    def exists(self, name: str) -> bool:
        return (self.workspace / name).exists()

    def commands(self) -> list[str]:
        """Those that the launcher has beside boxes."""
        return [path.name for path in (self.there.state / "boxes").glob("*-exec-*")]


@contextlib.asynccontextmanager
async def world(folder: Path, there: Place) -> AsyncIterator[World]:
    async with launching.connected(there) as runtime:
        made = World(folder, there, runtime)
        for name in ("a", "b"):
            seen = await runtime.start(
                there.make("sleep", "1000", uid=name, env={"A": "of the agent"}, cwd="/tmp")
            )
            assert seen.process is not None
            if name == "a":
                made.workspace = Path(f"/proc/{seen.process.pid}/root/workspace")
        try:
            yield made
        finally:
            await made.jobs.close()
            made.journal.close()
            for name in ("a", "b"):
                await runtime.remove(f"{name}-1")
                await runtime.release("default", name)


def living(test: Test) -> Callable[[Path, Place], None]:
    """A test in a world of its own."""

    @wraps(test)
    def run(tmp_path: Path, there: Place) -> None:
        async def flow() -> None:
            async with world(tmp_path, there) as made:
                await test(made)

        asyncio.run(flow())

    del run.__wrapped__  # type: ignore[attr-defined] # pytest would ask for its parameters
    return run


@living
async def test_python_is_the_language_when_none_is_named(made: World) -> None:
    told = await made.call("exec", code="import sys, os; print(os.getcwd(), __name__); sys.exit(3)")
    assert told.pop("durationSeconds") > 0
    assert told.pop("id")
    assert told == {
        "state": "Exited",
        "exitCode": 3,
        "reason": "Error",
        "stdout": "/workspace __main__\n",
        "stderr": "",
        "stdoutTruncated": False,
        "stderrTruncated": False,
    }


@living
async def test_shell_and_programs_run_with_the_agents_environment_and_more(made: World) -> None:
    told = await made.call(
        "exec", code="echo $A $B; pwd", language="shell", env={"B": "x"}, workingDir="/tmp"
    )
    assert told["stdout"] == "of the agent x\n/tmp\n"
    await made.call("exec", argv=["mkdir", "-p", "c/d"])
    told = await made.call("exec", argv=["pwd"], workingDir="c/d/../d")
    assert (told["stdout"], told["reason"]) == ("/workspace/c/d\n", "Completed")
    assert made.exists("c/d")


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
@pytest.mark.parametrize("pad", [0, 200_000])
def test_node_runs_short_and_long_code(tmp_path: Path, there: Place, pad: int) -> None:
    async def flow() -> Any:
        async with world(tmp_path, there) as made:
            code = f"-1; console.log(require('os').EOL.length, require('fs').readFileSync(0, 'utf8')) //{'x' * pad}"
            return await made.call("exec", code=code, language="node", stdin="hi")

    told = asyncio.run(flow())
    assert (told["stdout"], told["stderr"]) == ("1 hi\n", "")


@living
async def test_code_that_is_too_long_for_an_argument_runs_all_the_same(made: World) -> None:
    pad = "x" * 400_000
    code = f"# {pad}\nimport sys\nprint(len({pad!r}), sys.stdin.read(), __name__)"
    assert (await made.call("exec", code=code, stdin="hü"))["stdout"] == "400000 hü __main__\n"
    shell = f': {pad}\nread -r x; echo "got $x"\nexit 4'
    told = await made.call("exec", code=shell, language="shell", stdin="line\n")
    assert (told["stdout"], told["exitCode"]) == ("got line\n", 4)


@living
async def test_a_program_that_is_not_there_and_a_language_that_is_not_there(made: World) -> None:
    told = await made.call("exec", argv=["no-such-program"])
    assert (told["exitCode"], told["reason"]) == (127, "Error")
    with pytest.raises(errors.RuntimeRefused, match="there is no node in this jail") as caught:
        await made.call("exec", code="1", language="node", env={"PATH": "/nowhere"})
    assert "spec.environment" in caught.value.hint
    assert [record[2] for record in made.records()][-1] == "error"


@living
async def test_bytes_go_in_and_out_as_base64(made: World) -> None:
    data = bytes(range(256)) * 10
    stdin = base64.b64encode(data).decode()
    told = await made.call("exec", argv=["cat"], stdin=stdin, encoding="base64")
    assert base64.b64decode(told["stdout"]) == data
    with pytest.raises(errors.BadRequest, match="base64"):
        await made.call("exec", argv=["cat"], stdin="?", encoding="base64")
    assert (await made.call("exec", argv=["printf", "\\377"]))["stdout"] == "\ufffd"


@living
async def test_output_is_bounded_and_says_so_for_each(made: World) -> None:
    code = "import sys; print('a' * 50 + 'b' * 50, end=''); sys.stderr.write('c')"
    told = await made.call("exec", code=code, outputBytes=10)
    assert (told["stdout"], told["stdoutTruncated"]) == ("aaaaabbbbb", True)
    assert (told["stderr"], told["stderrTruncated"]) == ("c", False)


@living
async def test_the_largest_answer_fits_a_line(made: World) -> None:
    code = "import sys; [s.write('\\0' * (2 << 20)) for s in (sys.stdout, sys.stderr)]"
    told = await made.call("exec", code=code, outputBytes=2 << 20)
    assert told["stdoutTruncated"] and set(told["stdout"]) == {"\0"} and len(told["stdout"]) > 400_000
    assert len(made.journal.read(lambda conn: conn.execute("SELECT 1").fetchall())) == 1


@living
async def test_one_that_takes_too_long_is_killed_and_what_it_said_is_told(made: World) -> None:
    code = "import time; print('begun'); time.sleep(1000)"
    told = await made.call("exec", code=code, timeoutSeconds=1)
    assert (told["exitCode"], told["reason"], told["stdout"]) == (124, "DeadlineExceeded", "begun\n")


@living
async def test_limits_hold_and_are_never_above_the_agents(made: World) -> None:
    made.there.need_cgroups()
    code = "x = bytearray(100 << 20)"
    told = await made.call("exec", code=code, limits={"memory": "32Mi"})
    assert (told["exitCode"], told["reason"]) == (137, "OOMKilled")
    forks = "import os, time\nfor _ in range(50):\n  if os.fork() == 0: time.sleep(100)"
    assert (await made.call("exec", code=forks, limits={"pids": 8}))["reason"] == "PidsExceeded"
    for limits, field in (
        ({"memory": "1Gi"}, "memory"), ({"cpu": 2}, "cpu"), ({"pids": 65}, "pids"),
        ({"memory": "x"}, "memory"), ({"cpu": 0}, "cpu"), ({"memory": -1}, "memory"),
    ):  # fmt: skip
        with pytest.raises(errors.BadRequest) as caught:
            await made.call("exec", code=code, limits=limits)
        assert caught.value.field == f"params.limits.{field}"


@living
async def test_who_the_agent_is_cannot_be_changed_for_a_program(made: World) -> None:
    with pytest.raises(errors.BadRequest, match="agentk's own"):
        await made.call("exec", argv=["true"], env={"AGENTK_AGENT": "b"})
    with pytest.raises(errors.RuntimeRefused):
        await made.call("exec", argv=["true"], workingDir="/nowhere")


@living
async def test_output_is_heard_as_it_comes_and_the_result_is_whole(made: World) -> None:
    heard: list[Any] = []
    code = "print('one ü'); import os; os.write(1, b'\\xc3'); os.mkfifo('f'); open('f').read(); os.write(1, b'\\xbc')"
    call = made.begun(code=code, stream=True, heard=heard)
    await launching.holds(lambda: bool(heard) and made.exists("f"))
    assert not call.done()
    await made.call("exec", code="echo >f", language="shell")
    told = await call
    assert (told["stdout"], told["exitCode"]) == ("one ü\nü", 0)
    assert "".join(piece["stdout"] for piece in heard) == told["stdout"]
    few = await made.call("exec", argv=["seq", "1000"], stream=True, outputBytes=6, heard=heard)
    assert (few["stdout"], few["stdoutTruncated"]) == ("1\n200\n"[:3] + "00\n", True)


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


@living
async def test_a_policy_decides_by_language(made: World) -> None:
    made.rules = [{"name": "py", "effect": "Allow", "methods": ["exec"], "languages": ["python", "argv"]}]
    await made.call("exec", code="1")
    await made.call("exec", argv=["true"])
    with pytest.raises(errors.Denied):
        await made.call("exec", code="true", language="shell")


@living
async def test_what_cannot_be_is_refused_by_name(made: World) -> None:
    for params in (
        {}, {"code": "1", "argv": ["x"]}, {"argv": []}, {"argv": ["x"], "language": "python"},
        {"code": "1", "language": "perl"}, {"code": "1", "timeoutSeconds": 0}, {"code": "1", "user": "root"},
        {"code": "1", "background": True, "stream": True},
    ):  # fmt: skip
        with pytest.raises(errors.BadRequest):
            await made.call("exec", **params)


@living
async def test_a_repeated_key_runs_once(made: World) -> None:
    code = "echo x >>ran; cat ran"
    first = await made.call("exec", code=code, language="shell", key="k")
    assert await made.call("exec", code=code, language="shell", key="k") == first
    assert (await made.call("exec", argv=["cat", "ran"]))["stdout"] == "x\n"
