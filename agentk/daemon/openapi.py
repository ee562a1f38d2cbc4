"""OpenAPI v2 and v3 made from the schemas, so that `kubectl explain`, its validation and code generators work. Pure."""

import copy
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from agentk.api import kinds, schemas
from agentk.daemon import paths

Document = dict[str, Any]

_JSON = "application/json"
_PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
)
# Swagger 2.0 has no words for these; Kubernetes leaves them out of v2 as well.
_NOT_IN_V2 = frozenset({"oneOf", "anyOf", "not"})


def group_versions() -> list[tuple[str, str]]:
    return sorted({(kind.group, kind.version) for kind in kinds.KINDS})


def place(group: str, version: str) -> str:
    """`api/v1` or `apis/GROUP/VERSION`."""
    return f"apis/{group}/{version}" if group else f"api/{version}"


def index() -> Document:
    """/openapi/v3: where each group's document is; the hash changes when it does."""
    return {
        "paths": {
            place(*one): {"serverRelativeURL": f"/openapi/v3/{place(*one)}?hash={_hash(*one)}"}
            for one in group_versions()
        }
    }


@functools.cache
def v3(group: str, version: str) -> Document | None:
    """One group's document; None when there is no such group. Shared: never change it."""
    served = _served(group, version)
    if not served:
        return None
    components = {name: made for kind in served for name, made in _components(kind).items()}
    components |= _shared()
    return {
        "openapi": "3.0.0",
        "info": {"title": "agentk", "version": version},
        "paths": {
            path: item for kind in served for path, item in _paths(kind, "#/components/schemas/").items()
        },
        "components": {"schemas": components},
    }


@functools.cache
def v2() -> Document:
    """Everything in one Swagger 2.0 document. Shared: never change it."""
    definitions: Document = {}
    found: Document = {}
    for kind in kinds.KINDS:
        definitions |= _components(kind)
        found |= _paths(kind, "#/definitions/")
    return {
        "swagger": "2.0",
        "info": {"title": "agentk", "version": kinds.VERSION},
        "paths": {path: _swagger_item(item) for path, item in found.items()},
        "definitions": _plain(_moved(definitions | _shared(), "#/definitions/")),
    }


def model(kind: kinds.Kind, suffix: str = "") -> str:
    """Name of a schema, in Kubernetes' reversed-domain form."""
    package = ".".join(reversed(kind.group.split("."))) if kind.group else "io.k8s.api.core"
    return f"{package}.{kind.version}.{kind.kind}{suffix}"


def _served(group: str, version: str) -> list[kinds.Kind]:
    return [kind for kind in kinds.KINDS if (kind.group, kind.version) == (group, version)]


def _hash(group: str, version: str) -> str:
    text = json.dumps(v3(group, version), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32].upper()


def _components(kind: kinds.Kind) -> Document:
    whole = copy.deepcopy(schemas.of(kind))
    whole["x-kubernetes-group-version-kind"] = [_meaning(kind)]
    listed = {
        "type": "object",
        "description": f"A list of {kind.plural}.",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the API."},
            "kind": {"type": "string", "description": f"{kind.kind}List."},
            "metadata": {"type": "object", "description": "resourceVersion and continue."},
            "items": {
                "type": "array",
                "description": "The objects.",
                "items": {"$ref": f"#/components/schemas/{model(kind)}"},
            },
        },
        "x-kubernetes-group-version-kind": [_meaning(kind) | {"kind": f"{kind.kind}List"}],
    }
    return {model(kind): whole, model(kind, "List"): listed}


def _shared() -> Document:
    return {
        "io.k8s.apimachinery.pkg.apis.meta.v1.Status": {
            "type": "object",
            "description": "How a call went.",
            "properties": {
                "status": {"type": "string", "description": "Success or Failure."},
                "message": {"type": "string", "description": "What happened."},
                "reason": {"type": "string", "description": "One word for why."},
                "code": {"type": "integer", "format": "int32", "description": "The HTTP status."},
            },
            "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Status"}],
        }
    }


