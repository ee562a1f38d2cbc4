"""Personal data and secrets that hide: other letters, encoded, cut in two; and patterns that never end."""

import asyncio
import base64
from collections.abc import Awaitable, Callable

import pytest

from agentk.api import errors
from agentk.broker.guarding import limits, looking, rails
from agentk.broker.guarding.lookouts import Lookouts

PII = {"for": "pii", "detect": rails.DETECTORS, "patterns": [("EMPLOYEE", "EMP-[0-9]{6}")]}
SECRETS = {"for": "secrets", "entropy": True, "patterns": []}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("write joe@example.com, now", "joe@example.com"),
        ("ｊｏｅ＠example.com", "ｊｏｅ＠example.com"),
        ("jоe@exаmple.com", "jоe@exаmple.com"),
        ("j\u200boe@exam\u00adple.com", "j\u200boe@exam\u00adple.com"),
        ("?to=joe%40example.com", "joe%40example.com"),
        ("joe&#64;example.com", "joe&#64;example.com"),
        (r'{"a": "{\"b\": \"joe\\u0040example.com\"}"}', r"joe\\u0040example.com"),
        ("4111 1111 1111 1111", "4111 1111 1111 1111"),
        ("٤١١١-1111-1111-１１１１", "٤١١١-1111-1111-１１１１"),
        ("99 4111111111111111", "4111111111111111"),
        ("DE89 3704 0044 0532 0130 00 please", "DE89 3704 0044 0532 0130 00"),
        ("call +49 30 123456 or", "+49 30 123456"),
        ("(555) 123-4567", "(555) 123-4567"),
        ("219-09-9999", "219-09-9999"),
        ("NIF 12345678Z", "12345678Z"),
        ("RSSMRA85T10A562S", "RSSMRA85T10A562S"),
        ("EMP-123456", "EMP-123456"),
        ("am9lQGV4YW1wbGUuY29t", "am9lQGV4YW1wbGUuY29t"),
        (b"joe@example.com".hex(), b"joe@example.com".hex()),
    ],
)
def test_what_tells_of_a_person_is_found_however_it_is_spelled(text: str, found: str) -> None:
    ((start, end, _),) = looking.look([text], PII)[0]
    assert text[start:end] == found


@pytest.mark.parametrize(
    "text",
    ["4111 1111 1111 1112", "GB82 WEST 1234 5698 7654 33", "666-12-3456", "12345678A", "RSSMRA85T10A562T",
     "version 1.2.3.4 of 2024-01-02 12:33:44", "id 550e8400-e29b-41d4-a716-446655440000", "@decorator a.b"],
)  # fmt: skip
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert looking.look([text], PII) == [[]]


def test_what_is_cut_in_two_is_found_in_both() -> None:
    both = {**PII, "across": [0, 2]}
    assert looking.look(["mail joe@exam", "text", "ple.com now"], both) == [
        [(5, 13, "EMAIL")],
        [],
        [(0, 7, "EMAIL")],
    ]
    assert looking.look(["mail joe", "text", "Hello"], both) == [[], [], []]
    letters = [*"I am joe@example.com, who"]
    found = looking.look(letters, {**PII, "across": range(len(letters))})
    assert "".join(letter for letter, spans in zip(letters, found, strict=True) if spans) == "joe@example.com"
    ends = ["x" * 500 + " 4111 1111 11", "11 1111 and " + "y" * 500 + " joe@", "example.com"]
    first, second, third = looking.look(ends, {**PII, "across": [0, 1, 2]})
    assert (first, third) == ([(501, 513, "CARD")], [(0, 11, "EMAIL")])
    assert second == [(0, 7, "CARD"), (513, 517, "EMAIL")]


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "AKIA\u200bIOSFODNN7EXAMPLE",
        "ghp_" + "a1B2" * 9,
        "db_password: Xk29dkfjQz81",
        '{"api_key": "9f8a7b6c5d4e3f2a1b0c"}',
        "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
        base64.b64encode(b"here: AKIAIOSFODNN7EXAMPLE").decode(),
        base64.b64encode(b"x" * 60 + b" AKIAIOSFODNN7EXAMPLE " + b"y" * 60).decode()[:76]
        + "\n"
        + base64.b64encode(b"x" * 60 + b" AKIAIOSFODNN7EXAMPLE " + b"y" * 60).decode()[76:],
        b"AKIAIOSFODNN7EXAMPLE".hex(),
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "postgres://joe:hunter2@db.example.com/x",
    ],
)
def test_a_secret_is_found_however_it_is_spelled(text: str) -> None:
    assert looking.look([f"so: {text} ."], SECRETS) != [[]]


