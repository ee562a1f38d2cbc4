"""`from agentk import Client`: a person's own program on the host, with a real daemon and agents in real jails."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentk
from agentk.api import errors, kinds
from tests.flows import household
from tests.flows.household import Space, manifest, python, shell

pytestmark = household.needs

ROUTE = manifest(
    "ModelRoute",
    "default",
    spec={"scripted": {"rules": [{"match": {}, "reply": {"text": "forty-two"}}]}},
)


@pytest.fixture
def host(space: Space) -> Iterator[agentk.Client]:
    with agentk.Client(space.name, socket=space.home.places.socket) as made:
        yield made


def test_apply_takes_files_text_and_dicts_and_packs_sources(host: agentk.Client, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text("print('packed')")
    written = household.text(python("filed", "pass", source={"path": "app"}, command=["python", "main.py"]))
    (tmp_path / "agent.json").write_text(written)
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: texted}\ndata: {a: b}\n"
    made = host.apply(tmp_path, config, shell("told", "echo told"))
    assert sorted(obj["metadata"]["name"] for obj in made) == ["filed", "texted", "told"]
    assert host.wait("filed", timeout=household.SECONDS)["status"]["phase"] == "Succeeded"
    assert list(host.logs("filed")) == ["packed"]
    assert host.get("texted", "configmap")["data"] == {"a": "b"}
    with pytest.raises(errors.NotFound):
        host.apply("nowhere.yaml")
    with pytest.raises(agentk.AgentkError, match="did you mean"):
        host.apply(manifest("Agent", "x", spec={"comand": ["x"]}))


def test_a_lock_file_beside_a_manifest_is_sent(host: agentk.Client, tmp_path: Path) -> None:
    lock = f"tree==2.1 --hash=sha256:{'0' * 64}\n"
    (tmp_path / "requirements.lock").write_text(lock)
    wanted = shell("locked", "true", suspend=True, environment={"python": {"lockFile": "requirements.lock"}})
    (tmp_path / "agent.json").write_text(household.text(wanted))
    (made,) = host.apply(tmp_path / "agent.json")
    assert made["spec"]["environment"] == {"python": {"lock": lock}}
    (tmp_path / "requirements.lock").unlink()
    with pytest.raises(errors.Invalid, match="cannot be read"):
        host.apply(tmp_path / "agent.json")


def test_what_is_there_is_listed_watched_waited_for_and_deleted(host: agentk.Client) -> None:
    host.apply(shell("a", "sleep 1000") | {"metadata": {"name": "a", "labels": {"tier": "web"}}})
    host.wait("a", "Ready", timeout=household.SECONDS)
    assert [obj["metadata"]["name"] for obj in host.list(labels="tier=web")] == ["a"]
    assert host.list(labels="tier=db") == []
    events = host.watch(labels="tier=web")
    assert (first := next(events)).type == "ADDED" and first.obj["metadata"]["name"] == "a"
    leaving = threading.Thread(target=agentk.Client(host.namespace, socket=host._socket).delete, args=("a",))
    leaving.start()
    assert "DELETED" in (event.type for event in events)
    leaving.join()
    with pytest.raises(errors.NotFound):
        host.wait("a")


def test_waiting_ends_when_it_can_no_longer_come_true(host: agentk.Client) -> None:
    host.apply(shell("a", "exit 3"))
    host.wait("a", timeout=household.SECONDS)
    with pytest.raises(errors.Conflict, match="it has failed"):
        host.wait("a", "Ready", timeout=household.SECONDS)
    assert host.wait("a", lambda obj: obj["status"].get("exitCode") == 3)["status"]["reason"] == "Error"
    host.apply(shell("b", "sleep 1000"))
    with pytest.raises(errors.Timeout):
        host.wait("b", timeout=0.5)


def test_run_gives_output_and_exit_code_and_leaves_nothing(host: agentk.Client) -> None:
    result = host.run({"command": ["sh", "-c", "echo out; echo err >&2; exit 7"]})
    assert (result.ok, result.exit_code, result.reason) == (False, 7, "Error")
    assert sorted(result.output.splitlines()) == ["err", "out"]
    result = host.run(shell("named", "echo $((6 * 7))"), timeout=60, keep=True)
    assert (result.ok, str(result), result.name) == (True, "42", "named")
    assert [obj["metadata"]["name"] for obj in host.list()] == ["named"]
    assert host.run({"command": ["sleep", "1000"]}, timeout=1).exit_code == 124
    with pytest.raises(errors.AlreadyExists):
        host.run(shell("named", "true"))


def test_logs_follow_until_the_end(host: agentk.Client) -> None:
    host.apply(shell("a", "for n in 1 2 3; do echo $n; sleep 0.2; done"))
    host.wait("a", "Ready", timeout=household.SECONDS)
    assert list(host.logs("a", follow=True)) == ["1", "2", "3"]
    assert list(host.logs("a", tail=1)) == ["3"]


def test_a_host_program_thinks_through_the_same_gate(host: agentk.Client, space: Space) -> None:
    host.apply(ROUTE)
    answer = host.think("What is the answer?", max_tokens=50)
    assert (str(answer), answer.model) == ("forty-two", "scripted")
    assert answer.usage.output_tokens > 0
    told = space.agentk("audit", "@host", "-o", "json").json["items"]
    assert [(one["method"], one["status"], one["agent"]) for one in told] == [("think", "ok", "@host")]
    assert told[0]["asked"]["prompt"] == "What is the answer?"
    with pytest.raises(errors.NotFound):
        host.think("x", route="nowhere")
    with pytest.raises(errors.NotFound):
        host.think("x", policy="nobodys")
    with pytest.raises(errors.BadRequest):
        host.think("x", temperature=17)


def test_a_policy_and_a_quota_hold_for_a_host_program_too(host: agentk.Client, space: Space) -> None:
    mute = f"mute-{space.name}"
    rules = [{"name": "no-models", "effect": "Deny", "methods": ["think"]}]
    host.apply(ROUTE, manifest("Policy", mute, spec={"level": "baseline", "rules": rules}))
    with pytest.raises(errors.Denied, match="no-models"):
        host.think("x", policy=mute)
    host._api.delete(kinds.POLICY, "", mute)
    host.apply(manifest("Quota", "team", spec={"hard": {"calls": 1}}))
    household.until("the quota counts", lambda: "quota/team" in space.agentk("budget").out)
    host.think("x")
    with pytest.raises(errors.BudgetExceeded, match="quota/team"):
        host.think("x")
