from typing import Any

import pytest

from tests.daemon.conftest import AGENTS, Api, agent, config

CONFIGS = "/api/v1/namespaces/default/configmaps"
MERGE = {"Content-Type": "application/merge-patch+json"}
JSON_PATCH = {"Content-Type": "application/json-patch+json"}


def test_created_agent_comes_back_with_defaults(api: Api) -> None:
    answer = api.call("POST", AGENTS, agent("a"))
    made = answer.json
    assert answer.status == 201
    assert made["metadata"]["uid"] and made["metadata"]["generation"] == 1
    assert made["spec"]["runtimeRef"]["name"] == "nsjail"
    assert api.ok("GET", f"{AGENTS}/a") == made


def test_kind_and_api_version_follow_from_the_path(api: Api) -> None:
    made = api.ok("POST", CONFIGS, {"metadata": {"name": "c"}, "data": {"a": "b"}})
    assert (made["apiVersion"], made["kind"]) == ("v1", "ConfigMap")


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (AGENTS, {"kind": "Quota"}),
        (AGENTS, {"apiVersion": "v1"}),
        (AGENTS, {"metadata": {"name": "a", "namespace": "other"}}),
        (AGENTS, {"metadata": "a"}),
    ],
)
def test_object_that_is_not_of_the_path_is_refused(lasting: Api, path: str, change: Any) -> None:
    lasting.fails(400, "POST", path, agent("a") | change)


def test_second_of_a_name_is_refused(api: Api) -> None:
    api.ok("POST", AGENTS, agent("a"))
    assert api.fails(409, "POST", AGENTS, agent("a"))["reason"] == "AlreadyExists"


