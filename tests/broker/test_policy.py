"""What a Policy says about a call: rules, matchers, features, reasons."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.broker import policy, policy_rules, words
from agentk.broker.policy import Facts
from tests.broker.ruling import EVERYTHING, GET, allow, ask, deny, effect, rules

# effects


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ([], "Deny"),
        (["Allow"], "Allow"),
        (["Ask"], "Ask"),
        (["Deny"], "Deny"),
        (["Allow", "Ask"], "Ask"),
        (["Allow", "Deny"], "Deny"),
        (["Ask", "Deny"], "Deny"),
        (["Allow", "Ask", "Deny"], "Deny"),
    ],
)
def test_deny_before_ask_before_allow_else_deny(effects: list[str], expected: str) -> None:
    assert effect([{"effect": one, "methods": ["noop"]} for one in effects], "noop") == expected


def test_the_verdict_names_rule_policy_and_call() -> None:
    made = rules(EVERYTHING, deny(name="no-shell", methods=["exec"], languages=["shell"]))
    verdict = policy.decide(made, "exec", Facts(language="shell"))
    assert verdict == policy.Verdict(
        "Deny", "no-shell", 'rule "no-shell" of Policy "team" denies exec of shell'
    )
    assert policy.decide(made, "exec", Facts(language="python")).reason == (
        'rule "all" of Policy "team" allows exec of python'
    )


def test_what_no_rule_allows_is_denied_and_says_so() -> None:
    verdict = policy.decide(rules(allow(methods=["noop"])), "http.request", Facts(**GET))
    told = 'no rule of Policy "team" allows http.request GET to api.example.com:443/v1/x'
    assert verdict == policy.Verdict("Deny", "", told)


def test_a_rule_that_asks_says_so() -> None:
    verdict = policy.decide(
        rules(EVERYTHING, ask(name="spawns", methods=["agent.*"])), "agent.spawn", Facts()
    )
    assert verdict.reason == 'rule "spawns" of Policy "team" wants a person asked before agent.spawn'


def test_a_rule_without_a_name_is_told_by_its_index() -> None:
    made = policy_rules.compiled("team", [allow(methods=["hello"]), deny(methods=["noop"])])
    assert policy.decide(made, "noop", policy.NOTHING).rule == "#1"


def test_a_reason_stays_on_one_line_and_short() -> None:
    verdict = policy.decide(rules(), "think", Facts(models=("m\n\x1b[31m" + "x" * 4000,)))
    assert verdict.reason.isprintable() and len(verdict.reason) < 400


# matchers: not given, empty, listed

MATCHERS: list[tuple[str, str, dict[str, Any], Any, Any]] = [
    ("methods", "think", {"models": ("m",)}, ["th*"], ["embed"]),
    ("models", "think", {"models": ("gpt-5",)}, ["gpt-*"], ["claude-*"]),
    ("languages", "exec", {"language": "shell"}, ["shell"], ["python"]),
    ("targets", "agent.kill", {"target": "a/b"}, ["a/*"], ["b/*"]),
    ("hosts", "http.request", GET, ["*.example.com"], ["example.com"]),
    ("ports", "http.request", GET, [80, 443], [80]),
    ("httpMethods", "http.request", GET, ["get"], ["POST"]),
    ("paths", "http.request", GET, ["/v1/*"], ["/v2/*"]),
    (
        "features",
        "think",
        {"models": ("m",), "features": frozenset({"fileIds"})},
        ["fileIds"],
        ["remoteUrls"],
    ),
]


@pytest.mark.parametrize("kind", ["Deny", "Ask"])
@pytest.mark.parametrize(("field", "method", "facts", "fits", "fails"), MATCHERS)
def test_a_matcher_not_given_matches_an_empty_one_does_not_and_a_listed_one_by_its_items(
    kind: str, field: str, method: str, facts: dict[str, Any], fits: Any, fails: Any
) -> None:
    base = [EVERYTHING, allow(features=sorted(policy_rules.FEATURES))]
    for given_matchers, applies in [
        ({}, True),
        ({field: []}, False),
        ({field: fits}, True),
        ({field: fails}, False),
    ]:
        rule = {"effect": kind, **given_matchers}
        assert effect([*base, rule], method, **facts) == (kind if applies else "Allow"), given_matchers


@pytest.mark.parametrize(("field", "method", "facts", "fits", "fails"), MATCHERS)
def test_the_same_for_rules_that_allow(
    field: str, method: str, facts: dict[str, Any], fits: Any, fails: Any
) -> None:
    plain = {**facts, "features": frozenset()} if field != "features" else facts
    assert effect([allow(**{field: []})], method, **plain) == "Deny"
    assert effect([allow(**{field: fits})], method, **plain) == "Allow"
    assert effect([allow(**{field: fails})], method, **plain) == "Deny"
    if field != "features":
        assert effect([allow()], method, **plain) == "Allow"


def test_every_matcher_given_must_match() -> None:
    rule = allow(methods=["http.request"], hosts=["api.example.com"], ports=[443])
    assert effect([rule], "http.request", **GET) == "Allow"
    assert effect([rule], "http.request", **{**GET, "port": 80}) == "Deny"


@pytest.mark.parametrize("field", ["models", "targets", "hosts", "paths"])
def test_what_a_call_does_not_have_matches_no_glob(field: str) -> None:
    anything = ["*/*"] if field == "targets" else ["*"]
    assert effect([EVERYTHING, deny(**{field: anything})], "noop") == "Allow"
    assert effect([allow(**{field: anything})], "noop") == "Deny"


@pytest.mark.parametrize(
    ("method", "facts", "missing"),
    [
        ("think", {}, "model"),
        ("embed", {}, "model"),
        ("exec", {}, "language"),
        ("agent.kill", {}, "target"),
        ("message.send", {}, "target"),
        ("http.request", {"host": "a.example", "port": 1}, "HTTP method"),
        ("http.request", {"port": 1, "http_method": "GET"}, "host"),
    ],
)
def test_a_call_whose_facts_are_missing_is_denied(method: str, facts: dict[str, Any], missing: str) -> None:
    verdict = policy.decide(rules(EVERYTHING), method, Facts(**facts))
    assert verdict.effect == "Deny" and f"its {missing} is not known" in verdict.reason


# models


def test_a_call_is_judged_for_every_model_it_may_reach() -> None:
    both = [allow(models=["gpt-*"]), allow(models=["claude-*"])]
    assert effect(both, "think", models=("gpt-5", "claude-4")) == "Allow"
    assert effect(both, "think", models=("gpt-5", "qwen")) == "Deny"
    assert effect([*both, ask(models=["claude-*"])], "think", models=("gpt-5", "claude-4")) == "Ask"
    verdict = policy.decide(rules(EVERYTHING, deny(models=["*-old"])), "think", Facts(models=("a", "b-old")))
    assert verdict.reason == 'rule "r1" of Policy "team" denies think of b-old'


def test_models_methods_and_targets_keep_their_case() -> None:
    assert effect([allow(models=["gpt"])], "think", models=("GPT",)) == "Deny"
    assert effect([allow(methods=["noop"])], "NOOP") == "Deny"
    assert effect([allow(targets=["a/b"])], "agent.wait", target="A/b") == "Deny"


# targets


def guest(**changes: Any) -> words.Guest:
    made = words.Guest("u-2", "team", "me", 1, "run", "box", parents=("u-1",))
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("namespace", "uid", "parents", "expected"),
    [
        ("team", "u-2", ("u-1",), {"self", "namespace"}),
        ("team", "u-3", ("u-2", "u-1"), {"descendants", "namespace"}),
        ("team", "u-4", ("u-3", "u-2", "u-1"), {"descendants", "namespace"}),
        ("team", "u-1", (), {"ancestors", "namespace"}),
        ("team", "u-5", ("u-1",), {"namespace"}),
        ("other", "u-6", (), set()),
    ],
)
def test_relations_come_from_uids(
    namespace: str, uid: str, parents: tuple[str, ...], expected: set[str]
) -> None:
    assert policy.related(guest(), namespace, uid, parents) == expected


def test_targets_are_globs_or_relations() -> None:
    rule = allow(targets=["descendants", "shared/*"])
    assert effect([rule], "message.send", target="a/kid", relations=frozenset({"descendants"})) == "Allow"
    assert effect([rule], "message.send", target="shared/x") == "Allow"
    assert effect([rule], "message.send", target="a/kid", relations=frozenset({"namespace"})) == "Deny"


# features


def test_a_feature_is_never_implied() -> None:
    uses = {"models": ("m",), "features": frozenset({"hostedTools", "remoteUrls"})}
    hosted = allow(methods=["think"], features=["hostedTools"])
    remote = allow(methods=["think"], features=["remoteUrls"])
    assert effect([EVERYTHING], "think", **uses) == "Deny"
    assert effect([EVERYTHING, hosted], "think", **uses) == "Deny"
    assert effect([EVERYTHING, hosted, remote], "think", **uses) == "Allow"
    told = policy.decide(rules(EVERYTHING, hosted), "think", Facts(**uses)).reason
    assert told == 'no rule of Policy "team" allows remoteUrls: think of m uses it'


def test_a_person_is_not_asked_about_a_feature_no_rule_lists() -> None:
    uses = {"models": ("m",), "features": frozenset({"hostedTools"})}
    assert effect([ask(methods=["think"])], "think", **uses) == "Deny"
    assert effect([ask(methods=["think"], features=["hostedTools"])], "think", **uses) == "Ask"


def test_a_feature_of_another_rules_host_does_not_count() -> None:
    private = {**GET, "features": frozenset({"privateAddresses"})}
    wiki = allow(methods=["http.request"], hosts=["wiki.example.com"], features=["privateAddresses"])
    assert effect([EVERYTHING, wiki], "http.request", **private) == "Deny"
    assert effect([EVERYTHING, wiki], "http.request", **{**private, "host": "wiki.example.com"}) == "Allow"


def test_a_rule_that_lists_features_allows_nothing_without() -> None:
    assert effect([allow(methods=["think"], features=["hostedTools"])], "think", models=("m",)) == "Deny"


def test_a_feature_of_a_newer_gate_is_denied() -> None:
    every = allow(features=sorted(policy_rules.FEATURES))
    uses = frozenset({"hostedTools", "timeTravel"})
    assert effect([EVERYTHING, every], "think", models=("m",), features=uses) == "Deny"


# properties

effects = st.sampled_from(["Deny", "Ask", "Allow"])
FEATURE = st.sampled_from(["hostedTools", "remoteUrls"])
some_rule = st.fixed_dictionaries(
    {"effect": effects},
    optional={
        "methods": st.lists(st.sampled_from(["*", "think", "e*"]), max_size=2),
        "models": st.lists(st.sampled_from(["*", "gpt-*", "claude"]), max_size=2),
        "hosts": st.lists(st.sampled_from(["*", "a.example"]), max_size=1),
        "features": st.lists(FEATURE, max_size=2),
    },
)
some_rules = st.lists(some_rule, max_size=6).map(
    lambda made: [{"name": f"r{at}", **one} for at, one in enumerate(made)]
)
some_facts = st.builds(
    Facts,
    models=st.lists(st.sampled_from(["gpt-5", "claude", "qwen"]), min_size=1, max_size=2).map(tuple),
    features=st.frozensets(FEATURE),
)
some_method = st.sampled_from(["think", "embed"])


def decided(written: list[dict[str, Any]], method: str, facts: Facts) -> policy.Verdict:
    return policy.decide(policy_rules.compiled("team", written), method, facts)


@given(some_rules, some_method, some_facts)
def test_deny_always_wins(written: list[dict[str, Any]], method: str, facts: Facts) -> None:
    assert decided([*written, {"name": "no", **deny(methods=[method])}], method, facts).effect == "Deny"


@given(some_rules, some_rule, some_method, some_facts)
def test_allowing_more_never_undoes_a_rule_that_denies(
    written: list[dict[str, Any]], more: dict[str, Any], method: str, facts: Facts
) -> None:
    before = decided(written, method, facts)
    after = decided([*written, {**more, "name": "more", "effect": "Allow"}], method, facts)
    if before.effect == "Deny" and before.rule:
        assert after == before
    if before.effect == "Ask":
        assert after.effect == "Ask"


@given(some_rules, some_rule, some_method, some_facts)
def test_denying_more_never_widens(
    written: list[dict[str, Any]], more: dict[str, Any], method: str, facts: Facts
) -> None:
    before = decided(written, method, facts)
    after = decided([*written, {**more, "name": "more", "effect": "Deny"}], method, facts)
    assert after.effect == "Deny" or after == before


@given(some_rules, st.randoms(use_true_random=False), some_method, some_facts)
def test_the_order_of_rules_is_of_no_account(
    written: list[dict[str, Any]], random: Any, method: str, facts: Facts
) -> None:
    shuffled = random.sample(written, len(written))
    assert decided(shuffled, method, facts) == decided(written, method, facts)


@given(some_rules, some_method, some_facts)
def test_the_explanation_agrees_with_the_verdict(
    written: list[dict[str, Any]], method: str, facts: Facts
) -> None:
    made = policy_rules.compiled("team", written)
    verdict, told = policy.decide(made, method, facts), policy.explain(made, method, facts)
    assert {one.rule for one in told} == {one["name"] for one in written} and all(one.why for one in told)
    applying = {one.rule: one.effect for one in told if one.applies}
    assert not verdict.rule or applying[verdict.rule] == verdict.effect
    assert "Deny" not in applying.values() or verdict.effect == "Deny"


@given(st.text(), st.builds(Facts, *[st.text()] * 0, target=st.text(), host=st.text(), port=st.integers(0),
       http_method=st.text(), path=st.text(), language=st.text(), models=st.lists(st.text()).map(tuple)))  # fmt: skip
def test_no_fact_makes_it_raise(method: str, facts: Facts) -> None:
    made = rules(EVERYTHING, deny(hosts=["*.a"], paths=["/x*"]), ask(models=["a*"], targets=["a/*"]))
    for one in (method, "http.request", "think"):
        assert policy.decide(made, one, facts).reason and len(policy.explain(made, one, facts)) == 3


# explaining


def test_explain_says_for_each_rule_what_kept_it_from_applying() -> None:
    made = rules(
        allow(name="get", methods=["http.request"], hosts=["*.example.com"], httpMethods=["GET"]),
        allow(name="mail", methods=["message.*"]),
        allow(name="family", targets=["self", "ops/*"]),
        deny(name="plain", ports=[80]),
        deny(name="none", paths=[]),
    )
    told = policy.explain(made, "http.request", Facts(**{**GET, "http_method": "post"}))
    assert [(one.rule, one.applies, one.why) for one in told] == [
        ("none", False, "its paths (nothing) do not match /v1/x"),
        ("plain", False, "its ports (80) do not match 443"),
        ("family", False, "its targets (self, ops/*) do not match a call to no agent"),
        ("get", False, "its httpMethods (GET) do not match POST"),
        ("mail", False, "its methods (message.*) do not match http.request"),
    ]


def test_explain_says_for_which_models_a_rule_applies() -> None:
    told = policy.explain(rules(allow(models=["gpt-*"])), "think", Facts(models=("gpt-5", "qwen")))
    assert told == [policy.Told("r0", "Allow", True, "every matcher of it matches (for gpt-5)")]
