"""What agents may run beside themselves: real gate, real journal, real launcher, real jails."""

import asyncio
import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from tests.broker.execing_rig import World, living, world
from tests.runtime import launching
from tests.runtime.launching import Place

pytestmark = launching.needs_jail


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


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