@pytest.mark.parametrize(
    "text",
    ["commit 5f2c8d9e0a1b2c3d4e5f60718293a4b5c6d7e8f9", "/usr/lib/python3.11/site-packages/Foo/bar_baz",
     "token: <redacted>", "the password is written in the vault", "some_function_name_that_is_rather_long_2"],
)  # fmt: skip
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert looking.look([text], SECRETS) == [[]]


def run(story: Callable[[Lookouts], Awaitable[None]]) -> None:
    async def scene() -> None:
        lookouts = Lookouts(seconds=1.0)
        try:
            await story(lookouts)
        finally:
            await lookouts.close()

    asyncio.run(scene())


def test_a_pattern_that_never_ends_refuses_and_holds_up_nobody() -> None:
    async def story(lookouts: Lookouts) -> None:
        endless = {**PII, "patterns": [("BAD", "(a+)+$")]}
        bad = asyncio.create_task(lookouts.look("bad", ["a" * 60 + "b"], endless))
        assert await lookouts.look("good", ["joe@example.com"], PII) == [[(0, 15, "EMAIL")]]
        with pytest.raises(errors.Denied, match="too long"):
            await bad
        assert await lookouts.look("bad", ["joe@example.com"], PII) == [[(0, 15, "EMAIL")]]

    run(story)


def test_code_made_to_break_its_reader_is_refused() -> None:
    async def story(lookouts: Lookouts) -> None:
        python = {"imports": [], "calls": ["eval"], "attributes": [], "unparsable": False, "dynamic": False}
        rules = {"bytes": 10**7, "python": python, "patterns": {}}
        for text in ("(" * 100_000, "-" * 100_000 + "1", "a" + ".b" * 200_000, "f'{" * 500):
            assert await lookouts.code("u", "python", text, [], "", rules)
        assert await lookouts.code("u", "python", "print(1)", [], "", rules) == []

    run(story)


def test_what_is_written_wrong_is_refused_with_its_field() -> None:
    for written, field in (
        ({"pii": {"patterns": [{"name": "A", "pattern": "("}]}}, "pii.patterns[0].pattern"),
        ({"pii": {"patterns": [{"name": "A", "pattern": "a*"}]}}, "pii.patterns[0].pattern"),
        ({"secrets": {"patterns": [{"name": "a", "pattern": "a"}]}}, "secrets.patterns[0].name"),
        ({"code": {"shell": {"deny": ["["]}}}, "code.shell.deny[0]"),
        ({"output": {"maxBytes": "no"}}, "output.maxBytes"),
    ):
        with pytest.raises(errors.Invalid) as refused:
            rails.read(written)
        assert refused.value.field == f"spec.guardrails.{field}"
    assert rails.of({"guardrails": {"nonsense": {}}}).broken  # type: ignore[union-attr]


def test_rates_count_for_those_above_and_pass_with_time() -> None:
    now = [100.0]
    rates, rate = limits.Rates(lambda: now[0]), rails.Rate(2, 100)
    rates.take(["child", "parent"], rate)
    rates.take(["other", "parent"], rate)
    with pytest.raises(errors.TooManyRequests) as refused:
        rates.take(["third", "parent"], rate)
    assert refused.value.retry_after_seconds == 60
    now[0] += 60
    rates.take(["third", "parent"], rate)
    rates.add_bytes(["third", "parent"], 100)
    with pytest.raises(errors.TooManyRequests, match="bytes"):
        rates.take(["child", "parent"], rate)
