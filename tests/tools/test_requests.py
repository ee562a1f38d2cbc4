"""Requests of templates and of OpenAPI documents, and what comes back."""

import json
from typing import Any

import pytest

from agentk.api import errors
from agentk.tools import openapis, requests

ISSUES = {
    "method": "POST",
    "url": "https://api.example.com/repos/{owner}/issues",
    "query": {"labels": "{labels}", "page": "{page}", "fixed": "1"},
    "headers": [{"name": "X-Trace", "value": "t-{trace}"}, {"name": "X-Key", "valueFrom": {}}],
    "body": '{{"title": {title}, "all": {*}}}',
}


def asked(**given: Any) -> requests.Asked:
    return requests.asked(requests.form(ISSUES), given)


def test_every_value_stays_where_it_belongs() -> None:
    made = asked(owner="a/b c?x=#", title='"}, "admin": {"', labels=["x&y", "z"], trace="7")
    assert (
        made.url == "https://api.example.com/repos/a%2Fb%20c%3Fx%3D%23/issues?labels=x%26y&labels=z&fixed=1"
    )
    body = json.loads(made.body)
    assert body["title"] == '"}, "admin": {"' and body["all"]["trace"] == "7" and "admin" not in body
    assert made.headers == (("X-Trace", "t-7"), ("Content-Type", "application/json"))


@pytest.mark.parametrize(
    "given",
    [
        {"owner": ".."},
        {"owner": "."},
        {"owner": "a\\..\\b"},
        {"owner": None},
        {},
        {"owner": "x", "trace": "a\r\nX-Admin: 1"},
        {"owner": "\ud800"},
    ],
)
def test_no_value_leads_elsewhere(given: dict[str, Any]) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        asked(**{"title": "t", **given})
    assert caught.value.field.startswith("params.arguments.")


def came(body: bytes, kind: str = "application/json", status: int = 200, truncated: bool = False) -> Any:
    return requests.outcome(
        requests.Came(status, {"content-type": kind}, body, truncated), "https://a.example/"
    )


def test_an_answer_is_told_as_what_it_is() -> None:
    assert came(b'{"a": 1}').structured == {"a": 1}
    wrong = came(b"no", "text/plain", 404)
    assert wrong.is_error and [one["text"] for one in wrong.content] == ["HTTP 404", "no"]
    assert came(b"[" * 100_000).structured is None
    assert came(b"\xff\xd8", "image/jpeg").content[0]["mimeType"] == "image/jpeg"
    assert came(b"\xff", "application/zip").content[0]["resource"]["blob"] == "/w=="
    assert came(b'{"a": 1', truncated=True).structured is None


DOCUMENT = """
openapi: 3.1.0
servers: [{url: "https://{region}.example.com/v2/", variables: {region: {default: eu}}}]
paths:
  /pets/{pet-id}:
    parameters:
    - $ref: "#/components/parameters/pet"
    put:
      operationId: renamePet
      summary: Renames a pet.
      parameters:
      - {name: dry, in: query, schema: {type: boolean}}
      - {name: X-Reason, in: header, schema: {type: string}}
      - {name: session, in: cookie, schema: {type: string}}
      requestBody:
        required: true
        content: {application/json: {schema: {$ref: "#/components/schemas/Pet"}}}
  /loop:
    get: {operationId: loop, parameters: [{$ref: "#/components/parameters/loop"}]}
  /out:
    get: {operationId: out, parameters: [{$ref: "https://evil.example/x"}]}
  .evil.example/x:
    get: {operationId: elsewhere}
  ":8443/x":
    get: {operationId: elsewhere}
  /upload:
    post: {operationId: upload, requestBody: {content: {multipart/form-data: {}}}}
components:
  parameters:
    pet: {name: pet-id, in: path, required: true, schema: {type: integer}, description: Which.}
    loop: {$ref: "#/components/parameters/loop"}
  schemas:
    Pet: {type: object, properties: {name: {type: string}, friend: {$ref: "#/components/schemas/Pet"}}}
"""


def test_an_operation_is_a_form_and_a_schema() -> None:
    found = openapis.operation(openapis.read(DOCUMENT, "d"), "renamePet")
    assert found.description == "Renames a pet."
    assert found.parameters["required"] == ["body", "pet-id"]
    assert set(found.parameters["properties"]) == {"pet-id", "dry", "X-Reason", "body"}
    assert found.parameters["properties"]["pet-id"] == {"type": "integer", "description": "Which."}
    assert "$ref" not in json.dumps(found.parameters)
    made = requests.asked(found.form, {"pet-id": 7, "dry": True, "body": {"name": "x"}})
    assert made.url == "https://eu.example.com/v2/pets/7?dry=true" and made.body == b'{"name":"x"}'
    assert found.form.method == "PUT" and made.headers == (("Content-Type", "application/json"),)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("loop", "circle"),
        ("out", "leads out"),
        ("upload", "no JSON"),
        ("none", "no operation"),
        ("elsewhere", "no operation"),
    ],
)
def test_an_operation_that_cannot_be_says_why(name: str, why: str) -> None:
    with pytest.raises(errors.Invalid, match=why):
        openapis.operation(openapis.read(DOCUMENT, "d"), name)


@pytest.mark.parametrize("servers", [[5], [[]], [{"url": 5, "variables": [1]}], "x", {}])
def test_a_document_that_is_none_says_so(servers: Any) -> None:
    paths = {"/": {"get": {"operationId": "x"}}}
    with pytest.raises(errors.Invalid, match="where its server is"):
        openapis.operation({"openapi": "3.0.0", "servers": servers, "paths": paths}, "x")


def test_a_bomb_of_references_is_refused() -> None:
    schemas = {f"S{n}": {"allOf": [{"$ref": f"#/components/schemas/S{n + 1}"}] * 8} for n in range(12)}
    schemas["S12"] = {"type": "string"}
    path = {
        "get": {
            "operationId": "x",
            "parameters": [{"name": "a", "in": "query", "schema": {"$ref": "#/components/schemas/S0"}}],
        }
    }
    document = {"openapi": "3.0.0", "servers": [{"url": "https://a.example"}], "paths": {"/": path}}
    with pytest.raises(errors.Invalid, match="too big"):
        openapis.operation({**document, "components": {"schemas": schemas}}, "x")
