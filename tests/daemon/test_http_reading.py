from typing import Any

import pytest

from tests.daemon.conftest import AGENTS, Api, agent, config

CONFIGS = "/api/v1/namespaces/default/configmaps"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
PARTIAL = {"Accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
PARTIALS = {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}


def _configs(api: Api, count: int) -> None:
    for number in range(count):
        labels = {"even": str(number % 2 == 0).lower()}
        body = config(f"c{number:03}", k="v")
        api.ok("POST", CONFIGS, body | {"metadata": body["metadata"] | {"labels": labels}})


def test_list_has_kind_version_and_items(api: Api) -> None:
    api.ok("POST", AGENTS, agent("a"))
    listed = api.ok("GET", AGENTS)
    assert (listed["kind"], listed["apiVersion"]) == ("AgentList", "agentk.dev/v1alpha1")
    assert int(listed["metadata"]["resourceVersion"]) > 0
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a"]


def test_list_of_nothing_is_an_empty_list(api: Api) -> None:
    assert api.ok("GET", AGENTS)["items"] == []


def test_lists_go_over_all_namespaces(api: Api) -> None:
    api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
    api.ok("POST", CONFIGS, config("a"))
    api.ok("POST", CONFIGS.replace("default", "team"), config("b"))
    names = [item["metadata"]["name"] for item in api.ok("GET", "/api/v1/configmaps")["items"]]
    assert names == ["a", "b"]
    api.fails(405, "POST", "/api/v1/configmaps", config("c"))


def test_pages_hold_together(api: Api) -> None:
    _configs(api, 5)
    first = api.ok("GET", CONFIGS, query={"limit": 2})
    assert first["metadata"]["remainingItemCount"] == 3
    api.ok("DELETE", f"{CONFIGS}/c004")
    names, cont = [], first["metadata"]["continue"]
    while cont:
        page = api.ok("GET", CONFIGS, query={"limit": 2, "continue": cont})
        names += [item["metadata"]["name"] for item in page["items"]]
        cont = page["metadata"].get("continue")
    assert names == ["c002", "c003", "c004"]


def test_long_list_is_whole_json(api: Api) -> None:
    _configs(api, 230)
    assert len(api.ok("GET", CONFIGS)["items"]) == 230
    assert len(api.ok("GET", CONFIGS, headers=TABLE)["rows"]) == 230


def test_selectors_choose(api: Api) -> None:
    _configs(api, 4)
    assert len(api.ok("GET", CONFIGS, query={"labelSelector": "even=true"})["items"]) == 2
    assert len(api.ok("GET", CONFIGS, query={"fieldSelector": "metadata.name=c001"})["items"]) == 1
    api.fails(400, "GET", CONFIGS, query={"labelSelector": "a=(b"})
    api.fails(400, "GET", CONFIGS, query={"fieldSelector": "data.k=v"})


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"limit": "-1"}, 400),
        ({"limit": "many"}, 400),
        ({"continue": "x"}, 400),
        ({"resourceVersion": "x"}, 400),
        ({"resourceVersion": "9" * 15}, 504),
        ({"resourceVersion": "1", "resourceVersionMatch": "Exact"}, 410),
        ({"resourceVersionMatch": "Exact"}, 400),
        ({"resourceVersion": "1", "resourceVersionMatch": "Sometimes"}, 400),
        ({"watch": "maybe"}, 400),
    ],
)
def test_bad_list_queries(lasting: Api, query: dict[str, str], status: int) -> None:
    lasting.fails(status, "GET", CONFIGS, query=query)


def test_list_not_older_than_now(api: Api) -> None:
    version = api.ok("GET", CONFIGS)["metadata"]["resourceVersion"]
    for match in ("NotOlderThan", "Exact"):
        api.ok("GET", CONFIGS, query={"resourceVersion": version, "resourceVersionMatch": match})


def test_table_is_drawn_for_lists_and_objects(api: Api) -> None:
    api.ok("POST", AGENTS, agent("a"))
    for path in (AGENTS, f"{AGENTS}/a"):
        drawn = api.ok("GET", path, headers=TABLE)
        assert drawn["kind"] == "Table"
        names = [column["name"] for column in drawn["columnDefinitions"]]
        assert drawn["rows"][0]["cells"][names.index("Name")] == "a"
        assert drawn["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
        assert drawn["metadata"]["resourceVersion"]


@pytest.mark.parametrize(("include", "kind"), [("Object", "Agent"), ("None", None)])
def test_table_carries_what_was_asked(api: Api, include: str, kind: Any) -> None:
    api.ok("POST", AGENTS, agent("a"))
    drawn = api.ok("GET", AGENTS, headers=TABLE, query={"includeObject": include})
    assert (drawn["rows"][0].get("object") or {}).get("kind") == kind


def test_metadata_alone(api: Api) -> None:
    made = api.ok("POST", AGENTS, agent("a"))
    one = api.ok("GET", f"{AGENTS}/a", headers=PARTIAL)
    assert (one["kind"], one["metadata"], "spec" in one) == ("PartialObjectMetadata", made["metadata"], False)
    many = api.ok("GET", AGENTS, headers=PARTIALS)
    assert (many["kind"], "spec" in many["items"][0]) == ("PartialObjectMetadataList", False)


@pytest.mark.parametrize(
    "accept",
    ["application/vnd.kubernetes.protobuf", "text/html", "application/json;as=Table;v=v9;g=meta.k8s.io"],
)
def test_what_cannot_be_served_is_not_acceptable(lasting: Api, accept: str) -> None:
    lasting.fails(406, "GET", AGENTS, headers={"Accept": accept})


@pytest.mark.parametrize(
    "accept",
    ["*/*", "application/json", "application/vnd.kubernetes.protobuf, application/json", "application/*"],
)
def test_json_is_acceptable(lasting: Api, accept: str) -> None:
    assert lasting.ok("GET", AGENTS, headers={"Accept": accept})["kind"] == "AgentList"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/apis/agentk.dev/v1alpha1/agnets", 404),
        ("GET", "/apis/apps/v1", 404),
        ("GET", "/agentk/v1/nothing", 404),
        ("GET", "/openapi/v3/apis/apps/v1", 404),
        ("PUT", AGENTS, 405),
        ("POST", f"{AGENTS}/a", 405),
        ("GET", f"{AGENTS}/a/signal", 405),
        ("DELETE", f"{AGENTS}/a/status", 405),
        ("POST", "/agentk/v1/status", 405),
        ("OPTIONS", AGENTS, 405),
        ("GET", f"{AGENTS}/a", 404),
    ],
)
def test_wrong_paths_and_methods_are_a_status(lasting: Api, method: str, path: str, status: int) -> None:
    told = lasting.fails(status, method, path)
    assert told["message"]


