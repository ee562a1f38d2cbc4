import hashlib

import pytest

from agentk.api import kinds
from tests.daemon.conftest import AGENTS, Api, agent

DATA = b"packed source" * 1000
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
BLOB = f"/agentk/v1/blobs/{DIGEST}"
BYTES = {"Content-Type": "application/octet-stream"}


def test_blob_is_kept_under_its_digest(api: Api) -> None:
    assert api.call("HEAD", BLOB).status == 404
    assert api.call("PUT", BLOB, DATA, headers=BYTES).status == 201
    assert api.call("PUT", BLOB, DATA, headers=BYTES).status == 201
    answer = api.call("HEAD", BLOB)
    assert (answer.status, answer.body) == (200, b"")
    assert api.run(api.store.get_blob(DIGEST)) == DATA


def test_blob_that_is_not_what_it_says_is_refused(api: Api) -> None:
    assert "the data is" in api.fails(400, "PUT", BLOB, DATA + b"!", headers=BYTES)["message"]
    assert api.call("HEAD", BLOB).status == 404


@pytest.mark.parametrize("digest", ["sha256:x", "md5:00", "..%2f..%2fetc%2fpasswd", "sha256:" + "A" * 64])
def test_what_is_no_digest_is_refused(lasting: Api, digest: str) -> None:
    assert lasting.call("PUT", f"/agentk/v1/blobs/{digest}", b"x").status in (400, 404)


def test_blob_of_a_false_size_is_refused_before_it_is_read(api: Api) -> None:
    connection = api.connect()
    connection.putrequest("PUT", BLOB)
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_doctor_status_and_shutdown_are_the_house_s(api: Api) -> None:
    told = api.ok("GET", "/agentk/v1/doctor")
    assert told["ok"] is True
    assert told["findings"][0]["name"] == "disk"
    assert api.ok("GET", "/agentk/v1/status") == {"pid": 1}
    assert api.call("POST", "/agentk/v1/shutdown", {"killAgents": True}).status == 202
    assert api.call("POST", "/agentk/v1/shutdown").status == 202
    api.fails(400, "POST", "/agentk/v1/shutdown", {"killAgents": "yes"})
    api.fails(400, "POST", "/agentk/v1/shutdown", {"killagents": True})
    assert api.asked == [True, False]


def test_health(lasting: Api) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert lasting.get(path).body == b"ok"


def test_metrics_count_objects(api: Api) -> None:
    api.ok("POST", AGENTS, agent("a"))
    text = api.get("/metrics").body.decode()
    assert 'agentk_objects{resource="agents.agentk.dev"} 1' in text
    assert "process_resident_memory_bytes" in text


def test_metrics_tell_of_pools_and_an_agent_takes_from_one(api: Api) -> None:
    limits = {"resources": {"limits": {"memory": "32Mi"}}}
    pool = {"apiVersion": "agentk.dev/v1alpha1", "kind": "Pool", "metadata": {"name": "p"}}
    asked = agent("a")
    asked["spec"]["poolRef"] = {"name": "p"}
    told = api.fails(422, "POST", AGENTS, asked)
    assert told["details"]["causes"][0]["field"] == "spec.poolRef.name"
    api.ok("POST", kinds.POOL.path("default"), pool | {"spec": {"size": 2, "template": limits}})
    made = api.ok("POST", AGENTS, asked)
    assert made["spec"]["resources"]["limits"]["memory"] == "32Mi"
    text = api.get("/metrics").body.decode()
    assert 'agentk_pool_hand_out_seconds_bucket{namespace="default",pool="p",le="+Inf"} 0' in text


def test_discovery_names_every_kind(lasting: Api) -> None:
    assert lasting.ok("GET", "/api")["versions"] == ["v1"]
    assert [group["name"] for group in lasting.ok("GET", "/apis")["groups"]] == ["agentk.dev"]
    assert lasting.ok("GET", "/apis/agentk.dev")["preferredVersion"]["groupVersion"] == "agentk.dev/v1alpha1"
    found = {}
    for path in ("/api/v1", "/apis/agentk.dev/v1alpha1"):
        found |= {one["name"]: one for one in lasting.ok("GET", path)["resources"]}
    for kind in kinds.KINDS:
        assert found[kind.plural]["kind"] == kind.kind
        assert found[kind.plural]["namespaced"] == kind.namespaced
    assert found["agents"]["shortNames"] == ["ag"]
    assert found["agents/log"]["verbs"] == ["get"]
    assert found["agents/status"]["verbs"] == ["get", "patch", "update"]


def test_discovery_comes_in_one_piece_when_asked(lasting: Api) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    answer = lasting.call("GET", "/apis", headers={"Accept": accept})
    assert "as=APIGroupDiscoveryList" in answer.headers["content-type"]
    resources = answer.json["items"][0]["versions"][0]["resources"]
    assert {one["resource"] for one in resources} >= {"agents", "runtimes"}


def test_openapi_tells_each_kind_in_both_versions(lasting: Api) -> None:
    index = lasting.ok("GET", "/openapi/v3")["paths"]
    assert set(index) == {"api/v1", "apis/agentk.dev/v1alpha1"}
    document = lasting.ok("GET", index["apis/agentk.dev/v1alpha1"]["serverRelativeURL"])
    schema = document["components"]["schemas"]["dev.agentk.v1alpha1.Agent"]
    assert schema["x-kubernetes-group-version-kind"][0]["kind"] == "Agent"
    assert "command" in schema["properties"]["spec"]["properties"]
    patch = document["paths"]["/apis/agentk.dev/v1alpha1/namespaces/{namespace}/agents/{name}"]["patch"]
    assert "fieldValidation" in {parameter["name"] for parameter in patch["parameters"]}
    old = lasting.ok("GET", "/openapi/v2")
    assert set(document["components"]["schemas"]) <= set(old["definitions"])
    assert "oneOf" not in str(old["definitions"])
    answer = lasting.call(
        "GET", "/openapi/v2", headers={"Accept": "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}
    )
    assert answer.status == 406


def test_every_reference_in_openapi_leads_somewhere(lasting: Api) -> None:
    def references(value: object) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*(references(held) for held in value.values()))
        return set().union(*(references(held) for held in value)) if isinstance(value, list) else set()

    for path in ("/openapi/v2", "/openapi/v3/api/v1", "/openapi/v3/apis/agentk.dev/v1alpha1"):
        document = lasting.ok("GET", path)
        for reference in references(document):
            place = document
            for step in reference.removeprefix("#/").split("/"):
                place = place[step]


def test_version_is_ours_and_kubernetes(lasting: Api) -> None:
    told = lasting.ok("GET", "/version")
    assert (told["major"], told["agentkVersion"]) == ("1", "0.1.0")
