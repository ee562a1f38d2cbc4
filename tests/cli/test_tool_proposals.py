"""What `agentk tool discover` proposes can be applied as it is, and runs what it says."""

import shutil
import subprocess
from pathlib import Path

import pytest

from agentk.api import admit, errors, inputs, manifest, toolspecs
from agentk.cli import main, telling, tool_discovering
from agentk.tools import argvs

PROPOSALS = {str(one["metadata"]["name"]): one for one in tool_discovering.read()}


@pytest.mark.parametrize("name", PROPOSALS)
def test_every_proposal_is_admitted(name: str) -> None:
    spec = admit.admit(PROPOSALS[name])["spec"]
    assert spec["idempotent"] == "true" and spec["description"].endswith(".")
    assert inputs.problem(toolspecs.of_manifest(spec["command"]["parameters"]), ours=True) == ""


@pytest.mark.parametrize(
    ("name", "given", "output"),
    [
        ("grep", {"pattern": "^b", "paths": ["a"]}, "2:b\n"),
        ("grep", {"pattern": "B", "paths": ["."], "recursive": True, "ignore_case": True}, "./a:2:b\n"),
        ("find", {"directory": ".", "depth": 1, "name": "a*"}, "././a\n"),
        ("diff", {"before": "a", "after": "a"}, ""),
    ],
)
def test_proposals_run(tmp_path: Path, name: str, given: dict[str, object], output: str) -> None:
    (tmp_path / "a").write_text("a\nb\n")
    argv = argvs.argv(PROPOSALS[name]["spec"]["command"]["argv"], given)
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (output, "")


def test_a_tool_that_agentk_comes_with_is_brought_back_by_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.main(["tool", "discover", "calculator"]) == 0
    (back,) = manifest.parse(capsys.readouterr().out, "stdin")
    shipped = {one["metadata"]["name"]: one for one in tool_discovering.shipping()}
    assert back.obj == shipped["calculator"] and {"files", "ask-human", "web-search", "memory"} <= set(
        shipped
    )
    gone = errors.NotFound('tools.agentk.dev "calculator" not found', kind="tools", name="calculator")
    assert "agentk tool discover calculator | agentk apply -f -" in telling.describe(gone)[1]


def test_a_server_of_a_shipped_name_is_told_to_take_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.json").write_text('{"mcpServers": {"time": {"url": "https://t.example/mcp"}}}')
    assert main.main(["import", str(tmp_path / "m.json")]) == 0
    assert "time: takes the place of the Tool that agentk comes with" in capsys.readouterr().err


def test_only_what_is_on_this_machine_is_proposed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["tool", "discover", "grep"]) == 0
    told = capsys.readouterr().out
    assert "name: grep" in told and "---" not in told
    assert main.main(["tool", "discover", "no-such-program"]) == 1
    assert "no proposal" in capsys.readouterr().err
    main.main(["tool", "discover"])
    told = capsys.readouterr().out
    for name, obj in PROPOSALS.items():
        here = shutil.which(tool_discovering.program(obj), path="/usr/bin:/bin") is not None
        assert (f"name: {name}\n" in told) is here or not here
