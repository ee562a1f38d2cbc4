"""Guardrails at the gate, with a real model's provider, programs and hosts behind it: who gets to see what."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from agentk.api import errors
from agentk.broker import gate, policy
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.guarding.guards import Guards
from agentk.broker.methods import Context, Done, Method, Params
from agentk.broker.words import Call, Guest
from tests.broker import hosts
from tests.broker import thinking_rig as rigs
from tests.llm.upstreams import Upstream, answers, chat, chunk, streams

JOE = "joe@example.com"
CARD = "4111 1111 1111 1111"
KEY = "AKIAIOSFODNN7EXAMPLE"


def about(guest: Guest, params: Params) -> policy.Facts:
    return policy.Facts(
        language="python", target="default/b", host="x.example", port=443, http_method="GET", tool="t/t"
    )


class World(rigs.World):
    """One guest with guardrails; `said` is what a program or a host answers it."""

    said: Any
    given: list[Params]

    def guard(self, **rails: Any) -> "World":
        self.given = []
        self.guest = replace(rigs.GUEST, policy={"level": "baseline", "guardrails": rails})
        self.began = 0  # of what was given, where its session begins
        self.guards = Guards(self.journal, now=lambda: 0.0, stays=self)

        async def done(context: Context, params: Params) -> Done:
            self.given.append(params)
            for item in params.get("pieces", ()):
                await context.emit(item)
            return Done(self.said)

        names = ("exec", "tool.call", "http.request", "message.send", "state.put")
        for child in ("child", "another"):
            self.budgets.put(child, Owner("agent", child), Limits(), 0.0)
        made = {name: Method(name, "effect", dict, done, about) for name in names}
        rooms = self.gate._rooms
        rooms = replace(rooms, methods={**rooms.methods, **made}, guard=self.guards.of)
        self.gate = gate.Gate(rooms)
        return self

    def had(self, box_id: str) -> list[str]:
        return [one["code"] for one in self.given[self.began :] if "session" in one]

    def retire(self, box_id: str) -> None:
        self.began = len(self.given)

    def written(self) -> bytes:
        """All that the journal has of what was said."""

        def read(conn: Any) -> bytes:
            told = b""
            for table in ("records", "bodies"):
                for row in conn.execute(f"SELECT * FROM {table}"):
                    for value in row:
                        data = value if isinstance(value, bytes) else str(value).encode()
                        told += data + b"\n" + hosts._unpacked(data)
            return told

        return self.journal.read(read)

    async def ask(self, method: str, key: str = "", form: str = "", who: str = "u", **params: Any) -> Any:
        guest = replace(self.guest, uid=who, parents=() if who == "u" else ("u",))
        return await self.gate.call(Call(guest, method, params, form=form, key=key), self.emit)


def story(*handlers: Any, **rails: Any) -> Callable[[Callable[..., Awaitable[None]]], Callable[[], None]]:
    def told(tell: Callable[..., Awaitable[None]]) -> Callable[[], None]:
        def test() -> None:
            async def scene() -> None:
                async with rigs.rig(*handlers) as (up, made):
                    made.__class__ = World
                    world: Any = made
                    world.guard(**rails)
                    try:
                        await tell(up, world)
                    finally:
                        await world.guards.close()

            asyncio.run(scene())

        test.__name__ = tell.__name__
        return test

    return told


async def _echo(request: Any) -> Any:
    body = await request.json()
    text = json.dumps(body.get("messages") or body.get("input"))
    tokens = [part.partition(">")[0] for part in text.split("<")[1:]]
    return await answers(chat("I know " + " and ".join(f"<{one}>" for one in tokens)))(request)


@story(_echo, pii={})
async def test_a_model_gets_tokens_and_the_agent_its_values(up: Upstream, world: World) -> None:
    told = await world.ask("think", prompt=f"Write to {JOE}, he pays with {CARD}. {JOE}!")
    sent = up.seen[0].body["messages"][0]["content"]
    assert JOE not in sent and "4111" not in sent
    first, second = sent.split("<")[1].partition(">")[0], sent.split("<")[3].partition(">")[0]
    assert first == second and first.startswith("EMAIL_1_")
    assert told["text"] == f"I know {JOE} and {CARD} and {JOE}"
    again = Guards(world.journal).of(Call(world.guest, "think", {}), "think")  # a daemon that begins anew
    assert again is not None and again.again(f"<{first}>") == JOE
    other = replace(world.guest, uid="other")
    stranger = world.guards.of(Call(other, "think", {}), "think")
    assert stranger is not None and stranger.again(f"<{first}>") == f"<{first}>"


HIDDEN: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": [
        {"type": "text", "text": "joe@exam"}, {"type": "text", "text": "ple.com"}]}]},
    {"messages": [{"role": "user", "content": "I am joe@exam"}, {"role": "user", "content": "ple.com"}]},
    {"messages": [{"role": "user", "content": '{"a": "{\\"b\\": \\"joe@example.com\\"}"}'}]},
    {"messages": [{"role": "user", "content": base64.b64encode(JOE.encode()).decode()}]},
    {"messages": [{"role": "user", "content": "j\u200bоe＠example.com"}]},
    {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({JOE: CARD})}}]},
        {"role": "tool", "tool_call_id": "c", "content": "ok"}]},
    {"prompt": "x", "system": f"He is {JOE}"},
]  # fmt: skip


@pytest.mark.parametrize("params", HIDDEN)
def test_nothing_of_it_reaches_the_model_however_it_is_put(params: dict[str, Any]) -> None:
    @story(answers(chat("ok")), pii={})
    async def scene(up: Upstream, world: World) -> None:
        await world.ask("think", **params)
        sent = json.dumps(up.seen[0].body, ensure_ascii=False)
        for part in ("example.com", "exam", "ple.com", "am9l", "4111"):
            assert part not in sent, sent

    scene()


def test_anthropic_gets_no_numbers_either() -> None:
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn"}
    usage = {"input_tokens": 1, "output_tokens": 1}

    async def scene() -> None:
        handler = answers(
            {**message, "stop_sequence": None, "usage": usage, "content": [{"type": "text", "text": "ok"}]}
        )
        async with rigs.rig(handler, model="anthropic/claude-sonnet-4-5", end="", name="gpt") as (up, made):
            made.__class__ = World
            world: Any = made
            world.guard(pii={})
            use = {"type": "tool_use", "id": "t", "name": "pay", "input": {"card": 4111111111111111, JOE: 12}}
            result = {
                "type": "tool_result",
                "tool_use_id": "t",
                "content": [{"type": "text", "text": f"paid by {JOE}"}],
            }
            messages = [{"role": "user", "content": "pay"}, {"role": "assistant", "content": [use]},
                        {"role": "user", "content": [result]}]  # fmt: skip
            system = [{"type": "text", "text": f"The customer is {JOE}"}]
            body = {"model": "gpt", "max_tokens": 9, "system": system, "messages": messages}
            await world.ask("think", form="anthropic.messages", **body)
            sent = json.dumps(up.seen[0].body)
            assert "4111" not in sent and JOE not in sent and '"max_tokens": 9' in sent and ": 12}" in sent
            await world.guards.close()

    asyncio.run(scene())


@story(
    answers(
        {
            "object": "list",
            "model": "m",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
    ),
    pii={},
)
async def test_what_is_embedded_has_tokens(up: Upstream, world: World) -> None:
    told = await world.ask("embed", input=[f"of {JOE}"])
    assert told["embeddings"] == [[0.5]] and up.seen[0].body["input"][0].startswith("of <EMAIL_1_")


@story(answers(chat("ok")), pii={"mask": ["model"]})
async def test_the_journal_has_tokens_and_a_repeated_call_its_values(up: Upstream, world: World) -> None:
    world.said = {"stdout": f"found {JOE}", "stderr": ""}
    told = await world.ask("exec", key="k", code=f"print('{JOE}')")
    assert told["stdout"] == f"found {JOE}" and world.given[0]["code"] == f"print('{JOE}')"
    assert await world.ask("exec", key="k", code=f"print('{JOE}')") == told
    assert len(world.given) == 1
    await world.ask("state.put", key2="x", value={"deep": [JOE]})
    written = world.written()
    assert b"EMAIL_1_" in written and JOE.encode() not in written


_STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


def pieces(text: str, size: int) -> list[bytes]:
    return [chunk({"content": text[at : at + size]}) for at in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_a_token_in_pieces_is_put_together(size: int) -> None:
    async def answer(request: Any) -> Any:
        sent = (await request.json())["messages"][0]["content"]
        text = f"a <b> {sent} & <"
        parts = [*pieces(text, size), _STOP, b"data: [DONE]\n\n"]
        return await streams(*parts)(request)

    @story(answer, pii={})
    async def scene(up: Upstream, world: World) -> None:
        told = await world.ask("think", prompt=JOE, stream=True)
        assert up.seen[0].body["messages"][0]["content"] != JOE
        assert "".join(one.get("text", "") for one in world.emitted) == f"a <b> {JOE} & <" == told["text"]
        world.emitted.clear()
        body = {"model": "gpt", "messages": [{"role": "user", "content": JOE}], "stream": True}
        await world.ask("think", form="openai.chat", **body)
        events = b"".join(one for one in world.emitted if isinstance(one, bytes)).decode().split("\n\n")
        told = "".join(_content(one) for one in events)
        assert told == f"a <b> {JOE} & <" and events[-2] == "data: [DONE]"

    scene()


def _content(event: str) -> str:
    data = event.removeprefix("data: ")
    if not data.startswith("{"):
        return ""
    choices = json.loads(data)["choices"]
    return str(choices[0]["delta"].get("content") or "") if choices else ""


async def _calls_back(request: Any) -> Any:
    sent = (await request.json())["messages"][0]["content"]
    made = chat(f"to {sent}")
    call = {
        "id": "c",
        "type": "function",
        "function": {"name": "mail", "arguments": json.dumps({"to": sent})},
    }
    made["choices"][0]["message"]["tool_calls"] = [call]
    return await answers(made)(request)


@story(_calls_back, pii={"patterns": [{"name": "QUOTED", "pattern": 'Q"[0-9]+"'}]})
async def test_values_in_arguments_are_json(up: Upstream, world: World) -> None:
    body = {"model": "gpt", "messages": [{"role": "user", "content": 'Q"12"'}]}
    told = json.loads((await world.ask("think", form="openai.chat", **body))["body"])
    message = told["choices"][0]["message"]
    assert message["content"] == 'to Q"12"'
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"to": 'Q"12"'}
    assert 'Q"' not in up.seen[0].body["messages"][0]["content"]


@story(pii={"mask": ["tool", "http", "message"]})
async def test_tools_hosts_and_others_get_tokens_when_asked_to(up: Upstream, world: World) -> None:
    world.said = {"content": [{"type": "text", "text": "nothing"}], "isError": False}
    await world.ask("tool.call", name="mail", arguments={"to": [JOE], "deep": {"x": json.dumps({"y": JOE})}})
    given = json.dumps(world.given[0])
    assert JOE not in given and "EMAIL_1_" in given
    world.said["content"][0]["text"] = "sent to " + world.given[0]["arguments"]["to"][0]
    told = await world.ask("tool.call", name="mail", arguments={})
    assert told["content"][0]["text"] == f"sent to {JOE}"
    world.said = {"status": 200, "body": "", "headers": {}}
    data = base64.b64encode(JOE.encode()).decode()
    await world.ask(
        "http.request", url=f"https://x.example/a?m={JOE}", headers={"x": JOE}, body=data, encoding="base64"
    )
    given = json.dumps(world.given[-1])
    assert JOE not in given and data not in given and "x.example" in given and "%3CEMAIL" in given
    await world.ask("message.send", to="b", body={"hello": JOE})
    assert JOE not in json.dumps(world.given[-1])


@story(secrets={})
async def test_a_secret_in_an_answer_is_blocked_wherever_it_comes_from(up: Upstream, world: World) -> None:
    encoded = base64.b64encode(f"key {KEY}".encode()).decode()
    for said, method in (
        ({"stdout": f"x {KEY}", "stderr": ""}, "exec"),
        ({"stdout": "", "stderr": KEY.encode().hex()}, "exec"),
        ({"content": [{"type": "text", "text": encoded}], "isError": False}, "tool.call"),
        ({"stdout": KEY[:9], "stderr": KEY[9:]}, "exec"),
        (
            {
                "content": [{"type": "text", "text": KEY[:7]}, {"type": "text", "text": KEY[7:]}],
                "isError": False,
            },
            "tool.call",
        ),
        ({"content": [], "structured": {"a": [{"b": KEY}]}, "isError": False}, "tool.call"),
        ({"status": 200, "headers": {"x-key": KEY}, "body": ""}, "http.request"),
        ({"status": 200, "headers": {}, "body": encoded, "encoding": "base64"}, "http.request"),
    ):
        world.said = said
        with pytest.raises(errors.Denied, match="secret"):
            await world.ask(method, url="https://x.example/", arguments={}, code="x")
    with pytest.raises(errors.Denied, match="secret"):
        await world.ask("message.send", to="b", body=["AKIA\u200bIOSFODNN7EXAMPLE"])
    assert all(one.get("to") != "b" for one in world.given)
    written = world.written()
    assert KEY.encode() not in written


@story(secrets={"action": "Mask"}, output={"maxBytes": 100})
async def test_a_stream_is_held_until_it_was_looked_through(up: Upstream, world: World) -> None:
    world.said = {"stdout": f"a {KEY} b", "stderr": ""}
    told = await world.ask("exec", code="x", pieces=[{"stdout": "a AKIAIOSF"}, {"stdout": "ODNN7EXAMPLE b"}])
    assert world.emitted == [{"stdout": "a [secret removed] b"}]
    assert told["stdout"] == "a [secret removed] b"
    world.said = {"stdout": "x" * 5000, "stderr": "y" * 5000, "stdoutTruncated": False}
    told = await world.ask("exec", code="x", outputBytes=4096)
    assert world.given[-1]["outputBytes"] == 100
    assert (told["stdout"], told["stderr"], told["stdoutTruncated"]) == ("x" * 100, "", True)
    world.said = {
        "content": [{"type": "text", "text": "z" * 5000}],
        "structured": {"a": "b" * 500},
        "isError": False,
    }
    told = await world.ask("tool.call", arguments={})
    assert len(json.dumps(told)) < 300 and "structured" not in told
    with pytest.raises(errors.TooLarge):
        await world.ask("message.send", to="b", body="m" * 101)


@story(rate={"callsPerMinute": 2})
async def test_a_rate_is_not_got_around_by_children(up: Upstream, world: World) -> None:
    world.said = {"stdout": "", "stderr": ""}
    await world.ask("exec", code="x")
    await world.ask("exec", code="x", who="child")
    for who in ("u", "child", "another"):
        with pytest.raises(errors.TooManyRequests, match="2 calls"):
            await world.ask("exec", code="x", who=who)
    assert len(world.given) == 2


@story(code={"python": {}})
async def test_code_of_a_session_is_looked_at_with_all_that_it_had_before(up: Upstream, world: World) -> None:
    world.said = {"stdout": "", "stderr": ""}

    async def step(code: str) -> None:
        await world.ask("exec", code=code, session="s")

    trick = "o.system('id')"
    await world.ask("exec", code=trick)  # alone it is of nobody knows whom
    await step("import os as o\nx = 1")
    for session in ("s", "another"):
        with pytest.raises(errors.Denied, match="with the steps before it, python, line 3"):
            await world.ask("exec", code=trick, session=session)
    await step("x + 1")
    await step("x + 1")
    long = f"x = {'1' * 262_130!r}"
    with pytest.raises(errors.Conflict, match=r"letters of code: it ends.*the next begins another"):
        await step(long)
    await step(long)
    await step("x + 1")
    with pytest.raises(errors.Denied, match="more than"):
        await step(f"{long}000000000000")


@story()
async def test_a_policy_that_changes_holds_for_the_next_piece_and_ends_what_it_forbids(
    up: Upstream, world: World
) -> None:
    world.said = {"stdout": "", "stderr": ""}
    world.guest = replace(world.guest, policy={"level": "baseline"})
    await world.ask("exec", code="import socket", session="s")
    await world.ask("exec", code="x = 1", session="s")
    world.guest = replace(
        world.guest, policy={"guardrails": {"code": {"python": {"denyImports": ["socket"]}}}}
    )
    with pytest.raises(errors.Conflict, match=r"not allowed by now .*import of socket is not allowed"):
        await world.ask("exec", code="x + 1", session="s")
    await world.ask("exec", code="x = 2", session="s")
    with pytest.raises(errors.Denied, match="import of socket"):
        await world.ask("exec", code="import socket", session="s")


@story(code={"python": {}})
async def test_code_is_refused_before_it_runs_and_on_record(up: Upstream, world: World) -> None:
    world.said = {"stdout": "", "stderr": ""}
    with pytest.raises(errors.Denied, match="line 2: import of subprocess"):
        await world.ask("exec", code="x = 1\nimport subprocess", language="python")
    await world.ask("exec", code="print(1)", language="python")
    assert [one["code"] for one in world.given] == ["print(1)"]
    assert [status for *_, status in world.records()] == ["denied", "", "ok"]


@story(nonsense={})
async def test_guardrails_that_cannot_be_read_let_nothing_pass(up: Upstream, world: World) -> None:
    with pytest.raises(errors.Denied, match="cannot be read"):
        await world.ask("think", prompt="x")
    assert not up.seen


def test_deep_and_huge_things_are_refused_rather_than_passed() -> None:
    @story(answers(chat("ok")), pii={})
    async def scene(up: Upstream, world: World) -> None:
        deep: Any = JOE
        for _ in range(300):
            deep = [deep]
        with pytest.raises(errors.Denied, match="too deep"):
            await world.ask("state.put", value=deep)
        many = " ".join(f"a{number}@example.com" for number in range(30_000))
        with pytest.raises(errors.Denied, match="20000"):
            await world.ask("think", prompt=many)
        assert not up.seen and not world.given

    scene()
