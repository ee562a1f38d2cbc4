"""`agentk explain`, laid out as kubectl does it."""

import pytest

from agentk.api import errors, explain, kinds


def test_a_field_with_its_fields() -> None:
    assert explain.explain("agent.spec.logs") == (
        "GROUP:      agentk.dev\n"
        "KIND:       Agent\n"
        "VERSION:    v1alpha1\n"
        "\n"
        "FIELD: logs <Object>\n"
        "\n"
        "DESCRIPTION:\n"
        "    How much of the agent's output is kept.\n"
        "\n"
        "FIELDS:\n"
        "  maxFiles\t<integer>\n"
        "  default: 3\n"
        "  range: 1..100\n"
        "    Log files kept, the current one included.\n"
        "\n"
        "  maxRate\t<quantity>\n"
        "  default: 4Mi\n"
        "    Bytes a second. Above it the agent's writes wait; nothing is dropped.\n"
        "\n"
        "  maxSize\t<quantity>\n"
        "  default: 10Mi\n"
        "    Size at which a log file is rotated.\n"
    )


def test_recursive_is_a_tree_of_names() -> None:
    text = explain.explain("ag.spec.resources", recursive=True)
    assert "\n  limits\t<Object>\n    cpu\t<cpu>\n    default: 1\n" in text and "Bytes of memory" not in text


def test_lists_and_required_fields() -> None:
    text = explain.explain("agents.spec.env")
    assert "FIELD: env <[]Object>" in text and "name\t<string> -required-" in text
    assert "FIELD: name <string> -required-" in explain.explain("agent.spec.poolRef.name")
    assert "FIELD: key <string> -required-" in explain.explain("agent.spec.env.valueFrom.secretKeyRef.key")


def test_enums_and_maps() -> None:
    assert "enum: Always, OnFailure, Never\ndefault: OnFailure\n" in explain.explain(
        "agent.spec.restartPolicy"
    )
    assert "FIELD: data <map[string]string>" in explain.explain("cm.data")
    assert "FIELD: name <string>" in explain.explain("agent.metadata.name")


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.kind)
@pytest.mark.parametrize("recursive", [False, True])
def test_every_kind_explains_itself(kind: kinds.Kind, recursive: bool) -> None:
    text = explain.explain(kind.plural, recursive)
    assert f"KIND:       {kind.kind}\n" in text and "metadata\t<Object>" in text
    assert max(map(len, text.splitlines())) <= 90


def test_the_configuration_explains_itself_with_its_variables() -> None:
    text = explain.explain("config")
    assert "KIND:       daemon configuration" in text and "environment: AGENTK_LOG_LEVEL" in text


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("agent.spec.resorces", "\"resorces\" does not exist in agent.spec; did you mean 'resources'?"),
        ("agnt", "did you mean 'agent'?"),
        ("agent.spec.command.x", "agent.spec.command has no fields"),
        ("", "no resource type"),
        ("..", "no resource type"),
    ],
)
def test_an_unknown_path_gets_a_hint(path: str, words: str) -> None:
    with pytest.raises(errors.NotFound) as caught:
        explain.explain(path)
    assert words in str(caught.value)
