"""Whatever a guest sends as AgentOS, it is answered, and the next one is answered too."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors
from agentk.broker.dialects.agentos_ids import NAMES_EACH, Ids, Names
from agentk.broker.dialects.agentos_recording import Recorder
from agentk.broker.dialects.agentos_words import Asked, Op, encoded
from agentk.broker.dialects.frames import PAYLOAD_BYTES
from tests.broker.agentos_world import World

FIELDS = [
    "prompt",
    "image",
    "tools",
    "command",
    "timeout",
    "cwd",
    "path",
    "content",
    "mode",
    "name",
    "script",
    "limits",
    "id",
    "message",
    "to",
    "to_name",
    "max",
    "key",
    "value",
    "scope",
    "ttl",
    "permissions",
    "level",
    "agent_id",
    "url",
    "method",
    "headers",
    "body",
    "async",
    "request_id",
    "event_types",
    "event_type",
    "data",
    "recording",
    "recording_data",
    "export",
    "max_entries",
    "filter_agents",
    "limit",
    "category",
    "since_id",
    "cgroup_path",
    "tokens",
    "restart_policy",
    "max_restarts",
    "restart_window",
    "python",
    "network",
    "sandboxed",
    "include_self",
    "prefix",
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["global", "*", "/"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
CALLS = st.tuples(
    st.sampled_from(list(Op)) | st.integers(0, 255),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6).map(lambda found: json.dumps(found).encode())
    | st.binary(max_size=40),
)


@given(calls=st.lists(CALLS, min_size=1, max_size=8))
def test_everything_is_answered(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[int, bytes]]
) -> None:
    async def scene() -> None:
        world = World(tmp_path_factory.mktemp("world"))
        try:
            world.agent("a")
            client = await world.client("uid-default-a")
            for opcode, payload in calls:
                reply = await asyncio.wait_for(client.raw(opcode, payload), 30)
                if opcode not in (Op.NOOP, Op.EXIT):
                    told: Any = json.loads(reply)
                    assert isinstance(told, list) or told["success"] or told["error"]
                    assert "internal error" not in str(told.get("error") if isinstance(told, dict) else "")
            assert await client.raw(Op.NOOP, b"still here") == b"still here"
        finally:
            await world.close()

    asyncio.run(scene())


@given(
    st.dictionaries(
        st.text(max_size=3), st.text(min_size=1, max_size=50).map(lambda text: text * 20_000), max_size=4
    )
)
def test_every_reply_fits_a_frame(reply: dict[str, Any]) -> None:
    data = encoded(reply)
    assert len(data) <= PAYLOAD_BYTES and isinstance(json.loads(data), dict)


def test_ids_are_never_shared_and_never_zero() -> None:
    alive = {f"u{n}" for n in range(30_000)}
    ids = Ids(alive.__contains__, kept=50_000)
    numbers = {ids.of(uid) for uid in alive}
    assert len(numbers) == len(alive) and 0 not in numbers
    assert all(ids.uid(ids.of(uid)) == uid for uid in alive) and ids.uid(1) in ("", *alive)
    assert ids.of("u7") == Ids(alive.__contains__).of("u7")  # also in the daemon after this one


def test_ids_of_who_is_gone_are_forgotten() -> None:
    ids = Ids(lambda uid: uid == "keep", kept=100)
    keep = ids.of("keep")
    for n in range(1000):
        ids.of(f"u{n}")
    assert len(ids._by_uid) <= 101 and len(ids._by_id) <= 101 and ids.of("keep") == keep


def test_names_are_freed_with_their_agent_and_bounded() -> None:
    alive = {"a", "b"}
    names = Names(alive.__contains__)
    assert (
        names.register("n", "x", "a") and not names.register("n", "x", "b") and names.register("m", "x", "b")
    )
    assert names.registered("n") == ["a"] and names.uid("n", "x") == "a" and names.of("a") == "x"
    for n in range(NAMES_EACH):
        assert names.register("n", f"more-{n}", "a")
    assert names.uid("n", "x") == "" and names.uid("n", "more-0") == "a"
    alive.discard("a")
    assert (
        names.uid("n", "more-0") == ""
        and names.register("n", "more-1", "b")
        and names.registered("n") == ["b"]
    )


def test_a_recording_is_bounded_and_fits_a_frame_when_told() -> None:
    recorder = Recorder()
    recorder.begin(Asked({"max_entries": 100}), 1)
    for n in range(200):
        recorder.note(Op.STORE, b'{"n": "%s"}' % (b'"' * 40_000), b"%d" % n, 1, 0.1)
    assert len(recorder) <= 100 and recorder.last_sequence_id == 200
    told = recorder.exported()
    assert json.loads(told)[-1]["sequence_id"] == 200
    assert len(encoded({"success": True, "recording": told})) <= PAYLOAD_BYTES
    with pytest.raises(errors.BadRequest):
        recorder.load(Asked({"recording": "[1]"}))
