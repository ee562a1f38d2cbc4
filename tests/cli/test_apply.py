"""`agentk apply` and `delete` against a real API: what changes, what is told, where an error is."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors, kinds
from agentk.store.blobs import Blobs

Run = Callable[..., Any]

AGENT = """\
apiVersion: agentk.dev/v1alpha1
kind: Agent
metadata: {name: web}
spec:
  command: [sleep, "1"]
  priority: 5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.yaml"
    path.write_text(AGENT)
    return path


def test_created_then_unchanged_then_configured(daemon: Any, agentk: Run, file: Path) -> None:
    assert agentk("apply", "-f", str(file)).out == "agent.agentk.dev/web created\n"
    assert agentk("apply", "-f", str(file)).out == "agent.agentk.dev/web unchanged\n"
    file.write_text(AGENT.replace("priority: 5", "priority: 6"))
    assert agentk("apply", "-f", str(file)).out == "agent.agentk.dev/web configured\n"


def test_what_an_apply_did_is_told_whoever_writes_the_status(daemon: Any, agentk: Run, file: Path) -> None:
    agentk("apply", "-f", str(file))
    with daemon.busy("web") as written:
        for priority in range(6, 20):
            assert agentk("apply", "-f", str(file)).out == "agent.agentk.dev/web unchanged\n"
            file.write_text(AGENT.replace("priority: 5", f"priority: {priority}"))
            dry = agentk("apply", "-f", str(file), "--dry-run=server")
            assert (dry.err, dry.out) == ("", "agent.agentk.dev/web configured (server dry run)\n")
            assert agentk("apply", "-f", str(file)).out == "agent.agentk.dev/web configured\n"
    made = daemon.api.get(kinds.AGENT, "default", "web")
    assert (made["spec"]["priority"], made["status"]["attempt"]) == (19, written())
    assert made["metadata"]["generation"] == 15


def test_a_line_left_out_is_removed(daemon: Any, agentk: Run, file: Path) -> None:
    agentk("apply", "-f", str(file))
    file.write_text(AGENT.replace("  priority: 5\n", "  hostname: h\n"))
    agentk("apply", "-f", str(file))
    spec = daemon.api.get(kinds.AGENT, "default", "web")["spec"]
    assert (spec["priority"], spec["hostname"]) == (0, "h")


