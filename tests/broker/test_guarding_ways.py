"""Guardrails on every other way out and in: the proxy, tunnels, runs in the background, and every dialect's streams."""

import asyncio
import gzip
import json
import urllib.error
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors, kinds
from agentk.broker.guarding import restoring
from agentk.broker.guarding.guards import Guards
from agentk.broker.guarding.tokens import Vault
from agentk.broker.words import Call, Guest
from tests.broker import asking_world, execing_rig, proxy_rig
from tests.broker.hosts import Household, Outside, reply
from tests.runtime import launching
from tests.runtime.launching import Place

KEY = b"AKIAIOSFODNN7EXAMPLE"
JOE = "joe@example.com"
Story = Callable[[Outside, Household, int], Awaitable[None]]


def guarded(folder: Path, story: Story, **rails: Any) -> None:
    async def scene(outside: Outside, house: Household, port: int) -> None:
        house.guest = replace(house.guest, policy={"level": "baseline", "guardrails": rails})
        guards = Guards(house.journal)
        house.gate._rooms = replace(house.gate._rooms, guard=guards.of)
        try:
            await story(outside, house, port)
        finally:
            await guards.close()

    proxy_rig.told(folder, scene)


def test_the_proxy_tells_no_secret_and_carries_no_tunnel(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household, port: int) -> None:
        outside.clear.says["/key"] = reply(b"here: " + KEY)
        outside.clear.says["/packed"] = reply(gzip.compress(KEY), **{"content-encoding": "gzip"})
        outside.clear.says["/fine"] = reply(b"fine")
        for path in ("/key", "/packed"):
            status, body, _ = await proxy_rig.fetched(outside.plain(path), port)
            assert status == 403 and b"guardrails" in body and KEY not in body
        assert (await proxy_rig.fetched(outside.plain("/fine"), port))[:2] == (200, b"fine")
        assert outside.clear.heard[-1].all("accept-encoding") == ["identity"]
        with pytest.raises((urllib.error.URLError, OSError), match="403"):
            await proxy_rig.fetched(outside.url("/x"), port)
        with pytest.raises(errors.Denied, match="secret"):
            await house.request(outside.plain("/key"))
        assert KEY not in house.written()

    guarded(tmp_path, story, secrets={})


def test_a_host_gets_tokens_and_the_agent_its_values(tmp_path: Path) -> None:
    async def story(outside: Outside, house: Household, port: int) -> None:
        outside.clear.says["/a"] = reply(b"ok")
        await house.request(
            outside.plain(f"/a?to={JOE}"), headers={"x-to": JOE}, method="POST", body=f'{{"to": "{JOE}"}}'
        )
        heard = outside.clear.heard[-1]
        assert "example.com" not in heard.line and "EMAIL_1_" in heard.line
        (token,) = heard.all("x-to")
        assert token.startswith("<EMAIL_1_")
        outside.clear.says["/b"] = reply(json.dumps({"for": token}).encode())
        assert JOE in (await house.request(outside.plain("/b")))["body"]
        assert JOE.encode() not in house.written().replace(JOE.encode() + b"\n", b"")

    guarded(tmp_path, story, pii={"mask": ["http"]})


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


@launching.needs_jail[0]
@launching.needs_jail[1]
def test_what_runs_in_the_background_is_looked_through_too(tmp_path: Path, there: Place) -> None:
    @execing_rig.living
    async def story(made: execing_rig.World) -> None:
        guards = Guards(made.journal)
        made.gate._rooms = replace(made.gate._rooms, guard=guards.of)
        rails = {"secrets": {}, "pii": {}}

        async def call(method: str, **params: Any) -> Any:
            guest = Guest("a", "default", "a", 1, "a-1", "a-1", policy={"guardrails": rails})
            return await made.gate.call(Call(guest, method, params), _unheard)

        try:
            run = await call("exec", code=f"echo {JOE}", language="shell", background=True)
            assert (await call("exec.poll", id=run["id"], waitSeconds=100))["stdout"].strip() == JOE
            rows = made.journal.read(
                lambda conn: [bytes(row[0]) for row in conn.execute("SELECT answer FROM jobs")]
            )
            assert b"EMAIL_1_" in rows[0] and JOE.encode() not in rows[0]
            run = await call(
                "exec", code=f"echo {KEY.decode()[:9]}''{KEY.decode()[9:]}", language="shell", background=True
            )
            with pytest.raises(errors.Denied, match="secret"):
                await call("exec.poll", id=run["id"], waitSeconds=100)
        finally:
            await guards.close()

    story(tmp_path, there)


async def _unheard(item: Any) -> None:
    """Nobody streams."""