def _meaning(kind: kinds.Kind) -> Document:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _paths(kind: kinds.Kind, prefix: str) -> Document:
    whole, listed = {"$ref": prefix + model(kind)}, {"$ref": prefix + model(kind, "List")}
    namespace = "{namespace}" if kind.namespaced else None
    found = {
        kind.path(namespace): {
            "get": _operation(
                kind, "list", listed, ("labelSelector", "fieldSelector", "limit", "continue", "watch")
            ),
            "post": _operation(kind, "post", whole, _WRITE, body=whole),
            "delete": _operation(
                kind, "deletecollection", whole, ("labelSelector", "fieldSelector", "dryRun")
            ),
        },
        kind.path(namespace, "{name}"): _object_item(kind, whole),
    }
    if kind.namespaced:
        found[kind.path()] = {
            "get": _operation(kind, "list", listed, ("labelSelector", "fieldSelector", "watch"))
        }
    if "status" in paths.parts(kind):
        item = _object_item(kind, whole)
        del item["delete"]
        found[kind.path(namespace, "{name}", "status")] = item
    for path, item in found.items():
        named = [name for name in ("namespace", "name") if f"{{{name}}}" in path]
        item["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in named
        ]
    return found


_WRITE = ("dryRun", "fieldManager", "fieldValidation")


def _object_item(kind: kinds.Kind, whole: Document) -> Document:
    return {
        "get": _operation(kind, "get", whole, ()),
        "put": _operation(kind, "put", whole, _WRITE, body=whole),
        "patch": _operation(
            kind, "patch", whole, (*_WRITE, "force"), body={"type": "object"}, media=_PATCHES
        ),
        "delete": _operation(kind, "delete", whole, ("dryRun", "gracePeriodSeconds", "propagationPolicy")),
    }


def _operation(
    kind: kinds.Kind,
    action: str,
    answer: Document,
    query: tuple[str, ...],
    *,
    body: Document | None = None,
    media: tuple[str, ...] = (_JSON,),
) -> Document:
    made: Document = {
        "operationId": f"{action}{model(kind).title().replace('.', '')}",
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _meaning(kind),
        "parameters": [{"name": name, "in": "query", "schema": _query_type(name)} for name in query],
        "responses": {"200": {"description": "OK", "content": {_JSON: {"schema": answer}}}},
    }
    if body is not None:
        made["requestBody"] = {"required": True, "content": {one: {"schema": body} for one in media}}
    return made


def _query_type(name: str) -> Document:
    if name in ("limit", "gracePeriodSeconds"):
        return {"type": "integer"}
    return {"type": "boolean"} if name in ("watch", "force") else {"type": "string"}


def _swagger_item(item: Mapping[str, Any]) -> Document:
    """One path of v3 as v2 writes it: bodies and answers without media types."""
    made: Document = {"parameters": [_swagger_parameter(one) for one in item["parameters"]]}
    for method, operation in item.items():
        if method == "parameters":
            continue
        answer = operation["responses"]["200"]["content"][_JSON]["schema"]
        told = {key: value for key, value in operation.items() if key not in ("requestBody", "parameters")}
        told["parameters"] = [_swagger_parameter(one) for one in operation["parameters"]]
        told["responses"] = {"200": {"description": "OK", "schema": answer}}
        told["produces"] = [_JSON]
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]
            told["consumes"] = list(content)
            schema = next(iter(content.values()))["schema"]
            told["parameters"].append({"name": "body", "in": "body", "required": True, "schema": schema})
        made[method] = told
    return made


def _swagger_parameter(parameter: Mapping[str, Any]) -> Document:
    made: Document = {key: value for key, value in parameter.items() if key != "schema"}
    return made | dict(parameter["schema"])


def _plain(value: Any) -> Any:
    """Without what Swagger 2.0 has no words for."""
    if isinstance(value, dict):
        return {key: _plain(held) for key, held in value.items() if key not in _NOT_IN_V2}
    return [_plain(held) for held in value] if isinstance(value, list) else value


def _moved(value: Any, prefix: str) -> Any:
    if isinstance(value, dict):
        return {
            key: prefix + held.rpartition("/")[2] if key == "$ref" else _moved(held, prefix)
            for key, held in value.items()
        }
    return [_moved(held, prefix) for held in value] if isinstance(value, list) else value
