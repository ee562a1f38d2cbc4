"""What a Policy says about requests to hosts: names, paths, tunnels; and globs, which are matched in linear time."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors
from agentk.broker import policy_globs, policy_hosts, policy_paths
from tests.broker.ruling import EVERYTHING, GET, TUNNEL, allow, ask, deny, effect, rules

# hosts


@pytest.mark.parametrize(
    ("glob", "host", "fits"),
    [
        ("*.example.com", "api.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "evilexample.com", False),
        ("*.example.com", "api.example.com.evil.test", False),
        ("*.example.com", "API.Example.COM.", True),
        ("API.Example.com.", "api.example.com", True),
        ("api-?.example.com", "api-1.example.com", True),
        ("api-?.example.com", "api-12.example.com", False),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "BÜCHER.example", True),
        ("*.bücher.example", "www.bücher.example", True),
        ("api.example.com", "api。example．com", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("::1", "[0:0:0:0:0:0:0:1]", True),
        ("*", "10.0.0.1", True),
    ],
)
def test_host_globs(glob: str, host: str, fits: bool) -> None:
    facts = {**GET, "host": host}
    assert effect([allow(hosts=[glob])], "http.request", **facts) == ("Allow" if fits else "Deny")
    assert effect([EVERYTHING, deny(hosts=[glob])], "http.request", **facts) == ("Deny" if fits else "Allow")


@pytest.mark.parametrize(
    "host",
    [
        *("127.1", "2130706433", "0x7f.0.0.1", "0x7f000001", "0x", "010.0.0.1", "1.2.3.4.5", "1.2.3.256"),
        *(
            "straße.example",
            "a\u200db.example",
            "fe80::1%eth0",
            "a..b",
            ".",
            "..",
            "a.com..",
            "-a.com",
            "a-.com",
        ),
        *(
            "a b.com",
            "user@a.com",
            "a.com:80",
            "http://a.com",
            "a.com/x",
            "a\0.com",
            "a" * 64 + ".com",
            "a." * 200,
        ),
        *("[::1", "[a.com]", "₁₂₇.1", "a\ufeff.com\n", "١٢٧.0.0.1", "%61.com", "\ud800.com"),
    ],
)
def test_a_host_that_is_not_one_to_everybody_is_denied(host: str) -> None:
    with pytest.raises(errors.Invalid):
        policy_hosts.canonical(host)
    assert effect([EVERYTHING], "http.request", **{**GET, "host": host}) == "Deny"


@given(st.text(max_size=300))
def test_a_canonical_host_is_its_own_spelling(text: str) -> None:
    try:
        host = policy_hosts.canonical(text)
    except errors.Invalid:
        return
    assert policy_hosts.canonical(host) == host and host.isascii() and host == host.lower()
    for other in (text.upper(), text.swapcase()):
        try:
            assert policy_hosts.canonical(other) == host or not text.isascii()
        except errors.Invalid:
            assert not text.isascii()


@pytest.mark.parametrize(
    ("glob", "told"),
    [
        ("https://*.a.com", "without scheme"),
        ("*.a.com:443", "without scheme"),
        ("10.*", "an address is written whole"),
        ("192.168.?.1", "an address is written whole"),
        ("*.straße.example", "another host"),
        ("a.com/*", "without scheme"),
        ("*..a.com", "expected a host glob"),
        ("127.1", "four numbers"),
    ],
)
def test_a_host_glob_that_would_mislead_is_refused(glob: str, told: str) -> None:
    with pytest.raises(errors.Invalid, match=told):
        rules(allow(hosts=[glob]))


# paths, HTTP methods and tunnels


@pytest.mark.parametrize(
    "path",
    [
        *("/admin", "/%61dmin", "//admin", "/./admin", "/v1/../admin", "/v1/%2e%2e/admin", "/%2561dmin"),
        *("/v1\\..\\admin", "/admin?x", "/admin#x", "/v1/..%2fadmin", "/v1/%252e%252e/admin"),
    ],
)
def test_no_spelling_of_a_path_passes_a_rule(path: str) -> None:
    facts = {**GET, "path": path}
    assert effect([EVERYTHING, deny(paths=["/admin"])], "http.request", **facts) == "Deny"
    assert effect([allow(paths=["/v1*", "/%*", "/.*", "//*"])], "http.request", **facts) == "Deny"


@pytest.mark.parametrize(
    "path", ["admin", "http://a/b", "*", "/a\nb", "/a b", "/%25252525", "/" + "a" * 5000]
)
def test_a_path_nobody_should_send_is_denied(path: str) -> None:
    assert policy_paths.readings(path) == ()
    assert effect([EVERYTHING], "http.request", **{**GET, "path": path}) == "Deny"


def test_an_encoded_slash_within_the_allowed_part_is_fine() -> None:
    rule = allow(paths=["/projects/*"])
    assert effect([rule], "http.request", **{**GET, "path": "/projects/group%2Fname/issues"}) == "Allow"


def test_http_methods_have_no_case() -> None:
    assert (
        effect([EVERYTHING, deny(httpMethods=["POST"])], "http.request", **{**GET, "http_method": "post"})
        == "Deny"
    )


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (allow(methods=["http.request"]), "Allow"),
        (allow(httpMethods=["CONNECT"]), "Allow"),
        (allow(httpMethods=["GET", "POST"]), "Deny"),
        (allow(paths=["*"]), "Deny"),
        (allow(httpMethods=["CONNECT"], paths=["/*"]), "Deny"),
    ],
)
def test_a_tunnel_is_allowed_only_by_rules_that_do_not_look_into_it(
    rule: dict[str, Any], expected: str
) -> None:
    assert effect([rule], "http.request", **TUNNEL) == expected


@pytest.mark.parametrize(
    ("matchers", "applies"),
    [
        ({"httpMethods": ["POST"]}, True),
        ({"paths": ["/admin*"]}, True),
        ({"httpMethods": ["POST"], "paths": ["/admin*"]}, True),
        ({"httpMethods": []}, False),
        ({"paths": []}, False),
        ({"hosts": ["other.example"], "paths": ["/admin*"]}, False),
    ],
)
def test_what_a_tunnel_may_carry_is_denied_with_it(matchers: dict[str, Any], applies: bool) -> None:
    for rule, word in ((deny(**matchers), "Deny"), (ask(**matchers), "Ask")):
        assert effect([EVERYTHING, rule], "http.request", **TUNNEL) == (word if applies else "Allow")


# globs


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("?", "", False),
        ("?", "é", True),
        ("a*b*c", "a--b--c", True),
        ("a*b*c", "a--c--b", False),
        ("**a**", "xax", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("*aab", "aaaab", True),
        ("[a-z].+", "b!", False),
        ("[a-z].+", "[a-z].+", True),
        ("a*", "ba", False),
        ("*a", "ab", False),
    ],
)
def test_globs(pattern: str, text: str, fits: bool) -> None:
    assert policy_globs.glob(pattern).matches(text) is fits


def slowly(pattern: str, text: str) -> bool:
    """The meaning of a glob, by recursion."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return slowly(pattern[1:], text) or (bool(text) and slowly(pattern, text[1:]))
    return bool(text) and pattern[0] in ("?", text[0]) and slowly(pattern[1:], text[1:])


@given(st.text("ab*?", max_size=8), st.text("abc", max_size=8))
def test_globs_mean_what_recursion_says(pattern: str, text: str) -> None:
    assert policy_globs.glob(pattern).matches(text) is slowly(pattern, text)


class Counted(str):
    """A text that counts how often a letter of it is read."""

    reads = 0

    def __iter__(self) -> Any:
        for letter in str.__iter__(self):
            self.reads += 1
            yield letter


@pytest.mark.parametrize("pattern", ["*a" * 250 + "b", "*?" * 250 + "b", "*" * 500 + "b", "a*" * 250 + "b"])
def test_a_hostile_glob_reads_each_letter_once_and_remembers_a_bit_a_letter(pattern: str) -> None:
    text = Counted("a" * 4000)
    made = policy_globs.glob(pattern)
    assert not made.matches(text)
    assert text.reads <= len(text)
    held = [made._any, made._loops, made._end, *made._letters.values()]
    assert max(number.bit_length() for number in held) <= len(pattern) + 1
