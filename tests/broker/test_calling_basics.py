"""hello, noop and log, through a gate."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors
from agentk.broker.calling import basics
from agentk.broker.methods import described
from tests.broker import tenants

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=10,
)


def call(
    folder: Path, method: str, spec: dict[str, Any] | None = None, **params: Any
) -> tuple[Any, list[tuple[str, bytes]]]:
    said: list[tuple[str, bytes]] = []

    async def write(box_id: str, line: bytes) -> None:
        said.append((box_id, line))

    async def whole() -> Any:
        there = tenants.Tenants(folder)
        ann = tenants.agent("ann")
        there.hear({**ann, "spec": {**ann["spec"], **(spec or {})}})
        there.methods.update(
            basics.methods(
                version="1.2", names=lambda: list(there.methods), write=write, agent=there.guests.of
            )
        )
        try:
            return await there.call("ann", method, **params)
        finally:
            await there.aclose()

    return asyncio.run(whole()), said


def test_hello_tells_who_one_is_and_what_there_is(tmp_path: Path) -> None:
    told, _ = call(tmp_path, "hello", client="test")
    assert set(described()["hello"]["result"]["required"]) <= set(told)
    assert (told["agent"], told["namespace"], told["uid"], told["attempt"]) == ("ann", "d", "uid-ann", 1)
    assert {"hello", "noop", "log", "state.put", "message.send"} <= set(told["methods"])


def test_who_a_client_says_it_is_goes_to_the_log_on_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "agentk.broker.calling.basics")
    call(tmp_path, "hello", client='me "1"\n\x1b[2J')
    assert [one.getMessage() for one in caplog.records] == [r'd/ann, attempt 1: client "me \"1\"\n\u001b[2J"']


def test_task_tells_what_is_to_be_done(tmp_path: Path) -> None:
    assert call(tmp_path, "task")[0] == {"given": False}
    asked = {"sort": ["b", None, "a"], "deep": {"null": None}}
    assert call(tmp_path, "task", spec={"task": asked})[0] == {"given": True, "task": asked}
    assert call(tmp_path, "task", spec={"task": None})[0] == {"given": True, "task": None}


def test_noop_answers_what_it_was_given(tmp_path: Path) -> None:
    assert call(tmp_path, "noop", payload=None)[0] == {"payload": None}
    assert call(tmp_path, "noop")[0] == {}
    with pytest.raises(errors.TooLarge):
        call(tmp_path, "noop", payload="x" * 1048576)


def test_log_writes_one_line_for_this_box(tmp_path: Path) -> None:
    told, said = call(tmp_path, "log", message="done", fields={"n": 1, "to": "bob", "x": {"a": [1]}})
    assert told == {}
    assert said == [("uid-ann-1", b'level=info msg="done" n=1 to=bob x={"a":[1]}')]


@given(st.text(), st.dictionaries(st.text(), JSON, max_size=4))
def test_whatever_is_said_is_one_printable_line(message: str, fields: dict[str, Any]) -> None:
    line = basics.written("info", message, fields).decode()
    assert line.isprintable() and line.startswith('level=info msg="')
