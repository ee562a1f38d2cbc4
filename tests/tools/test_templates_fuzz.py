"""Whatever the arguments are, a template keeps its shape: no more words, no options, no other address, whole JSON."""

import json
from typing import Any
from urllib import parse

from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors, inputs, templates
from agentk.broker import policy_arguments, policy_globs
from agentk.tools import argvs, requests, results
from agentk.tools.offers import Outcome

SHARP = ["-x", "--", "{a}", "}}", "../..", "..", "%2e%2e", "a\r\nB: c", "\0", ""]
TEXTS = st.text(max_size=20) | st.sampled_from(SHARP)
SCALARS = TEXTS | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
)
GIVEN = st.fixed_dictionaries({}, optional={"a": VALUES, "b": VALUES})
ARGV = ["p", "--x={a}", "{b}", "{a?-r}", "--", "{a}"]


@given(GIVEN)
def test_a_command_has_no_word_that_was_not_meant(arguments: dict[str, Any]) -> None:
    try:
        made = argvs.argv(ARGV, arguments)
    except errors.AgentkError as error:
        assert error.field.startswith("params.arguments")
        return
    ends = made.index("--")
    assert made[0] == "p" and all("\0" not in word for word in made)
    for word in made[1:ends]:
        assert not word.startswith("-") or word.startswith("--x=") or word == "-r"
    lists = [arguments[name] for name in ("a", "b") if isinstance(arguments.get(name), list)]
    assert len(made) <= len(ARGV) + sum(map(len, lists))


@given(GIVEN)
def test_a_request_goes_nowhere_else(arguments: dict[str, Any]) -> None:
    form = requests.Form(
        "POST",
        "https://h.example/one/{a}/two?k=v",
        {"q": "{b}"},
        [requests.Header("X-A", "v{b}")],
        '{{"a": {a}, "all": {*}}}',
    )
    try:
        made = requests.asked(form, arguments)
    except errors.AgentkError as error:
        assert error.field.startswith("params.arguments")
        return
    url = parse.urlsplit(made.url)
    assert (url.scheme, url.netloc, url.fragment) == ("https", "h.example", "")
    parts = url.path.split("/")
    assert len(parts) == 4 and parts[1] == "one" and parts[3] == "two"
    assert parse.unquote(parts[2]) not in (".", "..")
    assert {name for name, _ in parse.parse_qsl(url.query, keep_blank_values=True)} <= {"k", "q"}
    assert all("\r" not in value and "\n" not in value for _, value in made.headers)
    assert set(json.loads(made.body)) == {"a", "all"}


@given(VALUES, st.integers(256, 4000))
def test_an_answer_is_never_longer_than_it_may_be(value: Any, most: int) -> None:
    outcome = Outcome(({"type": "text", "text": "é\n" * 2000},), value)
    told, file = results.limited(outcome, most, "id")
    assert (
        file is not None
        and len(json.dumps(told, ensure_ascii=False).encode("utf-8", "replace")) < most + 1500
    )


@given(st.text(max_size=60))
def test_any_text_is_a_template_or_an_error(text: str) -> None:
    try:
        template = templates.parse(text)
    except errors.Invalid:
        return
    plain = "".join(part for part in template if isinstance(part, str))
    assert len(plain) <= len(text)


@given(VALUES, VALUES)
def test_any_schema_and_arguments_are_told_or_refused(schema: Any, arguments: Any) -> None:
    if inputs.problem(schema) == "":
        try:
            inputs.check(schema, arguments)
        except errors.BadRequest as error:
            assert error.field


@given(VALUES)
def test_what_a_rule_denies_is_found_however_deep_in_lists(value: Any) -> None:
    globs = policy_globs.globs(["*"])
    found = policy_arguments.values({"a": [[[value]]]}, "a")
    assert all(policy_arguments.matches(globs, one, refuses=True) for one in found)
