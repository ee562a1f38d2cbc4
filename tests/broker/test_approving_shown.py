"""What a person is shown of a call: bounded whatever a guest sends, and what is left out is said."""

import json
from typing import Any

import pytest

from agentk.api import shaping
from agentk.broker import approving_likeness as likeness
from agentk.broker import approving_shown as showing

DEEP: Any = "end"
for _ in range(90):
    DEEP = {"a": [DEEP]}


@pytest.mark.parametrize(
    "asked",
    [
        {"code": "x" * 8_000_000},
        {"code": "\ud800\0\u202e"},
        {"\0\ud800": {"\0": 1}},
        {"a": DEEP},
        {"a": list(range(99_000))},
        {str(number): "y" for number in range(90_000)},
        {"k" * 100_000: 1},
        {"a": [10**4000] * 200},
        {"a": "é✓\x01" * 100_000, "b": ["\x01" * 50] * 5000},
        {"a": [["z" * 300] * 150] * 150},
    ],
    ids=["long", "letters", "keys", "deep", "many", "wide", "key", "numbers", "escapes", "square"],
)
def test_whatever_a_guest_sends_fits_an_object(asked: dict[str, Any]) -> None:
    body = json.dumps(asked).encode()
    told, hidden = showing.shown(body)
    clean = showing.clean(told)
    assert len(json.dumps(clean, ensure_ascii=False).encode()) <= 2 * showing.SHOWN_BYTES
    assert shaping.scan(clean) == []
    assert bool(hidden) == (told != json.loads(body))
    line = showing.summary("exec", clean)
    assert len(line) <= 400 and line.isprintable()


def test_the_end_of_a_long_text_is_shown_too() -> None:
    told, hidden = showing.shown(json.dumps({"code": "begin" + "x" * 500_000 + "rm -rf /"}).encode())
    assert told["code"].startswith("begin") and told["code"].endswith("rm -rf /")
    assert "letters are not shown" in told["code"] and hidden > 400_000


def test_no_argument_is_hidden_behind_another() -> None:
    padding = {f"a{number}": "x" * 100_000 for number in range(20)}
    told, _ = showing.shown(json.dumps({**padding, "z": "rm -rf /", "zz": "y" * 1000}).encode())
    assert told["z"] == "rm -rf /" and told["zz"] == "y" * 1000 and len(told["a7"]) > 1000


def test_what_is_no_json_any_more_is_shown_as_it_is() -> None:
    """A secret that was taken out may have taken a quote with it."""
    assert showing.shown(b'{"code": [redacted]}') == ({"text": '{"code": [redacted]}'}, 0)


@pytest.mark.parametrize(
    ("method", "arguments", "line"),
    [
        ("exec", {"argv": ["git", "push"]}, "exec: git push"),
        ("exec", {"code": "one\ntwo"}, "exec: one…"),
        ("http.request", {"url": "https://a", "method": "PUT"}, "http.request: PUT https://a"),
        ("tool.call", {"name": "t/x", "arguments": {"a": 1}}, 'tool.call: t/x {"a": 1}'),
        ("exec", {"code": "a\x1b[2Jb"}, "exec: a\\x1b[2Jb"),
        ("agent.list", {}, "agent.list"),
    ],
)
def test_a_call_in_a_line(method: str, arguments: dict[str, Any], line: str) -> None:
    assert showing.summary(method, arguments) == line


def stand_in(*parts: bytes) -> str:
    return repr(parts)


@pytest.mark.parametrize(
    ("was", "globs", "now", "alike"),
    [
        ({"a": "ls x", "b": 1}, {"a": "ls *"}, {"a": "ls y", "b": 1}, True),
        ({"a": "ls x", "b": 1}, {"a": "ls *"}, {"a": "ls y", "b": 2}, False),
        ({"a": "ls x"}, {"a": "ls *"}, {"a": "rm y"}, False),
        ({"a": "ls x"}, {"a": "ls *"}, {"a": "ls y", "c": ""}, False),
        ({"a": "ls x"}, {"a": "*"}, {"a": "y" * 20_000}, False),
        ({"argv": ["git", "log"]}, {"argv": "git *"}, {"argv": ["git", "log", "a b"]}, True),
        ({"argv": ["git", "log"]}, {"argv": "git log *"}, {"argv": ["git", "log; rm x"]}, False),
        ({"arguments": {"t": "a", "n": 1}}, {"arguments.t": "?"}, {"arguments": {"t": "b", "n": 1}}, True),
        ({"arguments": {"t": "a"}}, {"arguments.t": "?"}, {"arguments": {"t": "b", "n": 1}}, False),
        ({"arguments": {"t": "a"}}, {"arguments.t": "?"}, {"arguments.t": "b"}, False),
        (
            {str(number): 1 for number in range(70)},
            {"1": "*"},
            {str(number): 1 for number in range(70)},
            False,
        ),
    ],
)
def test_calls_alike(was: dict[str, Any], globs: dict[str, str], now: dict[str, Any], alike: bool) -> None:
    parts = [likeness.parts(stand_in, [b"exec"], params) for params in (was, now)]
    assert likeness.alike(parts[0], tuple(globs.items()), parts[1], now) is alike
    other = likeness.parts(stand_in, [b"other"], now)
    assert not likeness.alike(parts[0], tuple(globs.items()), other, now)
