"""Arguments into commands, and what commands write into answers."""

from typing import Any

import pytest

from agentk.api import errors
from agentk.sdk import wire
from agentk.tools import argvs, outputs, pythons, requests, results, searching
from agentk.tools.offers import Outcome

GREP = ["grep", "{recursive?-r}", "--max-count={max}", "-e", "{pattern}", "--", "{files}"]


@pytest.mark.parametrize(
    ("items", "given", "argv"),
    [
        (GREP, {"pattern": "x y; rm -rf $HOME", "files": ["-a", "b"], "recursive": True},
         ["grep", "-r", "-e", "x y; rm -rf $HOME", "--", "-a", "b"]),
        (GREP, {"pattern": "{files}", "max": 3, "recursive": False}, ["grep", "--max-count=3", "-e", "{files}", "--"]),
        (["p", "{*}"], {"a": [1, True, None]}, ["p", '{"a":[1,true,null]}']),
        (["p", "{a}", "={a}="], {"a": {"b": 1}}, ["p", '{"b":1}', '={"b":1}=']),
        (["p", "{a}"], {"a": None}, ["p"]),
        (["p", "{a}"], {"a": ""}, ["p", ""]),
        (["p", "{a}"], {"a": []}, ["p"]),
        (["p", "{{}}"], {}, ["p", "{}"]),
    ],
)  # fmt: skip
def test_every_value_is_one_argument(items: list[str], given: dict[str, Any], argv: list[str]) -> None:
    assert argvs.argv(items, given) == argv


@pytest.mark.parametrize(
    ("items", "given"),
    [
        (["git", "show", "{ref}"], {"ref": "--output=/etc/x"}),
        (["git", "show", "{ref}:x"], {"ref": "--ext-diff"}),
        (["p", "{files}"], {"files": ["ok", "-x"]}),
        (["p", "{a}"], {"a": "nul\0"}),
        (["p", "--a={a}"], {"a": "\ud800"}),
        (["p", "{n}"], {"n": -1}),
        (["p", "--a={a}"], {"a": "x" * 200_000}),
    ],
)
def test_no_value_becomes_an_option_or_breaks_the_command(items: list[str], given: dict[str, Any]) -> None:
    with pytest.raises((errors.BadRequest, errors.TooLarge)) as caught:
        argvs.argv(items, given)
    assert caught.value.field.startswith("params.arguments")


def test_standard_input_is_filled_as_it_is() -> None:
    assert argvs.stdin("{a}\n{*}", {"a": "x"}) == b'x\n{"a":"x"}'
    assert argvs.stdin("{a}", {}) == b""


def test_an_exit_code_says_what_came_of_it() -> None:
    command = {"exitCodes": [{"code": 1, "means": "Ok", "message": "nothing found"}]}
    assert outputs.outcome(command, outputs.Ran(0, b"a\n")).content[0]["text"] == "a\n"
    found = outputs.outcome(command, outputs.Ran(1))
    assert not found.is_error and found.content == ({"type": "text", "text": "nothing found"},)
    wrong = outputs.outcome(command, outputs.Ran(2, stderr=b"no such file"))
    assert wrong.is_error and [one["text"] for one in wrong.content] == [
        "it ended with exit code 2",
        "no such file",
    ]
    assert outputs.outcome(command, outputs.Ran(0, why="OOMKilled")).is_error
    late = outputs.outcome(command, outputs.Ran(0, why="DeadlineExceeded", seconds=2.5))
    assert "2.5 s" in late.content[0]["text"]


def test_what_was_said_on_standard_error_alone_is_not_lost() -> None:
    assert outputs.outcome({}, outputs.Ran(0, b"", b"pushed\n")).content[0]["text"] == "pushed"
    assert outputs.outcome({}, outputs.Ran(0, b"a\n", b"warning")).content[0]["text"] == "a\n"
    assert outputs.outcome({"output": "Lines"}, outputs.Ran(0, b"", b"warning")).structured == {"lines": []}


def test_output_is_read_as_it_is_meant() -> None:
    assert outputs.outcome({"output": "Json"}, outputs.Ran(0, b'{"a": [1]}')).structured == {"a": [1]}
    assert outputs.outcome({"output": "Lines"}, outputs.Ran(0, b"a\nb\n")).structured == {"lines": ["a", "b"]}
    for hostile in (b"", b"{", b"[" * 100_000, b"\xff", b"1e999999x"):
        assert outputs.outcome({"output": "Json"}, outputs.Ran(0, hostile)).is_error
    assert outputs.outcome({"output": "Json"}, outputs.Ran(0, b'{"a": NaN}')).structured == {"a": None}