def test_wrong_method_says_which_are_right(api: Api) -> None:
    answer = api.call("PUT", AGENTS)
    assert answer.headers["allow"] == "GET, POST, DELETE"


def test_deletion_answers_with_a_status(api: Api) -> None:
    made = api.ok("POST", CONFIGS, config("c"))
    told = api.ok("DELETE", f"{CONFIGS}/c")
    assert (told["status"], told["details"]["uid"]) == ("Success", made["metadata"]["uid"])
    api.fails(404, "DELETE", f"{CONFIGS}/c")


def test_deletion_that_waits_answers_with_the_object(api: Api) -> None:
    body = agent("a")
    body["metadata"]["finalizers"] = ["agentk.dev/box"]
    api.ok("POST", AGENTS, body)
    told = api.ok("DELETE", f"{AGENTS}/a", {"gracePeriodSeconds": 3})
    assert told["metadata"]["deletionTimestamp"]
    assert told["metadata"]["deletionGracePeriodSeconds"] == 3
    api.ok(
        "PATCH",
        f"{AGENTS}/a",
        {"metadata": {"finalizers": None}},
        headers={"Content-Type": "application/merge-patch+json"},
    )
    api.fails(404, "GET", f"{AGENTS}/a")


@pytest.mark.parametrize(
    "body",
    [
        {"propagationPolicy": "Sideways"},
        {"gracePeriodSeconds": -1},
        {"gracePeriodSeconds": "soon"},
        {"gracePeriodSeconds": True},
        {"dryRun": ["Some"]},
        {"preconditions": "x"},
        {"preconditions": {"uid": 1}},
        {"kind": "Pod"},
        [],
    ],
)
def test_bad_delete_options(api: Api, body: Any) -> None:
    api.ok("POST", CONFIGS, config("c"))
    api.fails(400, "DELETE", f"{CONFIGS}/c", body)
    api.ok("GET", f"{CONFIGS}/c")


def test_preconditions_hold_the_deletion_back(api: Api) -> None:
    made = api.ok("POST", CONFIGS, config("c"))
    for key in ("uid", "resourceVersion"):
        api.fails(409, "DELETE", f"{CONFIGS}/c", {"preconditions": {key: "1"}})
    api.ok("DELETE", f"{CONFIGS}/c", {"preconditions": {"uid": made["metadata"]["uid"]}})


def test_collection_is_deleted_by_selector(api: Api) -> None:
    _configs(api, 4)
    told = api.ok("DELETE", CONFIGS, query={"labelSelector": "even=true"})
    assert len(told["items"]) == 2
    assert [item["metadata"]["name"] for item in api.ok("GET", CONFIGS)["items"]] == ["c001", "c003"]


@pytest.mark.parametrize(
    ("policy", "finalizer"), [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")]
)
def test_owner_waits_for_what_happens_to_its_dependents(api: Api, policy: str, finalizer: str) -> None:
    api.ok("POST", CONFIGS, config("owner"))
    options = {"propagationPolicy": policy, "preconditions": {"uid": "another"}}
    api.fails(409, "DELETE", f"{CONFIGS}/owner", options)
    told = api.ok("DELETE", f"{CONFIGS}/owner", {"propagationPolicy": policy})
    assert told["metadata"]["finalizers"] == [finalizer]
    assert told["metadata"]["deletionTimestamp"]
    assert api.ok("DELETE", f"{CONFIGS}/owner", {"propagationPolicy": policy}) == told


@pytest.mark.parametrize("grace", [0, 7, None])
def test_grace_of_a_deletion_is_noted_only_when_given(api: Api, grace: int | None) -> None:
    body = config("c")
    body["metadata"]["finalizers"] = ["example.com/wait"]
    api.ok("POST", CONFIGS, body)
    told = api.ok("DELETE", f"{CONFIGS}/c", query={} if grace is None else {"gracePeriodSeconds": grace})
    assert told["metadata"].get("deletionGracePeriodSeconds") == grace
