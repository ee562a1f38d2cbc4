"""What a person reads before approving is what would be done, whatever its author put into it."""

import json
from typing import Any

from agentk.api import kinds
from agentk.cli import describe, show


def asked(arguments: dict[str, Any]) -> str:
    spec = {"method": "tool.call", "arguments": {"name": "t", "arguments": arguments}}
    return describe.text(kinds.APPROVAL, {"metadata": {"name": "a"}, "spec": spec}, None)


def test_no_argument_hides_or_looks_like_another() -> None:
    told = asked({"buckets": [{"leMs": "all of it", "count": 0}], "filter": {}, "force": None, "only": []})
    assert "all of it" in told
    shown = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in told.splitlines()}
    assert (shown["filter"], shown["force"], shown["only"]) == ("{}", "null", "[]")
    assert asked({"a": ["x, y"]}) != asked({"a": ["x", "y"]})
    assert "hidden" in asked({"buckets": [7, {"x": "hidden"}]})
    assert "\u202e" not in asked({"a": "rm \u202e x"})


def test_json_for_a_terminal_means_the_same_and_drives_nothing() -> None:
    value = {"a": "\x9b2J \u202e\u200b \U000e0041 é\n\t山"}
    text = show.json_text(value)
    assert json.loads(text) == value and "é" in text and "山" in text
    assert not any(letter in text for letter in "\x9b\u202e\u200b\U000e0041")