def test_stdin(daemon: Any, agentk: Run, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    with open(file) as text:
        monkeypatch.setattr("sys.stdin", text)
        assert agentk("apply", "-f", "-").code == 0
    assert daemon.api.get(kinds.AGENT, "default", "web")


def test_a_route_is_there_before_the_agents_that_think(daemon: Any, agentk: Run, file: Path) -> None:
    route = "apiVersion: agentk.dev/v1alpha1\nkind: ModelRoute\nmetadata: {name: r}\nspec: {scripted: {}}\n"
    file.write_text(f"{AGENT}---\n{route}")
    told = agentk("apply", "-f", str(file)).out.splitlines()
    assert told == ["modelroute.agentk.dev/r created", "agent.agentk.dev/web created"]


def test_a_directory_with_what_others_need_first(daemon: Any, agentk: Run, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.yaml").write_text(AGENT.replace("name: web", "name: web, namespace: team"))
    (tmp_path / "deep" / "z.json").write_text(
        '{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"team"}}'
    )
    (tmp_path / "README.md").write_text("not a manifest")
    ran = agentk("apply", "-R", "-f", str(tmp_path))
    assert ran.lines == ["namespace/team created", "agent.agentk.dev/web created"]


def test_an_error_names_file_line_and_column_and_stops_nobody_else(
    daemon: Any, agentk: Run, tmp_path: Path
) -> None:
    bad = AGENT.replace("priority: 5", "prioriti: 5").replace("web", "bad")
    (tmp_path / "m.yaml").write_text(f"{bad}---\n{AGENT}")
    ran = agentk("apply", "-f", str(tmp_path / "m.yaml"))
    assert ran.code == 1
    assert ran.lines == ["agent.agentk.dev/web created"]
    assert f"at {tmp_path}/m.yaml:6:3" in ran.err
    assert "did you mean" in ran.err


def test_broken_yaml_is_told_before_anything_is_sent(daemon: Any, agentk: Run, file: Path) -> None:
    file.write_text(AGENT + "---\nkind: [\n")
    ran = agentk("apply", "-f", str(file))
    assert (ran.code, ran.out) == (1, "")
    assert f"at {file}:" in ran.err
    with pytest.raises(errors.NotFound):
        daemon.api.get(kinds.AGENT, "default", "web")


def test_dry_run_of_the_server_writes_nothing(daemon: Any, agentk: Run, file: Path) -> None:
    assert agentk("apply", "-f", str(file), "--dry-run=server").out.endswith("created (server dry run)\n")
    assert daemon.api.list(_agents()).items == []


def test_diff_tells_what_apply_would_change_and_changes_nothing(daemon: Any, agentk: Run, file: Path) -> None:
    ran = agentk("diff", "-f", str(file))
    assert (
        ran.code == 1
        and "+  name: web" in ran.lines
        and not any(line.startswith("-  ") for line in ran.lines)
    )
    assert "not found" in agentk("get", "agent", "web").err
    agentk("apply", "-f", str(file))
    assert (agentk("diff", "-f", str(file)).code, agentk("diff", "-f", str(file)).out) == (0, "")
    file.write_text(AGENT.replace("priority: 5", "priority: 6"))
    ran = agentk("diff", "-f", str(file))
    changed = [line for line in ran.lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert ran.code == 1 and changed == ["-  priority: 5", "+  priority: 6"]
    file.write_text(AGENT.replace("priority", "priorityy"))
    assert agentk("diff", "-f", str(file)).code == 2


def test_diff_shows_no_secret(daemon: Any, agentk: Run, tmp_path: Path) -> None:
    file = tmp_path / "secret.yaml"
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {same: hunter2, other: hunter3}\n"
    file.write_text(text)
    agentk("apply", "-f", str(file))
    file.write_text(text.replace("hunter3", "hunter4"))
    ran = agentk("diff", "-f", str(file))
    assert (
        ran.code == 1 and "+  other: '*** (another)'" in ran.lines and "  same: '***'" in " ".join(ran.lines)
    )
    assert "hunter" not in ran.out and "aHVudGVy" not in ran.out


def test_dry_run_of_the_client_needs_no_daemon(agentk: Run, file: Path) -> None:
    assert (
        agentk("apply", "-f", str(file), "--dry-run=client").out == "agent.agentk.dev/web valid (dry run)\n"
    )
    file.write_text(AGENT.replace("priority: 5", "priority: many"))
    ran = agentk("apply", "-f", str(file), "--dry-run=client")
    assert ran.code == 1
    assert f"at {file}:6:13" in ran.err


def test_a_conflict_names_the_owner_and_force_takes_over(daemon: Any, agentk: Run, file: Path) -> None:
    agentk("apply", "-f", str(file))
    path = kinds.AGENT.path("default", "web") + "?fieldManager=robot"
    patch = {"spec": {"priority": 7}}
    daemon.api.request("PATCH", path, body=patch, content_type="application/merge-patch+json")
    ran = agentk("apply", "-f", str(file))
    assert ran.code == 1
    assert "robot" in ran.err
    assert agentk("apply", "-f", str(file), "--force-conflicts").code == 0


def test_a_source_is_packed_and_named_by_its_content(daemon: Any, agentk: Run, file: Path) -> None:
    (file.parent / "src").mkdir()
    (file.parent / "src" / "main.py").write_text("print(1)")
    file.write_text(AGENT + "  source: {path: ./src}\n")
    assert agentk("apply", "-f", str(file)).code == 0
    source = daemon.api.get(kinds.AGENT, "default", "web")["spec"]["source"]
    blobs: Blobs = daemon.store.blobs
    with tarfile.open(blobs.path(source["digest"])) as tar:
        assert tar.getnames() == ["main.py"]
    assert source["path"] == "./src"


def test_a_missing_source_is_an_error_at_its_line(daemon: Any, agentk: Run, file: Path) -> None:
    file.write_text(AGENT + "  source: {path: ./nowhere}\n")
    ran = agentk("apply", "-f", str(file))
    assert ran.code == 1
    assert f"at {file}:7:18" in ran.err


def test_many_are_sent_side_by_side_and_told_in_order(daemon: Any, agentk: Run, file: Path) -> None:
    names = [f"a{number:03}" for number in range(60)]
    file.write_text("---\n".join(AGENT.replace("web", name) for name in names))
    ran = agentk("apply", "-f", str(file))
    assert ran.lines == [f"agent.agentk.dev/{name} created" for name in names]


def test_output_is_the_objects(daemon: Any, agentk: Run, file: Path) -> None:
    assert json.loads(agentk("apply", "-f", str(file), "-o", "json").out)["metadata"]["uid"]


def test_namespace_of_file_and_option_must_agree(agentk: Run, file: Path) -> None:
    file.write_text(AGENT.replace("{name: web}", "{name: web, namespace: one}"))
    ran = agentk("apply", "-f", str(file), "-n", "two")
    assert ran.code == 2
    assert "'one'" in ran.err


def test_delete_by_name_file_and_label(daemon: Any, agentk: Run, file: Path) -> None:
    for name in ("a", "b", "c"):
        obj = {"metadata": {"name": name, "labels": {"x": "y"}}, "data": {}}
        daemon.api.create(kinds.CONFIGMAP, "default", obj)
    agentk("apply", "-f", str(file))
    assert agentk("delete", "cm", "a").out == 'configmap "a" deleted\n'
    assert agentk("delete", "cm", "-l", "x=y").lines == ['configmap "b" deleted', 'configmap "c" deleted']
    assert agentk("delete", "-f", str(file), "--no-wait").out == 'agent.agentk.dev "web" deleted\n'
    assert agentk("delete", "cm", "a").code == 1
    assert agentk("delete", "cm", "a", "--ignore-not-found").code == 0


def test_what_the_daemon_refuses_is_told_where_it_stands(daemon: Any, agentk: Run, file: Path) -> None:
    file.write_text(
        "apiVersion: agentk.dev/v1alpha1\nkind: ModelRoute\nmetadata: {name: r}\nspec:\n  modelList:\n"
        "  - modelName: m\n    litellmParams:\n      model: openai/m\n      api_key: sk-1234\n"
    )
    ran = agentk("apply", "-f", str(file))
    assert ran.code == 1 and "sk-1234" not in ran.err
    assert f"at {file}:9:16" in ran.err and f"{file}:1:1" not in ran.err


def test_delete_without_saying_which_is_refused(agentk: Run) -> None:
    ran = agentk("delete", "agents")
    assert ran.code == 2
    assert "--all" in ran.err


def test_delete_waits_until_the_finalizers_are_done(daemon: Any, agentk: Run, file: Path) -> None:
    obj = {"metadata": {"name": "c", "finalizers": ["test/held"]}, "data": {}}
    daemon.api.create(kinds.CONFIGMAP, "default", obj)
    ran = agentk("delete", "cm", "c", "--timeout", "1")
    assert ran.code == 1
    assert "still being deleted" in ran.err
    daemon.api.patch(kinds.CONFIGMAP, "default", "c", {"metadata": {"finalizers": None}})
    assert agentk("delete", "cm", "c", "--ignore-not-found").code == 0


def _agents() -> Any:
    from agentk.client import client

    return client.Selection(kinds.AGENT, "default")
