"""The schemas are legal CRD schemas, tell of every field, and their defaults satisfy themselves."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from agentk.api import admit, checking, errors, kinds, manifest, schemas
from agentk.data import files
from api import samples

CALLS = "syscalls.json"  # what agents may ask of the gate: no kind, and no CRD will be made of it
FILES = sorted(path.name for path in files.folder("schemas").iterdir() if path.name != CALLS)
KIND_FILES = [kind.schema_file for kind in kinds.KINDS]

# What apiextensions.k8s.io/v1 JSONSchemaProps knows and a structural schema may use.
VALUE_WORDS = {"enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"} | {
    "minProperties",
    "maxProperties",
    "required",
}
STRUCTURE_WORDS = {
    "type",
    "format",
    "description",
    "default",
    "nullable",
    "properties",
    "additionalProperties",
} | {
    "items",
    "oneOf",
    "anyOf",
    "not",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
}
FORMATS = {"quantity", "cpu", "duration", "rate", "date-time", "byte", "image", "int32", "int64"}


def nodes(schema: schemas.Schema, path: str = "") -> Iterator[tuple[str, schemas.Schema]]:
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from nodes(below, f"{path}.{name}")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}.*")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


def read(name: str) -> schemas.Schema:
    """With `$ref` in place, and metadata as it is in the file."""
    loaded: schemas.Schema = schemas.whole(json.loads((files.folder("schemas") / name).read_text()))
    return loaded


ALL_NODES = [(name, path, node) for name in FILES for path, node in nodes(read(name))]


def test_there_is_one_file_a_kind_and_nothing_else() -> None:
    assert sorted([*KIND_FILES, "metadata.json", "config.json"]) == FILES
    assert (files.folder("schemas") / CALLS).is_file()


def test_every_field_has_a_description() -> None:
    bare = [
        f"{name}{path}"
        for name, path, node in ALL_NODES
        if not node.get("description", "").endswith((".", "given"))
    ]
    assert bare == []


def test_every_field_has_a_type() -> None:
    bare = [
        f"{name}{path}"
        for name, path, node in ALL_NODES
        if not ("type" in node or schemas.is_number_or_text(node) or schemas.is_open(node))
    ]
    assert bare == []


def test_only_words_a_crd_knows() -> None:
    for name, path, node in ALL_NODES:
        extra = {"x-agentk-env"} if name == "config.json" else set()
        assert set(node) <= VALUE_WORDS | STRUCTURE_WORDS | extra, f"{name}{path}"
        assert node.get("format", "byte") in FORMATS, f"{name}{path}"
        assert not ("properties" in node and "additionalProperties" in node), f"{name}{path}"
        assert node.get("type") != "array" or "items" in node, f"{name}{path}"
        assert schemas.is_number_or_text(node) == ("anyOf" in node), f"{name}{path}"


def test_choices_between_fields_name_fields_only() -> None:
    for name, path, node in ALL_NODES:
        for branch in [*node.get("oneOf", ()), *([node["not"]] if "not" in node else [])]:
            assert set(branch) == {"required"} and set(branch["required"]) <= set(node["properties"]), (
                f"{name}{path}"
            )
        assert set(node.get("required", ())) <= set(node.get("properties", ())), f"{name}{path}"


def test_every_list_says_how_it_merges_and_its_keys_are_there() -> None:
    for name, path, node in ALL_NODES:
        if node.get("type") == "array":
            assert node.get("x-kubernetes-list-type") in ("atomic", "set", "map"), f"{name}{path}"
            for key in schemas.list_keys(node):
                assert key in node["items"]["required"], f"{name}{path}"


def test_every_pattern_has_words_and_a_bound() -> None:
    used = {node["pattern"] for _, _, node in ALL_NODES if "pattern" in node}
    assert used == set(checking.PATTERNS)
    for name, path, node in ALL_NODES:
        assert "pattern" not in node or "maxLength" in node, f"{name}{path} could be searched for long"


def test_every_number_people_write_is_bounded() -> None:
    for name, path, node in ALL_NODES:
        if (node.get("type") == "integer" and path.startswith(".spec")) or name == "config.json":
            assert node.get("type") != "integer" or {"minimum", "maximum"} <= set(node), f"{name}{path}"


def test_every_object_and_list_of_files_ends_somewhere() -> None:
    for name, path, node in ALL_NODES:
        if node.get("type") == "array" and path.startswith(".spec"):
            assert "maxItems" in node, f"{name}{path}"


def test_metadata_of_a_kind_is_bare_as_a_crd_asks() -> None:
    for name in KIND_FILES:
        assert set(read(name)["properties"]["metadata"]) == {"type", "description"}
        assert schemas.load(name)["properties"]["metadata"] == schemas.load("metadata.json")


@pytest.mark.parametrize(
    ("name", "path", "node"), [n for n in ALL_NODES if "default" in n[2]], ids=lambda v: str(v)[:40]
)
def test_a_default_satisfies_its_own_schema(name: str, path: str, node: dict[str, Any]) -> None:
    value = node["default"]
    if schemas.is_number_or_text(node):
        assert isinstance(value, str)
    elif "enum" in node:
        assert value in node["enum"]
    elif node["type"] == "integer":
        assert node["minimum"] <= value <= node["maximum"]
    else:
        assert {"string": str, "boolean": bool, "object": dict, "array": list}[node["type"]] is type(value)


@pytest.mark.parametrize("path", sorted(files.folder("manifests").iterdir()), ids=lambda path: path.name)
def test_shipped_manifests_are_admitted(path: Any) -> None:
    written = manifest.parse(path.read_bytes(), path.name)
    assert written
    for one in written:
        assert admit.admit(one.obj, one)["metadata"]["name"]


def test_defaults_name_objects_that_ship() -> None:
    shipped = {
        (one.obj["kind"], one.obj["metadata"]["name"])
        for path in files.folder("manifests").iterdir()
        for one in manifest.parse(path.read_bytes(), path.name)
    }
    spec = admit.admit(samples.agent())["spec"]
    assert {("Runtime", spec["runtimeRef"]["name"]), ("Policy", spec["policyRef"]["name"])} <= shipped
    assert ("Namespace", "default") in shipped


def test_config_has_a_default_and_its_own_variable_for_every_field() -> None:
    fields = schemas.load("config.json")["properties"]
    assert admit.admit_config({}) == {name: field["default"] for name, field in fields.items()}
    variables = [field["x-agentk-env"] for field in fields.values()]
    assert len(set(variables)) == len(fields) and all(v.startswith("AGENTK_") for v in variables)


def test_config_problems_are_told_like_a_manifests() -> None:
    written = manifest.parse("logLevel: inf\nmaxAgents: -1\nmaxagents: 5", "config.yaml")[0]
    with pytest.raises(errors.Invalid) as caught:
        admit.admit_config(written.obj, written)
    assert [(c.field, c.line) for c in caught.value.causes] == [
        ("logLevel", 1),
        ("maxAgents", 2),
        ("maxagents", 3),
    ]
