"""A Python that stays between calls of exec: real gate, real journal, real launcher, real jails."""

import asyncio
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from agentk.api import errors
from agentk.broker import sessions
from tests.broker.execing_rig import World, living
from tests.runtime import launching
from tests.runtime.launching import Place

pytestmark = launching.needs_jail


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


async def step(made: World, code: str, **params: Any) -> Any:
    return await made.call("exec", session="main", code=textwrap.dedent(code), **params)


class Heard(list[Any]):
    """What was streamed, and that something was."""

    def __init__(self) -> None:
        super().__init__()
        self.some = asyncio.Event()

    def append(self, one: Any) -> None:
        super().append(one)
        self.some.set()


async def waiting_step(made: World) -> tuple["asyncio.Task[Any]", Heard]:
    """A step that never ends, and has begun."""
    heard = Heard()
    code = "import time\nprint('waits', flush=True)\ntime.sleep(1000)"
    waiting = asyncio.create_task(made.call("exec", session="main", code=code, stream=True, heard=heard))
    await heard.some.wait()
    return waiting, heard


@living
async def test_what_a_step_made_is_there_for_the_next(made: World) -> None:
    told = await step(made, "import os\nx = 6\nprint('hi', os.getcwd(), os.environ['A'], __name__)\nx * 7")
    assert (told["stdout"], told["stderr"]) == ("hi /workspace of the agent __main__\n42\n", "")
    assert (told["exitCode"], told["reason"], told["session"]) == (0, "Completed", "New")
    told = await step(made, "def f(n):\n    return n / 0\n\nos.system('echo $A; echo err >&2')\nf(x)")
    assert told["stdout"] == "of the agent\n" and told["stderr"].startswith("err\nTraceback")
    assert (
        '"<step 2>", line 2, in f\n    return n / 0' in told["stderr"] and "session.py" not in told["stderr"]
    )
    assert (told["exitCode"], told["reason"], told["session"]) == (1, "Error", "Kept")
    told = await step(made, "x +")
    assert (told["exitCode"], told["session"]) == (1, "Kept") and "SyntaxError" in told["stderr"]
    told = await step(made, "print(x); raise SystemExit(3)")
    assert (told["stdout"], told["exitCode"], told["session"]) == ("6\n", 3, "Ended")
    told = await step(made, "'x' in globals()")
    assert (told["stdout"], told["session"]) == ("False\n", "New")
    assert made.records()[:2] == [("intent", "exec", ""), ("result", "exec", "ok")]


@living
async def test_what_takes_too_long_ends_its_session_and_nothing_else(made: World) -> None:
    await step(made, "x = 1")
    told = await step(made, "import time\nprint('began')\ntime.sleep(1000)", timeoutSeconds=1)
    assert (told["exitCode"], told["reason"], told["session"]) == (124, "DeadlineExceeded", "Ended")
    assert told["stdout"] == "began\n"
    told = await step(made, "open('/proc/1/cmdline').read()[:5], 'x' in globals()")
    assert told["session"] == "New" and told["stdout"].endswith("False)\n")
    assert (await made.call("exec", code="print(1)"))["stdout"] == "1\n"


@living
async def test_who_hangs_up_ends_the_session_and_the_next_begins_anew(made: World) -> None:
    await step(made, "x = 1")
    hung, heard = await waiting_step(made)
    after = asyncio.create_task(step(made, "'x' in globals()"))
    hung.cancel()
    await asyncio.wait((hung,))
    told = await after
    assert (told["stdout"], told["session"]) == ("False\n", "New") and heard == [{"stdout": "waits\n"}]


@living
async def test_code_that_lies_about_its_end_and_says_too_much_harms_itself_alone(made: World) -> None:
    told = await step(
        made,
        "import os\nos.write(1, b'\\0' + b'f' * 32 + b':0\\n')\nprint('a' * 5_000_000)",
        outputBytes=2000,
    )
    assert told["stdoutTruncated"] and len(told["stdout"]) == 2000 and told["stdout"].startswith("\0ffff")
    told = await step(made, "pid = os.fork()\nprint('child' if not pid else os.waitpid(pid, 0)[1])")
    assert sorted(told["stdout"].split()) == ["0", "child"]
    told = await step(made, "os.close(1)\nos.close(2)")
    assert told["session"] == "Kept"
    told = await step(made, "os.kill(os.getpid(), 9)")
    assert (told["exitCode"], told["session"]) == (137, "Ended")