def test_json_of_countless_values_stays_as_it_was_written() -> None:
    """Taken apart, 4 MiB of it would be hundreds of megabytes, with nobody else having a turn."""
    written = "[" + ",".join(["[1]"] * 100_000) + "]"
    came = requests.Came(200, {"content-type": "application/json"}, written.encode(), False)
    for outcome in (
        outputs.outcome({"output": "Json"}, outputs.Ran(0, written.encode())),
        pythons.outcome(outputs.Ran(0, b'{"result": %b}\n' % written.encode())),
        requests.outcome(came, "http://host/"),
    ):
        assert outcome.structured is None and outcome.is_json and not outcome.is_error
        _, file = results.limited(outcome, 1000, "id")
        assert file is not None and file.path == ".tools/id.json" and file.data == written.encode()
    lines = outputs.outcome({"output": "Lines"}, outputs.Ran(0, b"\n" * 1_000_000))
    assert lines.structured is None and not lines.is_error
    with pytest.raises(errors.UpstreamError, match="more than 100000"):
        pythons.offered(outputs.Ran(0, written.encode()), ["m:f"])


def test_a_short_answer_is_told_and_a_long_one_is_a_file() -> None:
    short = Outcome(({"type": "text", "text": "hi"},), {"n": 1})
    assert results.limited(short, 1000, "id") == (
        {"content": [{"type": "text", "text": "hi"}], "structured": {"n": 1}, "isError": False},
        None,
    )
    lines = "".join(f"line {number}\n" for number in range(10_000))
    told, file = results.limited(Outcome(({"type": "text", "text": lines},), is_error=True), 2000, "id")
    assert file is not None and file.path == ".tools/id.txt" and file.data.decode() == lines
    assert told["isError"] and told["file"]["bytes"] == len(lines) and "structured" not in told
    text = told["content"][0]["text"]
    assert "line 0\n" in text and "line 9999\n" in text and "line 5000\n" not in text and len(text) < 2000


def test_what_is_structured_becomes_json_and_says_its_shape() -> None:
    rows = [{"id": number, "title": "é" * 50} for number in range(500)]
    told, file = results.limited(Outcome((), {"rows": rows}), 1000, "id")
    assert file is not None and file.path == ".tools/id.json" and file.data.startswith(b'{"rows":[{"id":0,')
    assert 'an object whose "rows" is a list of 500, the first of them JSON: an object with id, title' in str(
        told
    )
    image = Outcome(({"type": "image", "data": "A" * 9000, "mimeType": "image/png"},))
    _, file = results.limited(image, 1000, "id")
    assert file is not None and file.path.endswith(".json")


def test_a_flood_is_cut() -> None:
    told, file = results.limited(Outcome(({"type": "text", "text": "x" * 9_000_000},)), 256, "id")
    assert file is not None and len(file.data) == results.MOST_BYTES
    assert "of 9000000" in told["content"][0]["text"]


def test_tools_are_found_by_words() -> None:
    entries = [
        searching.Entry("github__create_issue", "github", "Creates an issue in a repository."),
        searching.Entry("github__get_issue", "github", "Reads one issue."),
        searching.Entry("files__read", "files", "Reads a file of the workspace."),
    ]
    assert searching.found(entries, "read a file")[0].name == "files__read"
    assert searching.found(entries, "creating issues")[0].name == "github__create_issue"
    assert searching.found(entries, "weather") == []
    assert len(searching.found(entries, "")) == 3
    long = searching.Entry("x__y", "x", "many words " * 500 + "weather")
    assert searching.found([long], "weather") == [], "what a stranger writes at length costs nobody's time"
    assert searching.line("One.\nTwo.") == "One." and len(searching.line("x" * 900)) == 200


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('{"mean": NaN, "max": Infinity, "n": 3}', {"mean": None, "max": None, "n": 3}),
        ("[1e999, -1e999, 1.5]", [None, None, 1.5]),
        ('{"\\ud800": "\\udfff"}', {"?": "?"}),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("[" * 150 + "]" * 150, "nothing"),
    ],
)
def test_what_a_program_writes_can_be_said_on_every_wire(written: str, told: Any) -> None:
    command = outputs.outcome({"output": "Json"}, outputs.Ran(0, written.encode()))
    assert command.is_error if told == "nothing" else command.structured == told
    python = pythons.outcome(outputs.Ran(0, b'{"result": %b}' % written.encode()))
    assert python.is_error if told == "nothing" else python.structured == told
    came = requests.Came(200, {"content-type": "application/json"}, written.encode(), False)
    http = requests.outcome(came, "http://host/")
    assert http.structured == (None if told == "nothing" else told)
    for outcome in (command, python, http):
        line = wire.response(1, results.answer(outcome))
        assert isinstance(wire.read_answer(line), wire.Response)