def test_names_are_generated(api: Api) -> None:
    body = agent() | {"metadata": {"generateName": "run-"}}
    names = {api.ok("POST", AGENTS, body)["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("run-") and len(name) == 9 for name in names)


def test_missing_namespace_says_what_to_do(api: Api) -> None:
    told = api.fails(404, "POST", AGENTS.replace("default", "nowhere"), agent("a"))
    assert 'namespaces "nowhere" not found' in told["message"]
    assert told["details"]["hint"]


def test_ending_namespace_takes_nothing_new(api: Api) -> None:
    body = {"metadata": {"name": "team", "finalizers": ["example.com/wait"]}}
    api.ok("POST", "/api/v1/namespaces", body)
    api.ok("DELETE", "/api/v1/namespaces/team")
    api.fails(403, "POST", AGENTS.replace("default", "team"), agent("a"))
    told = api.apply(AGENTS.replace("default", "team") + "/b", agent("b"))
    assert told.status == 403


def test_default_namespace_stays(api: Api) -> None:
    api.fails(403, "DELETE", "/api/v1/namespaces/default")


def test_every_problem_is_a_cause(api: Api) -> None:
    body = agent("a", comand=["x"], restartPolicy="Alwayz", priority="high")
    told = api.fails(422, "POST", AGENTS, body)
    fields = {cause["field"] for cause in told["details"]["causes"]}
    assert fields == {"spec.comand", "spec.restartPolicy", "spec.priority"}
    assert "did you mean 'command'" in str(told["details"]["causes"])


def test_warn_lets_unknown_fields_pass_with_a_header(api: Api) -> None:
    answer = api.call("POST", AGENTS, agent("a", comand=["x"]), query={"fieldValidation": "Warn"})
    assert answer.status == 201
    assert "comand" not in answer.json["spec"]
    assert "spec.comand" in answer.headers["warning"]
    assert answer.headers["warning"].startswith("299 ")


def test_ignore_is_silent(api: Api) -> None:
    answer = api.call("POST", AGENTS, agent("a", comand=["x"]), query={"fieldValidation": "Ignore"})
    assert (answer.status, "warning" in answer.headers) == (201, False)


@pytest.mark.parametrize(
    "query", [{"fieldValidation": "Loose"}, {"dryRun": "Some"}, {"fieldManager": "m" * 129}]
)
def test_queries_that_mean_nothing_are_refused(lasting: Api, query: dict[str, str]) -> None:
    lasting.fails(400, "POST", AGENTS, agent("a"), query=query)


def test_dry_run_leaves_no_trace(api: Api) -> None:
    dry = {"dryRun": "All"}
    assert api.ok("POST", AGENTS, agent("a"), query=dry)["spec"]["command"]
    api.fails(404, "GET", f"{AGENTS}/a")
    api.ok("POST", AGENTS, agent("a"))
    api.ok("PATCH", f"{AGENTS}/a", {"spec": {"priority": 5}}, query=dry, headers=MERGE)
    api.ok("DELETE", f"{AGENTS}/a", query=dry)
    assert api.ok("GET", f"{AGENTS}/a")["spec"]["priority"] == 0


def test_generation_moves_with_the_spec_alone(api: Api) -> None:
    api.ok("POST", AGENTS, agent("a"))
    labelled = {"metadata": {"labels": {"x": "y"}}}
    assert api.ok("PATCH", f"{AGENTS}/a", labelled, headers=MERGE)["metadata"]["generation"] == 1
    changed = {"spec": {"priority": 3}}
    assert api.ok("PATCH", f"{AGENTS}/a", changed, headers=MERGE)["metadata"]["generation"] == 2


def test_put_with_an_old_version_conflicts(api: Api) -> None:
    made = api.ok("POST", CONFIGS, config("c", a="1"))
    api.ok("PUT", f"{CONFIGS}/c", made | {"data": {"a": "2"}})
    assert api.fails(409, "PUT", f"{CONFIGS}/c", made | {"data": {"a": "3"}})["reason"] == "Conflict"
    assert api.ok("GET", f"{CONFIGS}/c")["data"] == {"a": "2"}


def test_put_without_a_version_replaces_what_is_there(api: Api) -> None:
    api.ok("POST", CONFIGS, config("c", a="1"))
    assert api.ok("PUT", f"{CONFIGS}/c", config("c", b="2"))["data"] == {"b": "2"}


def test_put_makes_nothing(api: Api) -> None:
    api.fails(404, "PUT", f"{CONFIGS}/c", config("c"))


def test_put_of_the_same_changes_nothing(api: Api) -> None:
    made = api.ok("POST", CONFIGS, config("c", a="1"))
    assert api.ok("PUT", f"{CONFIGS}/c", made)["metadata"] == made["metadata"]


def test_put_of_another_uid_conflicts(api: Api) -> None:
    made = api.ok("POST", CONFIGS, config("c"))
    metadata = {"name": "c", "uid": "11111111-1111-1111-1111-111111111111"}
    api.fails(409, "PUT", f"{CONFIGS}/c", made | {"metadata": metadata})


def test_merge_patch_removes_with_null(api: Api) -> None:
    api.ok("POST", CONFIGS, config("c", a="1", b="2"))
    assert api.ok("PATCH", f"{CONFIGS}/c", {"data": {"a": None}}, headers=MERGE)["data"] == {"b": "2"}


def test_json_patch_whose_test_fails_changes_nothing(api: Api) -> None:
    api.ok("POST", CONFIGS, config("c", a="1"))
    operations = [
        {"op": "replace", "path": "/data/a", "value": "2"},
        {"op": "test", "path": "/data/a", "value": "1"},
    ]
    api.fails(422, "PATCH", f"{CONFIGS}/c", operations, headers=JSON_PATCH)
    del operations[1]
    assert api.ok("PATCH", f"{CONFIGS}/c", operations, headers=JSON_PATCH)["data"] == {"a": "2"}


def test_patch_that_names_an_old_version_conflicts(api: Api) -> None:
    made = api.ok("POST", CONFIGS, config("c", a="1"))
    version = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    api.ok("PATCH", f"{CONFIGS}/c", version | {"data": {"a": "2"}}, headers=MERGE)
    api.fails(409, "PATCH", f"{CONFIGS}/c", version | {"data": {"a": "3"}}, headers=MERGE)


def test_patch_cannot_rename(api: Api) -> None:
    api.ok("POST", CONFIGS, config("c"))
    api.fails(400, "PATCH", f"{CONFIGS}/c", {"metadata": {"name": "d"}}, headers=MERGE)


def test_strategic_merge_is_for_core_kinds_alone(api: Api) -> None:
    strategic = {"Content-Type": "application/strategic-merge-patch+json"}
    api.ok("POST", CONFIGS, config("c", a="1"))
    api.ok("POST", AGENTS, agent("a"))
    assert api.ok("PATCH", f"{CONFIGS}/c", {"data": {"b": "2"}}, headers=strategic)["data"] == {
        "a": "1",
        "b": "2",
    }
    told = api.fails(415, "PATCH", f"{AGENTS}/a", {"spec": {"priority": 1}}, headers=strategic)
    assert "merge-patch" in told["details"]["hint"]
    api.fails(400, "PATCH", f"{CONFIGS}/c", {"data": {"$patch": "replace"}}, headers=strategic)


def test_patches_at_once_all_land(api: Api) -> None:
    from concurrent.futures import ThreadPoolExecutor

    api.ok("POST", CONFIGS, config("c"))

    def patch(number: int) -> None:
        api.ok("PATCH", f"{CONFIGS}/c", {"data": {f"k{number}": "v"}}, headers=MERGE)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(patch, range(24)))
    assert len(api.ok("GET", f"{CONFIGS}/c")["data"]) == 24


def test_status_is_written_through_its_own_path_alone(api: Api) -> None:
    api.ok("POST", AGENTS, agent("a") | {"status": {"phase": "Running"}})
    assert "status" not in api.ok("GET", f"{AGENTS}/a")
    change = {"spec": {"priority": 9}, "status": {"phase": "Running"}}
    made = api.ok("PATCH", f"{AGENTS}/a/status", change, headers=MERGE)
    assert (made["status"], made["spec"]["priority"]) == ({"phase": "Running"}, 0)
    made = api.ok("PATCH", f"{AGENTS}/a", change, headers=MERGE)
    assert (made["status"], made["spec"]["priority"]) == ({"phase": "Running"}, 9)
    made["status"], made["spec"]["priority"] = {"phase": "Failed"}, 1
    made = api.ok("PUT", f"{AGENTS}/a/status", made)
    assert (made["status"], made["spec"]["priority"]) == ({"phase": "Failed"}, 9)
    assert api.ok("GET", f"{AGENTS}/a/status")["status"] == {"phase": "Failed"}


def test_runtime_defaults_go_under_the_spec(api: Api) -> None:
    runtime = {
        "apiVersion": "agentk.dev/v1alpha1",
        "kind": "Runtime",
        "metadata": {"name": "small"},
        "spec": {"type": "nsjail", "defaults": {"resources": {"limits": {"memory": "32Mi", "pids": 7}}}},
    }
    api.ok("POST", "/apis/agentk.dev/v1alpha1/runtimes", runtime)
    made = api.ok("POST", AGENTS, agent("a", runtimeRef={"name": "small"}, resources={"limits": {"pids": 9}}))
    limits = made["spec"]["resources"]["limits"]
    assert (limits["memory"], limits["pids"]) == ("32Mi", 9)


def test_apply_makes_changes_and_removes(api: Api) -> None:
    first = api.apply(f"{CONFIGS}/c", config("c", a="1", b="2"))
    assert first.status == 201
    second = api.apply(f"{CONFIGS}/c", config("c", a="1"))
    assert (second.status, second.json["data"]) == (200, {"a": "1"})
    third = api.apply(f"{CONFIGS}/c", config("c", a="1"))
    told = [answer.headers["agentk-applied"] for answer in (first, second, third)]
    assert told == ["created", "configured", "unchanged"]
    assert third.json == second.json


def test_apply_conflicts_name_the_owner_and_force_takes(api: Api) -> None:
    api.apply(f"{CONFIGS}/c", config("c", a="1"), "alice")
    told = api.apply(f"{CONFIGS}/c", config("c", a="2"), "bob")
    assert told.status == 409
    assert "alice" in str(told.json["details"]["causes"])
    assert api.apply(f"{CONFIGS}/c", config("c", a="2"), "bob", force="true").json["data"] == {"a": "2"}


def test_apply_reads_yaml(api: Api) -> None:
    text = b"kind: ConfigMap\napiVersion: v1\nmetadata: {name: c}\ndata:\n  a: 'yes'\n"
    assert api.apply(f"{CONFIGS}/c", text).json["data"] == {"a": "yes"}
    assert api.apply(f"{CONFIGS}/c", b"{kind: ConfigMap, metadata: {name: c}, data: {a: b}}").json[
        "data"
    ] == {"a": "b"}


def test_apply_needs_a_manager_and_force_an_apply(api: Api) -> None:
    api.fails(
        400, "PATCH", f"{CONFIGS}/c", config("c"), headers={"Content-Type": "application/apply-patch+yaml"}
    )
    api.ok("POST", CONFIGS, config("c"))
    api.fails(422, "PATCH", f"{CONFIGS}/c", {}, query={"force": "true"}, headers=MERGE)


def test_apply_takes_partial_objects_and_refuses_unknown_fields(api: Api) -> None:
    api.ok("POST", AGENTS, agent("a"))
    part = {"kind": "Agent", "metadata": {"name": "a"}, "spec": {"activeDeadlineSeconds": 4}}
    made = api.apply(f"{AGENTS}/a", part).json
    assert (made["spec"]["command"], made["spec"]["activeDeadlineSeconds"]) == (["sleep", "1"], 4)
    assert api.apply(f"{AGENTS}/a", part | {"spec": {"prio": 4}}).status == 422


def test_managers_are_noted(api: Api) -> None:
    api.call("POST", CONFIGS, config("c", a="1"), headers={"User-Agent": "kubectl/1.32 (linux)"})
    api.ok("PATCH", f"{CONFIGS}/c", {"data": {"b": "2"}}, query={"fieldManager": "bob"}, headers=MERGE)
    found = api.ok("GET", f"{CONFIGS}/c")["metadata"]["managedFields"]
    assert [(one["manager"], one["operation"]) for one in found] == [("kubectl", "Update"), ("bob", "Update")]


def test_secret_values_are_readable_and_never_in_managed_fields(api: Api) -> None:
    secrets = "/api/v1/namespaces/default/secrets"
    api.ok("POST", secrets, {"metadata": {"name": "s"}, "stringData": {"key": "hunter2hunter2"}})
    found = api.ok("GET", f"{secrets}/s")
    assert found["data"] == {"key": "aHVudGVyMmh1bnRlcjI="}
    assert "hunter2" not in str(found["metadata"]) and "aHVudGVyMmh1" not in str(found["metadata"])