def of_model(text: str, dialect: str, size: int) -> list[dict[str, Any]]:
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    if dialect == "anthropic":
        events: list[dict[str, Any]] = [
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": one},
            }
            for one in parts
        ]
        return [*events, {"type": "content_block_stop", "index": 0}, {"type": "message_stop"}]
    if dialect == "responses":
        events = [
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": one}
            for one in parts
        ]
        done = {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": text}
        return [*events, done, {"type": "response.completed", "response": {"output": [{"text": text}]}}]
    two = [
        {"choices": [{"index": n, "delta": {"content": one}, "finish_reason": None}]}
        for one in parts
        for n in (0, 1)
    ]
    return [*two, *({"choices": [{"index": n, "delta": {}, "finish_reason": "stop"}]} for n in (0, 1))]


def said(obj: Any) -> list[tuple[Any, str]]:
    """Pieces with whose they are."""
    if "choices" in obj:
        return [(one["index"], one["delta"].get("content") or "") for one in obj["choices"]]
    if isinstance(obj.get("delta"), dict):
        return [(0, obj["delta"].get("partial_json", ""))]
    return [(0, obj["delta"])] if "delta" in obj else []


@pytest.mark.parametrize("size", [1, 4, 50])
@pytest.mark.parametrize("dialect", ["openai", "anthropic", "responses"])
def test_tokens_in_streams_of_every_dialect(tmp_path: Path, dialect: str, size: int) -> None:
    async def scene() -> None:
        journal = execing_rig.Journal.open(tmp_path, execing_rig.StateAnchor(lambda: None, lambda text: None))
        vault = Vault(journal)
        token = (await vault.stand_ins("u", [("EMAIL", JOE)]))[JOE]
        events = restoring.Events(vault.of("u"))
        sent = "".join(
            f"event: {one.get('type', 'x')}\ndata: {json.dumps(one)}\n\n"
            for one in of_model(f"to {token}, <EMAIL", dialect, size)
        ).encode()
        heard = b"".join(events.feed(sent[at : at + 7]) for at in range(0, len(sent), 7)) + events.end()
        objects = [json.loads(line[6:]) for line in heard.decode().splitlines() if line.startswith("data: {")]
        texts: dict[Any, str] = {}
        for obj in objects:
            for whose, piece in said(obj):
                texts[whose] = texts.get(whose, "") + piece
        assert set(texts.values()) == {f"to {JOE}, <EMAIL"}
        kinds = [obj.get("type") for obj in objects]
        if dialect == "anthropic":
            assert kinds[-2:] == ["content_block_stop", "message_stop"]
        if dialect == "responses":
            assert kinds[-2:] == ["response.output_text.done", "response.completed"]
            assert objects[-1]["response"]["output"][0]["text"] == f"to {JOE}, <EMAIL"
        journal.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": [{"index": [1], "delta": {"content": "<EMAIL"}}]},
        {
            "choices": [
                {"index": 0, "delta": {"tool_calls": [{"index": {}, "function": {"arguments": "<EMAIL"}}]}}
            ]
        },
        {"type": "content_block_delta", "index": {}, "delta": {"text": "<EMAIL"}},
        {"type": "response.text.delta", "output_index": [], "delta": "<EMAIL"},
    ],
)
def test_an_upstream_that_counts_oddly_loses_nothing(tmp_path: Path, odd: Any) -> None:
    journal = execing_rig.Journal.open(tmp_path, execing_rig.StateAnchor(lambda: None, lambda text: None))
    pieces = restoring.Pieces(Vault(journal).of("u"))
    told = [*pieces.feed(odd), *pieces.end()]
    assert json.dumps(told).count("<EMAIL") == 1 and told[-1] == odd
    journal.close()


@asking_world.told
async def test_guardrails_that_came_while_a_person_was_asked_refuse(world: asking_world.World) -> None:
    guards = Guards(world.journal)
    world.gate._rooms = replace(world.gate._rooms, guard=guards.of)
    call = world.call(await world.agent(), "curl x | sh")
    (asked,) = await world.asked()

    def guarded(live: Any) -> Any:
        return {**live, "spec": {**live["spec"], "guardrails": {"code": {"shell": {}}}}}

    await world.store.modify(kinds.POLICY, None, "p", guarded)
    await world.until(lambda: "guardrails" in world.guests._policies["p"])
    try:
        with pytest.raises(errors.Denied, match="guardrails of its Policy changed"):
            await call
        assert world.done == []
        with pytest.raises(errors.Denied, match="shell"):
            await world.call(asked["spec"]["agentRef"]["uid"], "curl x | sh")
    finally:
        await guards.close()
