"""Secrets do not reach the disk in any of the forms that they travel in."""

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.store import journal_redaction as redaction
from agentk.store.journal_redaction import MARK, Redactor

SECRET = 'sk-Ab/c+d?"e\\f é=&99'


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower().replace("sk-ab", "sk-Ab"),
        quote_plus(SECRET),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        json.dumps(json.dumps(SECRET)),
        json.dumps(SECRET).replace("/", "\\/"),
    ],
)
def test_each_written_form_goes(form: str) -> None:
    told = Redactor([SECRET])(b"before " + form.encode() + b" after")
    assert told.startswith(b"before ") and told.endswith(b" after")
    assert MARK in told and b"99" not in told


secrets = st.binary(min_size=8, max_size=60)


@given(secret=secrets, before=st.binary(max_size=7), after=st.binary(max_size=7), urlsafe=st.booleans())
def test_base64_goes_wherever_the_secret_begins(
    secret: bytes, before: bytes, after: bytes, urlsafe: bool
) -> None:
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    assert MARK in Redactor([secret])(encode(before + secret + after))


@given(secret=secrets, before=st.binary(max_size=50), after=st.binary(max_size=50))
def test_the_secret_itself_goes(secret: bytes, before: bytes, after: bytes) -> None:
    assert secret not in Redactor([secret])(before + secret + after).replace(MARK, b"")


@pytest.mark.parametrize("short", ["", "1234567", "   abc   "])
def test_what_is_too_short_stays(short: str) -> None:
    text = f"a {short} b".encode() if len(short) < 8 else b"abc"
    assert Redactor([short])(text) == text


def test_a_secret_read_from_a_file_is_found_without_its_newline() -> None:
    assert Redactor([b"0123456789\n"])(b"key=0123456789;") == b"key=[redacted];"


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer abc"},
        {"x-api-key": 'q"uo\\ted'},
        {"headers": [["cookie", "a=b"], ["accept", "text"]]},
        {"set-cookie": ["a=1; b", "c=2"], "kept": ["x"]},
    ],
)
def test_headers_with_credentials_lose_their_value_and_stay_json(headers: dict[str, object]) -> None:
    told = json.loads(Redactor([])(json.dumps(headers).encode()))
    assert told.keys() == headers.keys()
    assert "[redacted]" in json.dumps(told)
    for value in ("Bearer", "uo", "a=b", "a=1", "c=2"):
        assert value not in json.dumps(told)


def test_headers_within_a_string_of_json_lose_theirs_too() -> None:
    inner = json.dumps({"headers": {"Authorization": "Bearer abc"}, "n": 1})
    twice = json.dumps({"a": json.dumps({"b": inner})})
    told = json.loads(Redactor([])(json.dumps({"arguments": inner, "more": twice}).encode()))
    assert json.loads(told["arguments"]) == {"headers": {"Authorization": "[redacted]"}, "n": 1}


def test_a_word_that_only_sounds_like_a_header_stays() -> None:
    body = json.dumps({"required": ["authorization", "name", "age"], "text": "the cookie: nice"}).encode()
    assert Redactor([])(body) == body


def test_what_has_nothing_to_hide_is_given_back_as_it_is() -> None:
    body = b'{"a": 1}'
    assert Redactor([])(body) is body


@pytest.mark.parametrize("hostile", [b"\\" * 400_000, b'"cookie":"' * 40_000, b'\\"cookie\\":\\"' * 40_000])
@pytest.mark.timeout(20)
def test_hostile_bytes_take_no_quadratic_time(hostile: bytes) -> None:
    Redactor([])(b"cookie" + hostile + b"x" + hostile)


@pytest.mark.parametrize("before", [0, 1, 2, 20, 40, 63, 64, 65])
@pytest.mark.parametrize("slashes", [0, 1, 3])
def test_a_header_on_the_border_of_what_is_looked_through_at_once(before: int, slashes: int) -> None:
    quote = b"\\" * slashes + b'"'
    filler = b"x" * (redaction._WINDOW_BYTES - before)
    value = b"top-secret" * 50_000
    name = quote + b"Authorization" + quote
    data = filler + name + b" : " + quote + value + quote + b", tail"
    mark = quote + redaction.MARK + quote
    assert redaction.without_headers(data) == filler + name + b" : " + mark + b", tail"
    pair = filler + b"[ \n" + name + b" , " + quote + value + quote + b" ]"
    assert redaction.without_headers(pair) == filler + b"[ \n" + name + b" , " + mark + b" ]"
    beside = filler + b'"a" , ' + name + b" , " + quote + value + quote + b" ]"
    assert redaction.without_headers(beside) == beside
