"""audit, trace, auth can-i, budget and top against a real API with a real journal behind it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import kinds
from agentk.broker.words import Amount
from agentk.store.journal import Outcome
from tests.cli.gated import NOW, GatedDaemon

Run = Callable[..., Any]
USED = {"tokens": 120, "calls": 1, "cost_micro_usd": 1500}


@pytest.fixture
def gated(places: Path) -> Iterator[GatedDaemon]:
    served = GatedDaemon(places / "state", places / "run")
    served.api.create(kinds.NAMESPACE, "", {"metadata": {"name": "default"}})
    served.api.create(kinds.POLICY, "", {"metadata": {"name": "baseline"}, "spec": {"level": "baseline"}})
    make(served, "web", budget={"maxTokens": 1000, "maxCostUsd": "1.00", "per": "1h"})
    yield served
    served.stop()


def make(served: GatedDaemon, name: str, owner: str = "", budget: dict[str, Any] | None = None) -> None:
    metadata: dict[str, Any] = {"name": name}
    if owner:
        told = {"apiVersion": "agentk.dev/v1alpha1", "kind": "Agent", "name": owner, "controller": True}
        metadata["ownerReferences"] = [told | {"uid": served.uid(owner)}]
    served.api.create(kinds.AGENT, "default", {"metadata": metadata, "spec": {"command": ["x"]}})
    served.limits[name] = budget or {}
    served.hear()


def think(served: GatedDaemon, name: str = "web", model: str = "gpt-5", **more: Any) -> str:
    outcome = Outcome("ok", b'{"text":"hi"}', USED, {"model": model})
    return served.called(name, "think", b'{"prompt":"x"}', outcome, meta={"rule": "models"}, **more)


# audit


def test_audit_tells_each_call_with_its_rule_and_use(gated: GatedDaemon, agentk: Run) -> None:
    think(gated)
    gated.called("web", "exec", b'{"argv":["ls","-l"]}', Outcome("error", b"{}", {"calls": 1}))
    gated.called("web", "think", b"{}", None)
    ran = agentk("audit", "web")
    assert ran.code == 0, ran.err
    assert ran.lines[0].split() == ["TIME", "CALL", "ABOUT", "STATUS", "RULE", "TOKENS", "COST", "TOOK"]
    assert ran.lines[1].split()[2:8] == ["think", "gpt-5", "ok", "models", "120", "$0.0015"]
    assert ran.lines[2].split()[2:6] == ["exec", "ls", "-l", "error"]
    assert ran.lines[3].split()[2:5] == ["think", "-", "running"]
    assert "EFFECT" in agentk("audit", "agent/web", "-o", "wide").lines[0]


def test_audit_and_trace_tell_why_a_call_failed(gated: GatedDaemon, agentk: Run) -> None:
    think(gated)
    told = json.dumps({"kind": "Status", "message": "the provider is away"}).encode()
    gated.called("web", "think", b"{}", Outcome("error", told, {"calls": 1}))
    cut = json.dumps({"sent": "Hel", "error": {"message": "it broke off"}}).encode()
    gated.called("web", "think", b"{}", Outcome("error", cut, {"calls": 1}))
    gated.called("web", "exec", b"{}", Outcome("denied", b'{"reason":"no rule allows it"}', {}))
    lines = agentk("audit", "web").lines
    assert lines[0].split()[-1] == "WHY" and lines[1].split()[-1] == "-"
    why = ("the provider is away", "it broke off", "no rule allows it")
    assert [line.endswith(words) for line, words in zip(lines[2:], why, strict=True)] == [True] * 3
    assert all(words in agentk("trace", "web").out for words in why)


def test_audit_as_json_has_what_was_asked_and_answered(gated: GatedDaemon, agentk: Run) -> None:
    effect = think(gated)
    one = json.loads(agentk("audit", "web", "-o", "json").out)["items"][0]
    assert (one["effect"], one["asked"], one["answer"]) == (effect, {"prompt": "x"}, {"text": "hi"})
    assert one["used"] == {"tokens": 120, "calls": 1, "costUsd": "0.0015"}
    assert (one["result"]["record"], len(one["hash"])) == (one["record"] + 1, 64)


def test_audit_pages_through_all_and_keeps_the_last(gated: GatedDaemon, agentk: Run) -> None:
    for n in range(7):
        think(gated, model=f"m{n}")
    told = gated.api.request("GET", kinds.AGENT.path("default", "web", "audit"), query={"limit": "3"})
    assert [one["about"] for one in told["items"]] == ["m6", "m5", "m4"]
    more = {"limit": "3", "continue": told["metadata"]["continue"]}
    told = gated.api.request("GET", kinds.AGENT.path("default", "web", "audit"), query=more)
    assert [one["about"] for one in told["items"]] == ["m3", "m2", "m1"]
    last = [line.split()[3] for line in agentk("audit", "web", "--limit", "2", "--no-headers").lines]
    assert last == ["m5", "m6"]
    assert len(agentk("audit", "web", "--limit", "0", "--no-headers").lines) == 7


def test_audit_since_and_run(gated: GatedDaemon, agentk: Run) -> None:
    think(gated)
    assert len(agentk("audit", "web", "--since", "1h", "--no-headers").lines) == 1
    assert agentk("audit", "web", "--run", "nope").out == ""
    path = kinds.AGENT.path("default", "web", "audit")
    future = {"since": "2100-01-01T00:00:00Z"}
    assert gated.api.request("GET", path, query=future)["items"] == []


def test_audit_of_an_agent_that_is_gone(gated: GatedDaemon, agentk: Run) -> None:
    think(gated, "gone", uid="u-of-old")
    assert agentk("audit", "gone", "--no-headers").out.split()[2:4] == ["think", "gpt-5"]
    ran = agentk("audit", "never-was")
    assert (ran.code, "not found" in ran.err) == (1, True)


def test_unknown_are_the_calls_a_crash_left(gated: GatedDaemon, agentk: Run) -> None:
    think(gated)
    gated.called("web", "exec", b'{"code":"1"}', None)
    assert agentk("audit", "web", "--unknown").out == ""
    gated.restart()  # whoever opens the journal next finds an intent without a result
    gated.hear()
    rows = agentk("audit", "web", "--unknown", "--no-headers").lines
    assert [row.split()[2:5] for row in rows] == [["exec", "python", "unknown"]]


def test_an_escape_sequence_of_a_guest_never_reaches_the_terminal(gated: GatedDaemon, agentk: Run) -> None:
    asked = json.dumps({"argv": ["\x1b[2J", "x"]}).encode()
    gated.called("web", "exec", asked, Outcome("ok", b"{}"))
    for words in (("audit", "web"), ("trace", "web")):
        assert "\x1b" not in agentk(*words).out


# verify and head


def test_verify_of_a_whole_journal(gated: GatedDaemon, agentk: Run) -> None:
    think(gated)
    ran = agentk("audit", "verify")
    assert (ran.code, ran.out[:4]) == (0, "ok: ")
    assert json.loads(agentk("audit", "verify", "-o", "json").out)["ok"] is True


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE records SET method = 'thinK' WHERE id = ?", "is not what was written"),
        ("DELETE FROM records WHERE id = ?", "is missing"),
        ("UPDATE bodies SET data = x'00' WHERE id = (SELECT asked FROM records WHERE id = ?)", "its body"),
    ],
)
def test_verify_names_the_record_that_was_changed(
    gated: GatedDaemon, agentk: Run, statement: str, named: str
) -> None:
    think(gated)
    record = json.loads(agentk("audit", "web", "-o", "json").out)["items"][0]["record"]
    think(gated)
    gated.tamper(statement, record)
    ran = agentk("audit", "verify")
    assert ran.code == 1
    assert f"record {record}: " in ran.out and named in ran.out
    assert json.loads(agentk("audit", "verify", "-o", "json").out)["bad"]["record"] == record


def test_verify_finds_a_byte_that_was_flipped_in_the_file(gated: GatedDaemon, agentk: Run) -> None:
    gated.called("web", "think", b'{"prompt":"a very peculiar prompt"}', Outcome("ok", b"{}"))
    record = json.loads(agentk("audit", "web", "-o", "json").out)["items"][0]["record"]
    gated.tamper("PRAGMA journal_mode = DELETE")
    gated.stop()
    path = gated.folder / "journal" / "journal.db"
    data = bytearray(path.read_bytes())
    data[data.index(b"peculiar")] ^= 1
    path.write_bytes(data)
    gated._start()
    ran = agentk("audit", "verify")
    assert (ran.code, ran.lines[0].startswith(f"record {record}: ")) == (1, True)


def test_verify_names_what_was_cut_off(gated: GatedDaemon, agentk: Run) -> None:
    think(gated)
    think(gated)
    last = json.loads(agentk("audit", "web", "-o", "json").out)["items"][-1]["record"]
    gated.tamper("DELETE FROM records WHERE id >= ?", last)
    ran = agentk("audit", "verify")
    assert ran.code == 1
    assert "missing" in ran.out


def test_a_head_that_was_kept_finds_what_was_rewritten_with_anchor_and_all(
    gated: GatedDaemon, agentk: Run, places: Path
) -> None:
    think(gated)
    kept = places / "head.json"
    kept.write_text(agentk("audit", "head").out)
    assert agentk("audit", "verify", "--head", str(kept)).code == 0
    other = json.loads(kept.read_text()) | {"hash": "00" * 32}
    kept.write_text(json.dumps(other))
    ran = agentk("audit", "verify", "--head", str(kept))
    assert (ran.code, f"record {other['record']}: " in ran.out) == (1, True)
    kept.write_text("[]")
    assert agentk("audit", "verify", "--head", str(kept)).code == 2


# trace


def test_trace_is_a_tree_with_what_was_spawned_below(gated: GatedDaemon, agentk: Run) -> None:
    make(gated, "child", "web")
    think(gated)
    answer = json.dumps({"name": "child", "uid": gated.uid("child")}).encode()
    spawn = gated.called("web", "agent.spawn", b'{"spec":{},"name":"child"}', Outcome("ok", answer))
    think(gated, "child", "small")
    gated.called("web", "exec", b'{"code":"1","language":"shell"}', Outcome("ok", b"{}"), parent=spawn)
    gated.called("web", "exit", b'{"code":3}', Outcome("ok", b"{}"))
    lines = agentk("trace", "web").lines
    shape = [line.partition("  run ")[0].partition("  ok")[0] for line in lines]
    assert shape == [
        "agent/web",
        "├─ think  gpt-5",
        "├─ agent.spawn  child",
        "│  ├─ agent/child",
        "│  │  └─ think  small",
        "│  └─ exec  shell",
        "└─ exit  code 3",
    ]
    assert "120 tokens" in lines[1] and "$0.0015" in lines[1] and "240 tokens" not in lines[0]
    told = json.loads(agentk("trace", "web", "-o", "json").out)
    assert (told["root"]["used"]["tokens"], told["truncated"]) == (120, False)


def test_trace_of_one_that_did_nothing(gated: GatedDaemon, agentk: Run) -> None:
    ran = agentk("trace", "web")
    assert (ran.code, ran.out, "No calls" in ran.err) == (0, "", True)
    assert agentk("trace", "nope").code == 1


# auth can-i


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["think", "model=gpt-5"], 0, 'yes: rule "models"'),
        (["think", "model=other"], 1, "no: no rule of"),
        (["exec", "language=shell"], 1, 'no: rule "no-shell"'),
        (["exec", "argv=ls"], 0, 'yes: rule "code"'),
        (["message.send", "to=b"], 1, 'ask: rule "mail"'),
        (["think", "model=gpt-5", "features=hostedTools"], 1, "hostedTools"),
    ],
)
def test_can_i(gated: GatedDaemon, agentk: Run, words: list[str], code: int, said: str) -> None:
    ran = agentk("auth", "can-i", "--as", "agent/web", *words)
    assert (ran.code, said in ran.lines[0]) == (code, True), ran
    assert ran.lines[1].split() == ["RULE", "EFFECT", "APPLIES", "WHY"]
    assert len(ran.lines) == 6


def test_can_i_tells_why_each_other_rule_does_not_apply(gated: GatedDaemon, agentk: Run) -> None:
    told = json.loads(agentk("auth", "can-i", "--as", "web", "think", "model=x", "-o", "json").out)
    why = {one["rule"]: one["why"] for one in told["rules"]}
    assert "its models (gpt-*) do not match x" in why["models"]
    assert (told["allowed"], told["effect"], told["facts"]) == (False, "Deny", {"models": ["x"]})


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["thnik"], 1, "did you mean 'think'?"),
        (["think", "modle=x"], 1, "did you mean 'model'?"),
        (["message.send"], 1, "say which to"),
        (["exec", "language=perl"], 1, "expected one of python"),
        (["think", "features=magic"], 1, "no feature"),
        (["think", "model"], 2, "is not KEY=VALUE"),
    ],
)
def test_can_i_of_nonsense(gated: GatedDaemon, agentk: Run, words: list[str], code: int, said: str) -> None:
    ran = agentk("auth", "can-i", "--as", "agent/web", *words)
    assert (ran.code, said in ran.err, ran.out) == (code, True, "")
    assert agentk("auth", "can-i", "noop").code == 2


# budget


def test_budget_is_a_tree_of_what_bounds_whom(gated: GatedDaemon, agentk: Run) -> None:
    spec = {"hard": {"agents": 5}}
    gated.api.create(kinds.QUOTA, "default", {"metadata": {"name": "team"}, "spec": spec})
    make(gated, "child", "web", budget={"maxCalls": 3})
    path = (gated.uid("team", kinds.QUOTA), gated.uid("web"), gated.uid("child"))
    held = gated.budgets.reserve(path, Amount(100, 1, 0), NOW)
    gated.budgets.settle(held, Amount(60, 1, 250_000), NOW)
    gated.budgets.reserve(path, Amount(40, 1, 0), NOW)
    told = json.loads(agentk("budget", "child", "-o", "json").out)["items"][0]
    web = told["children"][0]
    child = web["children"][0]
    assert [(one["kind"], one["name"]) for one in (told, web, child)] == [
        ("quota", "team"), ("agent", "web"), ("agent", "child"),
    ]  # fmt: skip
    assert (web["used"]["tokens"], web["reserved"]["tokens"], web["left"]["tokens"]) == (60, 40, 900)
    assert (web["used"]["costUsd"], web["left"]["costUsd"], web["per"]) == ("0.25", "0.75", "1h")
    assert web["windowEnds"].startswith("2027-01-15T")
    assert child["left"] == {"calls": 1}
    rows = agentk("budget").lines
    assert rows[0].split()[:3] == ["NAME", "OF", "USED"]
    assert [row.split()[0] for row in rows if "/" in row] == ["quota/team", "agent/web", "agent/child"]


def test_budget_add_lets_an_exhausted_agent_go_on_and_is_on_record(gated: GatedDaemon, agentk: Run) -> None:
    uid = gated.uid("web")
    gated.budgets.settle(gated.budgets.reserve((uid,), Amount(1000, 1, 0), NOW), Amount(1001, 1, 0), NOW)
    assert "exceeded" in agentk("budget", "web").out
    ran = agentk("budget", "add", "web", "--tokens", "500", "--cost-usd", "0.50")
    assert ran.code == 0, ran.err
    assert "exceeded" not in ran.out and "1000 + 500" in ran.out
    assert gated.given == [(uid, Amount(500, 0, 500_000), 0.0)]
    path = kinds.AGENT.path("default", "web", "audit")
    noted = gated.api.request("GET", path, query={"bodies": "true"})["items"][0]
    assert (noted["method"], noted["asked"]["tokens"]) == ("budget.add", 500)


def test_wall_time_that_was_given_is_told(gated: GatedDaemon, agentk: Run) -> None:
    make(gated, "timed", budget={"maxWallTime": "1h"})
    ran = agentk("budget", "add", "timed", "--wall-time", "30m")
    assert ran.code == 0, ran.err
    told = json.loads(agentk("budget", "timed", "-o", "json").out)["items"][0]
    assert (told["limits"], told["granted"], told["left"]) == (
        {"wallTime": "1h"}, {"wallTime": "30m"}, {"wallTime": "1h30m"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["add", "web"], 2),
        (["add", "--tokens", "1"], 2),
        (["web", "--tokens", "1"], 2),
        (["add", "web", "--calls", "1"], 1),
        (["add", "web", "--cost-usd", "a lot"], 1),
        (["add", "nope", "--tokens", "1"], 1),
        (["a", "b"], 2),
        (["-n", "nope"], 1),
    ],
)
def test_budget_of_nonsense(gated: GatedDaemon, agentk: Run, words: list[str], code: int) -> None:
    assert agentk("budget", *words).code == code
    assert gated.given == []


# top


def test_top_shows_tokens_calls_and_cost(gated: GatedDaemon, agentk: Run) -> None:
    gated.status("web", phase="Running", attempt=1, boxID="u-1")
    think(gated)
    ran = agentk("top", "--interval", "0.2")
    assert ran.lines[0].split()[-3:] == ["TOKENS", "CALLS", "COST"]
    assert ran.lines[1].split()[-3:] == ["120", "1", "$0.0015"]
    think(gated)
    gated.called("web", "think", b"{}", None)
    assert agentk("top", "--interval", "0.2").lines[1].split()[-3:] == ["240", "2", "$0.003"]


def test_a_daemon_without_a_gate_says_so(daemon: Any, agentk: Run) -> None:
    for words in (["audit", "x"], ["trace", "x"], ["audit", "head"], ["audit", "verify"], ["budget"]):
        ran = agentk(*words)
        assert (ran.code, "no gate" in ran.err) == (1, True), words


def test_completion_knows_the_words_of_the_gate(gated: GatedDaemon, agentk: Run) -> None:
    assert set(agentk("complete", "--", "audit", "").lines) == {"verify", "head", "web"}
    assert agentk("complete", "--", "auth", "").lines == ["can-i"]
    assert agentk("complete", "--", "auth", "can-i", "--as", "").lines == ["agent/web"]
    assert "--as" in agentk("complete", "--", "auth", "can-i", "--a").lines
    assert set(agentk("complete", "--", "budget", "").lines) == {"add", "web"}


def test_what_was_said_in_a_call_is_erased_for_good_and_verify_knows(gated: GatedDaemon, agentk: Run) -> None:
    gated.called("web", "think", b'{"prompt":"a very peculiar prompt"}', Outcome("ok", b'"quite so"'))
    call = json.loads(agentk("audit", "web", "-o", "json").out)["items"][0]
    ran = agentk("audit", "erase", call["effect"], "--reason", "it was asked for")
    assert (ran.code, ran.out) == (0, f"{call['effect']}: 2 bodies erased\n")
    told = agentk("audit", "web", "-o", "json").out
    assert "peculiar" not in told and "quite so" not in told and call["effect"] in told
    assert agentk("audit", "verify").code == 0
    assert "no body" in agentk("audit", "erase", "nothing-of-the-kind").err
    assert agentk("audit", "erase").code == agentk("audit", "web", "--reason", "x").code == 2
