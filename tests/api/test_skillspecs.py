"""Skills as people and agents write them: folders of the public shape, and what must not be one."""

from pathlib import Path
from typing import Any

import pytest

from agentk.api import admit, errors, skillspecs
from agentk.cli import manifests
from agentk.client import skillfolders

GOOD = (
    "---\nname: pdf-forms\ndescription: Fills forms.\nlicense: MIT\nmetadata:\n  version: '1.0'\n---\n# How\n"
)


def skill(name: str = "pdf-forms", **files: str) -> dict[str, Any]:
    source = {"inline": {"files": {"SKILL.md": GOOD, **files}}}
    metadata = {"name": name, "namespace": "default"}
    spec = {"description": "Fills forms.", "source": source}
    return {"apiVersion": "agentk.dev/v1alpha1", "kind": "Skill", "metadata": metadata, "spec": spec}


def test_a_skill_is_named_by_its_file_and_imported_by_a_name_python_takes() -> None:
    assert admit.admit(skill())["spec"]["version"] == 1
    assert admit.admit(skill("pdf-forms.v3"))["metadata"]["name"] == "pdf-forms.v3"
    assert [skillspecs.module(one) for one in ("pdf-forms.v2", "3d", "class")] == [
        "pdf_forms",
        "_3d",
        "class_",
    ]
    front, body = skillspecs.front_matter(GOOD)
    assert front["license"] == "MIT" and body == "# How\n"


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a//b", "a/../b", "a\\b", "a\nb", "SKILL.md/x", "a/" * 20]
)
def test_no_file_of_it_leads_anywhere_else(path: str) -> None:
    with pytest.raises(errors.Invalid):
        admit.admit(skill(**{path: "x"}))


@pytest.mark.parametrize(
    "text",
    [
        "# no front matter",
        "---\nname: other\ndescription: x\n---\n",
        "---\nname: pdf-forms\nname: pdf-forms\ndescription: x\n---\n",
        "---\nname: pdf-forms\ndescription: [x]\n---\n",
        "---\nname: ../up\ndescription: x\n---\n",
        "---\nname: pdf-forms\ndescription: !!python/object:os.system x\n---\n",
        "---\nname: pdf-forms\ndescription: " + "x" * 2000 + "\n---\n",
        "---\nname: pdf-forms\ndescription: x\na: " + "[" * 200 + "]" * 200 + "\n---\n",
        "---\nname: pdf-forms\ndescription: x\n" + "a: &a [*a]\n---\n",
        "---\n" + "# x\n" * 50_000 + "---\n",
    ],
)
def test_front_matter_is_read_strictly_and_bounded(text: str) -> None:
    with pytest.raises(errors.Invalid):
        admit.admit(skill(**{"SKILL.md": text}))


def test_much_is_refused_and_so_are_names_that_are_none() -> None:
    with pytest.raises(errors.Invalid, match="1 MiB"):
        admit.admit(skill(**{"big.txt": "x" * skillspecs.MAX_BYTES}))
    for name in ("a--b", "a.b", "a" * 65):
        with pytest.raises(errors.Invalid):
            admit.admit(skill(name))


def test_a_folder_is_applied_as_it_is_with_all_that_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "pdf-forms"
    (folder / "scripts").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "SKILL.md").write_text(GOOD)
    (folder / "scripts" / "fill.py").write_text("print(1)\n")
    (folder / "logo.png").write_bytes(b"\x89PNG\0\xff")
    (folder / "example.yaml").write_text("kind: Agent\n")
    (folder / ".git" / "config").write_text("x")
    for given in ([str(folder)], [str(tmp_path), "-R"]):
        wanted = manifests.read(given[:1], len(given) > 1, "", "default")
        assert [str(one) for one in wanted] == ["skill.agentk.dev/pdf-forms"]
    made = admit.admit(wanted[0].obj)
    assert set(skillspecs.contents(made)) == {"SKILL.md", "scripts/fill.py", "logo.png", "example.yaml"}
    assert skillspecs.contents(made)["logo.png"] == b"\x89PNG\0\xff"
    (folder / "out").symlink_to("/etc/passwd")
    with pytest.raises(errors.Invalid, match="link"):
        skillfolders.read(folder)
