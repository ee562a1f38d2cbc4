"""Words people type, and paths on the wire."""

import subprocess
import sys

import pytest

from agentk.api import errors, kinds, schemas


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.kind)
def test_every_name_of_a_kind_finds_it(kind: kinds.Kind) -> None:
    for word in (kind.kind, kind.plural, kind.singular, *kind.short_names, kind.kind.upper()):
        assert kinds.resource(word) is kind
    assert kinds.find(kind.api_version, kind.kind) is kind
    if kind.group:
        assert kinds.resource(f"{kind.plural}.{kind.group}") is kind


def test_no_word_means_two_kinds() -> None:
    words = [w for k in kinds.KINDS for w in {k.kind.lower(), k.plural, k.singular, *k.short_names}]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("ns", "x", "status"), "/apis/agentk.dev/v1alpha1/namespaces/ns/agents/x/status"),
        (("ns",), "/apis/agentk.dev/v1alpha1/namespaces/ns/agents"),
        ((), "/apis/agentk.dev/v1alpha1/agents"),
    ],
)
def test_path_of_a_namespaced_kind(arguments: tuple[str, ...], path: str) -> None:
    assert kinds.AGENT.path(*arguments) == path


def test_path_of_core_and_cluster_kinds() -> None:
    assert kinds.SECRET.path("ns", "x") == "/api/v1/namespaces/ns/secrets/x"
    assert kinds.NAMESPACE.path(None, "x") == "/api/v1/namespaces/x"
    assert kinds.RUNTIME.path("ignored", "x") == "/apis/agentk.dev/v1alpha1/runtimes/x"


def test_a_misspelt_kind_gets_a_hint() -> None:
    with pytest.raises(errors.BadRequest, match="did you mean 'Agent'"):
        kinds.find("agentk.dev/v1alpha1", "Agnet")
    with pytest.raises(errors.NotFound, match="did you mean 'agents'"):
        kinds.resource("agentss")


def test_a_foreign_kind_gets_the_list() -> None:
    with pytest.raises(errors.BadRequest, match="supported kinds: Agent, Approval"):
        kinds.find("networking.k8s.io/v1", "IngressClass")


def test_a_wrong_version_gets_the_right_one() -> None:
    with pytest.raises(errors.BadRequest, match=r"use apiVersion: agentk\.dev/v1alpha1"):
        kinds.find("agentk.dev/v1", "Agent")


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.kind)
def test_every_column_shows_a_field_of_the_schema(kind: kinds.Kind) -> None:
    for column in kind.columns:
        schema = schemas.of(kind)
        path = column.json_path
        if path.startswith(".status.conditions."):  # a condition is found by its type
            path = ".status.conditions"
        for step in path.strip(".").split("."):
            below = schemas.child(schema, step)
            assert below is not None, f"{kind.kind} has no {column.json_path}"
            schema = below
        assert column.description


def test_the_words_import_nothing_heavy() -> None:
    program = "import sys; import agentk.api.kinds, agentk.api.errors; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    heavy = {"yaml", "jsonschema", "json", "difflib", "pathlib", "datetime", "decimal", "asyncio", "http"}
    assert not heavy & set(loaded.split())


def test_admit_and_selectors_load_jsonschema_only_when_used() -> None:
    program = (
        "import sys; import agentk.api.admit, agentk.api.selectors, agentk.api.objects, agentk.api.ownership,"
        " agentk.api.explain, agentk.api.patches, agentk.api.tables; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert "jsonschema" not in loaded.split()
