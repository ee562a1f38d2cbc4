"""A few bytes of a guest must not cost everybody else: endless headers, lists of all sorts, many bodies at once."""

import asyncio
import gzip
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentk.api import crosschecks, errors, kinds
from agentk.broker import methods
from agentk.broker.calling import queues
from agentk.broker.dialects import asked, features, openai
from agentk.broker.dialects.agentos_words import Asked, Op
from agentk.broker.dialects.http_reading import Limits, Reader, Received, Refused, Request
from agentk.broker.egress_decoding import Decoding
from agentk.sdk import wire
from agentk.store import guest_items as items
from agentk.store import guest_rooms as rooms
from agentk.store import guest_schema
from tests.broker.agentos_world import World

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "begun", [b"0\r\nX: ", b"0\r\nX", b"1;extension="], ids=["value", "name", "extension"]
)
def test_what_follows_a_body_has_an_end(begun: bytes) -> None:
    """The parser keeps a trailer until it is whole, and copies it with every piece that comes."""
    reader = Reader(Limits(), by_unix=True)
    reader.feed(CHUNKED + begun)
    pieces = 0
    while reader.state != "over":
        reader.feed(b"a" * 65536)
        pieces += 1
        assert pieces <= 2
    assert reader.done[-1] == Refused(431, "headers_too_large", "headers are over 32768 bytes")


def test_a_long_body_in_large_and_in_small_pieces_is_no_trailer() -> None:
    reader = Reader(Limits(), by_unix=True)
    reader.feed(CHUNKED + b"%x\r\n" % 1_000_000)
    for _ in range(10):
        reader.feed(b"a" * 100_000)
    reader.feed(b"\r\n")
    for _ in range(50_000):
        reader.feed(b"1\r\nb\r\n")
    reader.feed(b"0\r\nChecksum: 1\r\n\r\n")
    (received,) = reader.done
    assert isinstance(received, Received) and len(received.request.body) == 1_050_000


@pytest.mark.parametrize("method", ["message.ack", "queue.ack"])
def test_a_list_without_equals_is_counted_before_its_items_are_compared(method: str) -> None:
    """Of a number and a text neither is the smaller, so each would be compared with all others: for hours."""
    ids = [str(number) if number % 2 else number for number in range(99_000)]
    with pytest.raises(errors.BadRequest, match=r"params\.ids"):
        methods.parser(method)({"ids": ids, **({"queue": "q"} if method == "queue.ack" else {})})


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("hello", {f"p{number}": 1 for number in range(90_000)}),
        ("exec", {"code": "x", "limits": {f"p{number}": 1 for number in range(90_000)}}),
        ("exec", {"code": "x", "env": {f"p{number}": 1 for number in range(90_000)}}),
        ("event.subscribe", {"types": [1] * 90_000}),
    ],
)
def test_what_holds_too_much_is_refused_by_its_number(method: str, params: dict[str, Any]) -> None:
    with pytest.raises(errors.BadRequest) as refused:
        methods.parser(method)(params)
    assert refused.value.causes[0].message.endswith((": at most 100", ": at most 200", ": at most 50"))


def test_a_key_that_comes_twice_is_found_in_one_pass() -> None:
    """The last of a hundred thousand, which was looked for as often as there are keys."""
    keys = ",".join(f'"k{number}":1' for number in range(98_000))
    with pytest.raises(wire.Refused, match="key 'k97999' twice"):
        wire.decode(f'{{{keys},"k97999":1}}'.encode(), wire.VALUES)


