"""One operation of an OpenAPI document (3.x): the request it is, and the arguments that it takes. Pure, bounded.

The document is somebody else's: only what stands in it is read, references within it are followed a bounded way, and
what leads out of it is an error.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, manifest
from agentk.tools.requests import Form, Header

METHODS = ("get", "head", "post", "put", "patch", "delete")
BODY = "body"  # the argument that is sent as the body
_DEPTH = 16
_VALUES = 20_000  # of one schema, references resolved
_STEPS = 32

Node = Mapping[str, Any]


@dataclass(frozen=True)
class Operation:
    form: Form
    description: str
    parameters: dict[str, Any]  # JSON Schema


def read(text: str, source: str) -> Node:
    """The document. Raises Invalid."""
    found = manifest.parse(text, source)
    if len(found) != 1 or not str(found[0].obj.get("openapi", "")).startswith("3."):
        raise errors.Invalid(f"{source} is no OpenAPI document of version 3")
    return found[0].obj


def operation(document: Node, name: str, server: str = "") -> Operation:
    """By its operationId. Raises Invalid when it is not there, or cannot be called."""
    for path, method, item, found in _operations(document):
        if found.get("operationId") == name:
            return _made(document, path, method, [*_list(item), *_list(found)], found, server)
    known = [str(one.get("operationId")) for _, _, _, one in _operations(document) if one.get("operationId")]
    raise errors.Invalid(
        f'there is no operation "{name}"', hint=f"there are {', '.join(sorted(known))[:500]}"
    )


def _operations(document: Node) -> Iterator[tuple[str, str, Node, Node]]:
    for path, item in _map(document.get("paths")).items():
        if not str(path).startswith("/"):
            continue  # behind a host it would be a part of that: `.evil.example/x`, `:8443/x`
        item = _resolved(document, item)
        for method in METHODS:
            if isinstance(item.get(method), Mapping):
                yield str(path), method, item, item[method]


def _made(document: Node, path: str, method: str, listed: list[Any], found: Node, server: str) -> Operation:
    properties: dict[str, Any] = {}
    needed: list[str] = []
    query: dict[str, str] = {}
    headers: list[Header] = []
    in_path: set[str] = set()
    for raw in listed:
        parameter = _resolved(document, raw)
        name, place = str(parameter.get("name")), parameter.get("in")
        hole = f"{{{_named(name)}}}"
        if place == "path":
            in_path.add(name)
            path = path.replace(f"{{{name}}}", f"\0{_named(name)}\1")
        elif place == "query":
            query[name] = hole
        elif place == "header":
            headers = [*(one for one in headers if one.name != name), Header(name, hole)]
        else:
            continue  # cookies are nobody's here
        about = _schema(document, parameter.get("schema") or {})
        if parameter.get("description"):
            about = {**about, "description": str(parameter["description"])[:1000]}
        properties[_named(name)] = about
        if parameter.get("required") or place == "path":
            needed.append(_named(name))
    body = _resolved(document, found.get("requestBody") or {})
    content = _map(body.get("content"))
    sends = None
    if content:
        json_body = _map(content.get("application/json"))
        if not json_body:
            raise errors.Invalid(f"its body is no JSON: {', '.join(map(str, content))[:200]}")
        properties[BODY] = _schema(document, json_body.get("schema") or {})
        sends = f"{{{BODY}}}"
        if body.get("required"):
            needed.append(BODY)
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if needed:
        schema["required"] = sorted(set(needed))
    url = _server(document, found, server) + _escaped(path)
    told = "\n".join(str(found[key]) for key in ("summary", "description") if found.get(key))
    return Operation(Form(method.upper(), url, query, headers, sends), told, schema)


def _server(document: Node, found: Node, given: str) -> str:
    servers = _list_of(found.get("servers")) or _list_of(document.get("servers"))
    first = _map(servers[0]) if servers and not given else {}
    url = given or str(first.get("url", ""))
    for name, variable in _map(first.get("variables")).items():
        url = url.replace(f"{{{name}}}", str(_map(variable).get("default", "")))
    if not url.startswith(("http://", "https://")) or "{" in url:
        raise errors.Invalid(
            "the document does not say where its server is", hint="spec.http.openapi.server: https://…"
        )
    return url.rstrip("/")


def _escaped(path: str) -> str:
    """A path as a template: its own placeholders, and nothing else that looks like one."""
    return path.replace("{", "%7B").replace("}", "%7D").replace("\0", "{").replace("\1", "}")


def _named(name: str) -> str:
    """A name that a placeholder can have."""
    made = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "_" for letter in name
    )
    return (made if made[:1].isalpha() or made[:1] == "_" else f"_{made}")[:100]


def _resolved(document: Node, node: Any) -> Node:
    for _ in range(_STEPS):
        found = _map(node)
        if "$ref" not in found:
            return found
        node = _at(document, str(found["$ref"]))
    raise errors.Invalid("its references go round in a circle")


def _at(document: Node, reference: str) -> Any:
    if not reference.startswith("#/"):
        raise errors.Invalid(f"{reference[:100]} leads out of the document")
    node: Any = document
    for step in reference[2:].split("/"):
        node = _map(node).get(step.replace("~1", "/").replace("~0", "~"))
    if node is None:
        raise errors.Invalid(f"{reference[:100]} is nowhere in the document")
    return node


def _schema(document: Node, schema: Any) -> dict[str, Any]:
    """The schema without references; what is deeper than a model reads is anything."""
    left = [_VALUES]

    def whole(node: Any, depth: int) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise errors.Invalid("one of its schemas is too big")
        if isinstance(node, list):
            return [whole(one, depth + 1) for one in node]
        if not isinstance(node, Mapping):
            return node
        if depth > _DEPTH:
            return {}
        if "$ref" in node:
            return whole(_resolved(document, node), depth + 1)
        return {
            str(key): whole(held, depth + 1) for key, held in node.items() if not str(key).startswith("x-")
        }

    made = whole(schema, 0)
    return made if isinstance(made, dict) else {}


def _list(node: Node) -> list[Any]:
    return _list_of(node.get("parameters"))


def _list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _map(value: Any) -> Node:
    return value if isinstance(value, Mapping) else {}
