"""The papers: what README, help texts and examples say is so."""

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentk.api import admit, kinds, manifest, schemas
from agentk.cli import main
from agentk.data import files
from agentk.llm import routefields

TOP = Path(__file__).resolve().parent.parent
AGENTK = Path(sys.executable).parent / "agentk"
EXAMPLES = sorted((TOP / "examples").rglob("*.yaml"))


@functools.cache
def said(*words: str) -> str:
    done = subprocess.run(
        [AGENTK, *words], capture_output=True, text=True, env={"COLUMNS": "200", "PATH": ""}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def verbs() -> list[str]:
    return re.findall(r"^  ([a-z][a-z-]+) {2,}\S", said("--help"), re.MULTILINE)


def commands() -> list[list[str]]:
    """Every command that README, or the first lines of an example, tells to type, without comments."""
    lines = re.findall(r"^\$ (?:.* \| )?agentk (.*)$", (TOP / "README.md").read_text(), re.MULTILINE)
    for path in EXAMPLES:
        lines += re.findall(r"^#   (?:[^#]* \| )?agentk (.*)$", path.read_text(), re.MULTILINE)
    words = {line.partition("  #")[0].strip(): shlex.split(line, comments=True) for line in lines}
    return list(words.values())


def test_help_lists_verbs() -> None:
    assert set(verbs()) >= {"apply", "get", "describe", "logs", "kill", "delete", "run", "doctor", "explain"}


def test_every_verb_has_an_example() -> None:
    assert [verb for verb in verbs() if "xample" not in said(verb, "--help")] == []


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_readme_names_verbs_options_and_files_that_exist(command: list[str]) -> None:
    help_text = said(command[0], "--help")
    if "Commands:" in help_text and command[1:]:
        help_text = said(*command[:2], "--help")
    stop = command.index("--") if "--" in command else len(command)
    options = [word for word in command[1:stop] if word.startswith("-")]
    assert [option for option in options if option not in help_text] == []
    assert [word for word in command if word.startswith("examples/") and not (TOP / word).exists()] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(TOP)))
def test_every_example_is_admitted(path: Path) -> None:
    for written in manifest.parse(path.read_bytes(), path.name):
        admit.admit(written.obj, written)


def test_links_within_the_readme_lead_somewhere() -> None:
    text = (TOP / "README.md").read_text()
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    anchors = {head.lower().replace(" ", "-").replace(",", "").replace("'", "") for head in heads}
    linked = set(re.findall(r"\]\(#([^)]+)\)", text.replace("\n", " ")))
    assert linked and linked <= anchors, linked - anchors


def test_every_shipped_object_is_admitted() -> None:
    for path in files.folder("manifests").glob("*.yaml"):
        for written in manifest.parse(path.read_bytes(), path.name):
            admit.admit(written.obj, written)


def test_the_manifest_in_readme_is_admitted() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (TOP / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        for written in manifest.parse(block, "README.md"):
            admit.admit(written.obj, written)


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.kind)
def test_every_field_is_described(kind: kinds.Kind) -> None:
    assert list(undescribed(schemas.of(kind), kind.kind)) == []


def undescribed(schema: dict[str, Any], path: str) -> Any:
    if not schema.get("description"):
        yield path
    for name, field in schema.get("properties", {}).items():
        yield from undescribed(field, f"{path}.{name}")
    items = schema.get("items", {})
    for name, field in items.get("properties", {}).items():
        yield from undescribed(field, f"{path}[].{name}")


def test_every_verb_file_is_registered() -> None:
    for verb in main.NAMES:
        assert (TOP / "agentk" / "cli" / f"{verb.replace('-', '_')}.py").exists(), verb


def test_the_room_map_names_every_room() -> None:
    text = (TOP / "agentk" / "README.md").read_text()
    rooms = {path.parent.name for path in (TOP / "agentk").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == rooms


def test_the_bench_table_names_the_command_that_made_it() -> None:
    text = (TOP / "tests" / "bench" / "README.md").read_text()
    for name in re.findall(r"python -m tests\.bench\.(\w+)", text):
        assert (TOP / "tests" / "bench" / f"{name}.py").exists(), name
    assert "make bench" in text


SCRIPTED = [
    path for path in EXAMPLES if "scripted:" in path.read_text() and path.parent.name != "llm-contention"
]


@pytest.mark.parametrize("path", SCRIPTED, ids=lambda path: path.parent.name)
def test_one_line_makes_an_example_ask_a_real_model(path: Path) -> None:
    text, scripted = path.read_text(), "litellmParams: {model: scripted/rules}\n"
    real = re.findall(r"# a real one: (\{model: .*\})\n", text)
    assert len(real) == text.count(scripted) == 1
    assert f"namespace: {path.parent.name}}}, stringData: {{key: sk-…}}" in text
    changed = text.replace(scripted, f"litellmParams: {real[0]}\n")
    routes = [one for one in manifest.parse(changed, path.name) if one.obj["kind"] == "ModelRoute"]
    for written in routes:
        admit.admit(written.obj, written)
        route, problems = routefields.read(written.obj)
        assert not problems and route is not None
        assert [one.provider for one in route.deployments] == ["openai"]


def test_readme_names_every_example() -> None:
    text = (TOP / "README.md").read_text().partition("\n## More\n")[2]
    folders = {path.name for path in (TOP / "examples").iterdir() if path.is_dir()}
    assert {name for name in folders if f"`{name}`" not in text} == set()