def test_one_answer_holds_few_values_however_short_they_are_written() -> None:
    """Four megabytes of brackets are a million lists, read while all other agents wait."""
    conn = sqlite3.connect(":memory:")
    for statement in (*guest_schema.TABLES, *guest_schema.TRIGGERS):
        conn.execute(statement)
    dense = ("[" + "[]," * 3_000).rstrip(",").encode() + b"]"
    for number in range(10):
        items.put(conn, items.Put("s", "q", f"{number}", "u", dense, 0.0), rooms.Bound(100, 1 << 20))
    items.put(conn, items.Put("s", "r", "alone", "u", dense * 10, 0.0), rooms.Bound(100, 1 << 20))
    most = items.Take("s", "q", 100, queues.ANSWER_BYTES, queues.ANSWER_VALUES, 1.0, 2.0)
    assert [one.id for one in items.take(conn, most)] == ["0", "1", "2"]
    assert [one.id for one in items.take(conn, replace(most, name="r"))] == ["alone"]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("agent.list", {"limit": 2.0}),
        ("state.list", {"limit": 2.0}),
        ("queue.get", {"queue": "q", "max": 1.0}),
        ("exit", {"code": True}),
    ],
)
def test_a_count_is_a_whole_number_and_no_other(method: str, params: dict[str, Any]) -> None:
    """2.0 was one to the schema and none to the handler: an internal error, and a traceback in the daemon's log."""
    with pytest.raises(errors.BadRequest, match="expected integer"):
        methods.parser(method)(params)


def test_very_many_files_of_a_spawned_agent_are_not_compared_with_each_other() -> None:
    """A megabyte of names took minutes of a thread; a few such calls took all threads there are."""
    files = {f"{number}/x": "" for number in range(50_000)} | {"7": "", "deep/er": "", "deep/er/x/y": ""}
    obj = {
        "apiVersion": "agentk.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "a", "namespace": "d"},
        "spec": {"command": ["x"], "source": {"inline": {"files": files}}},
    }
    found = [one for one in crosschecks.check(kinds.AGENT, obj) if "is a file too" in one.message]
    assert {one.path[-1] for one in found} == {"7/x", "deep/er/x/y"}


def test_every_list_without_equals_has_a_small_number() -> None:
    for name, described in methods.described().items():
        for key, field in described["params"]["properties"].items():
            assert not field.get("uniqueItems") or field["maxItems"] <= 1000, (name, key)


def test_a_key_is_looked_at_once_however_much_stands_under_it() -> None:
    """The key of every value was searched for each value: a long one over very many took hours."""
    body = {"messages": [], "a" * 4_000_000: list(range(90_000)), "x_file_ids": [1]}
    assert features.found(body, openai.READING) == {features.FILE_IDS}


def test_only_texts_to_embed_come_as_very_many_values() -> None:
    def request(field: str) -> Request:
        body = json.dumps({"model": "m", field: [1] * 200_000}).encode()
        return Request("POST", "/x", headers={"content-type": "application/json"}, body=body)

    assert asked.asked(request("input"), "openai.embeddings").method == "embed"
    with pytest.raises(errors.BadRequest, match="more than 50000 values"):
        asked.asked(request("messages"), "openai.chat")


def test_an_answer_packed_in_pieces_that_hold_nothing_is_refused() -> None:
    """Each piece makes a new unpacker and copies the rest: a full second for a few megabytes."""
    with pytest.raises(errors.UpstreamError, match="hold nothing"):
        list(Decoding("gzip").feed(gzip.compress(b"") * 4_000))
    packed = b"".join(gzip.compress(b"%d," % number) + gzip.compress(b"") for number in range(1_000))
    assert b"".join(Decoding("gzip").feed(packed)).count(b",") == 1_000


def test_numbers_that_no_float_holds_are_numbers() -> None:
    assert Asked({"max": 10**400}).whole("max", 1, 1, 50) == 50
    assert Asked({"max": -(10**400)}).whole("max", 1, 1, 50) == 1
    with pytest.raises(errors.BadRequest):
        Asked({"max": float("inf")}).whole("max", 1, 1, 50)


def test_a_replay_lets_others_have_their_turn(tmp_path: Path) -> None:
    """Calls that wait for nothing, tens of thousands in one frame."""

    async def main() -> None:
        world = World(tmp_path)
        try:
            client = await world.client(world.agent("a"))
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            beside = asyncio.create_task(other())
            recording = [{"opcode": Op.NOOP, "payload": ""}] * 10_000
            await client.ask(Op.REPLAY_START, recording=recording)
            while (told := await client.ask(Op.REPLAY_STATUS))["state"] == "RUNNING":
                pass
            beside.cancel()
            assert told["entries_replayed"] == 10_000
            assert turns > 10_000 // 32
        finally:
            await world.close()

    asyncio.run(asyncio.wait_for(main(), 60))