STEALS = """
import os, sys
frame = sys._getframe()
while 'words' not in frame.f_locals:
    frame = frame.f_back
orders, word = frame.f_locals['orders'], frame.f_locals['words'][0]
def ends(word):
    for fd in (1, 2):
        os.write(fd, b'never ran\\0' + word + b':0\\n')
ends(word)
words = orders.readline().split()
orders.read(int(words[1]))
ends(words[0])
while True:
    os.write(1, b'x' * 65536)
"""


@living
async def test_code_that_takes_over_its_channel_answers_for_itself_alone(made: World) -> None:
    assert (await step(made, STEALS))["stdout"] == "never ran"
    assert (await step(made, "open('ran', 'w')"))["stdout"] == "never ran" and not made.exists("ran")
    assert (await made.call("exec", who="b", session="main", code="6 * 7"))["stdout"] == "42\n"
    told = await step(made, "1", timeoutSeconds=1, outputBytes=1000)
    assert (told["reason"], told["session"], len(told["stdout"])) == ("DeadlineExceeded", "Ended", 1000)
    told = await step(made, "import os, sys\nos.closerange(0, 99)\nsys.modules.clear()", timeoutSeconds=30)
    assert told["session"] == "Ended"
    told = await step(made, "open('ran', 'w').write('a')")
    assert (told["stdout"], told["session"]) == ("1\n", "New") and made.exists("ran")


@living
async def test_an_agent_has_one_and_what_is_not_for_a_step_is_refused(made: World) -> None:
    await step(made, "x = 1")
    with pytest.raises(errors.TooManyRequests, match="main"):
        await made.call("exec", session="other", code="1")
    assert (await made.call("exec", who="b", session="main", code="'x' in globals()"))["stdout"] == "False\n"
    for wrong in ({"stdin": "x"}, {"env": {"A": "b"}}, {"background": True}, {"workingDir": "/tmp"}):
        with pytest.raises(errors.BadRequest):
            await step(made, "1", **wrong)
    with pytest.raises(errors.BadRequest, match="Python"):
        await made.call("exec", session="main", code="ls", language="shell")
    await step(made, "exit()")
    assert (await made.call("exec", session="other", code="1"))["session"] == "New"


@living
async def test_it_tells_what_it_had_and_one_that_is_to_end_ends_between_two_steps(made: World) -> None:
    assert made.sessions.had("a-1") == []
    await step(made, "x = 1")
    await step(made, "x = 1")
    heard = Heard()
    waits = "import os, time\nprint(x)\nwhile not os.path.exists('go'):\n    time.sleep(0.05)"
    running = asyncio.create_task(step(made, waits, stream=True, heard=heard))
    after = asyncio.create_task(step(made, "'x' in globals()"))
    await heard.some.wait()
    assert made.sessions.had("a-1") == ["x = 1", waits]
    made.sessions.retire("a-1")
    (made.workspace / "go").touch()
    told = await running
    assert (told["stdout"], told["session"]) == ("1\n", "Ended")
    assert ((await after)["stdout"], made.sessions.had("a-1")) == ("False\n", ["'x' in globals()"])
    made.sessions.retire("a-1")
    assert made.sessions.had("a-1") == []
    await step(made, f"x = {'1' * sessions.HELD_LETTERS!r}")
    assert made.sessions.had("a-1") is None and made.sessions.had("b-1") == []


@living
async def test_nobody_uses_it_and_it_ends_and_with_its_agent_too(made: World) -> None:
    made.sessions._idle_seconds = 0.2
    await step(made, "x = 1")
    await made.sessions._open["a-1", "main"].left()
    made.sessions._idle_seconds = 600
    assert (await step(made, "'x' in globals()"))["stdout"] == "False\n"
    waiting, _ = await waiting_step(made)
    await made.runtime.remove("a-1")
    told = await waiting
    assert (told["exitCode"], told["session"]) == (137, "Ended")
    with pytest.raises(errors.AgentkError):  # the box is gone
        await step(made, "x = 3")
