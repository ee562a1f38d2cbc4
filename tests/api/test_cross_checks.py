"""Fields that must fit each other, and amounts and paths that make no sense."""

from typing import Any

import pytest

from agentk.api import admit, errors
from api.samples import agent, core, ours


def problem(obj: dict[str, Any]) -> str:
    with pytest.raises(errors.Invalid) as caught:
        admit.admit(obj)
    assert len(caught.value.causes) == 1, str(caught.value)
    return str(caught.value.causes[0])


def mounted(path: str, name: str = "v") -> dict[str, Any]:
    return agent(volumes=[{"name": "v", "emptyDir": {}}], volumeMounts=[{"name": name, "mountPath": path}])


@pytest.mark.parametrize(
    "path", ["/data", "/workspace", "/workspaces/x", "/config/app", "/tmpfs", "/runner", "/usrlocal/"]
)
def test_ordinary_mounts_are_fine(path: str) -> None:
    assert admit.admit(mounted(path))["spec"]["volumeMounts"][0]["mountPath"] == path


@pytest.mark.parametrize(
    "path",
    [
        "/proc",
        "/proc/1",
        "/sys/",
        "/dev/shm",
        "/etc/app",
        "/tmp/x",
        "/opt/agentk/bin",
        "/usr/lib",
        "/run/agentk",
        "/run/agentk/x",
        "/run",
        "/lib64",
        "/bin",
    ],
)
def test_mounts_do_not_hide_the_system(path: str) -> None:
    assert "must not hide" in problem(mounted(path))


def test_a_mount_hides_no_source() -> None:
    obj = mounted("/app/x")
    assert admit.admit(obj)
    obj["spec"]["source"] = {"path": "x"}
    assert "must not hide /app" in problem(obj)


@pytest.mark.parametrize(("path", "around"), [("/workspace/x", "/workspace"), ("/data/x/", "/data")])
def test_no_mount_is_inside_of_another(path: str, around: str) -> None:
    obj = mounted(path)
    obj["spec"]["volumeMounts"].append({"name": "v", "mountPath": "/data"})
    assert f"must not be inside of another mount, {around}" in problem(obj)


@pytest.mark.parametrize("path", ["/a/../proc", "/..", "/a/./b", "//proc", "/a//b"])
def test_mounts_are_plain_paths(path: str) -> None:
    assert "expected a path without" in problem(mounted(path))


def test_the_root_is_no_mount() -> None:
    with pytest.raises(errors.Invalid, match="at least 2 characters"):
        admit.admit(mounted("/"))


def test_a_mount_names_a_volume() -> None:
    assert 'no volume is named "w"; did you mean' not in problem(mounted("/data", "zzz"))
    assert "supported volumes: v" in problem(mounted("/data", "zzz"))
    assert "spec.volumes has none" in problem(agent(volumeMounts=[{"name": "v", "mountPath": "/data"}]))


def test_two_mounts_have_two_places() -> None:
    obj = mounted("/data")
    obj["spec"]["volumeMounts"] *= 2
    assert "spec.volumeMounts[1].mountPath: is given twice" in problem(obj)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../b", "a//b", "./a", "", "a/", "x" * 256, "a\nb"]
)
def test_inline_files_stay_inside(name: str) -> None:
    assert "expected a relative file name" in problem(agent(source={"inline": {"files": {name: "x"}}}))


def test_inline_files_may_have_directories_that_are_no_files() -> None:
    assert admit.admit(agent(source={"inline": {"files": {"a/b.py": "x", "a/c.py": "y"}}}))
    assert "is a file too" in problem(agent(source={"inline": {"files": {"a": "x", "a/b": "y"}}}))


def test_a_digest_belongs_to_a_path() -> None:
    digest = "sha256:" + "0" * 64
    assert admit.admit(agent(source={"path": "x", "digest": digest}))
    assert "only for source.path" in problem(agent(source={"configMapRef": {"name": "x"}, "digest": digest}))


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"memory": "512m"}, "did you mean '512Mi'?"),
        ({"memory": 512}, "did you mean '512Mi'?"),
        ({"memory": "2Pi"}, "expected at most 1024Ti"),
        ({"memory": 0}, "expected at least 1Mi"),
        ({"ephemeral-storage": "1"}, "expected at least 64Ki"),
        ({"cpu": 0}, "expected between 1m and 4096 CPUs"),
        ({"cpu": 5000}, "expected between 1m and 4096 CPUs"),
    ],
)
def test_limits_that_no_machine_means(limits: dict[str, Any], told: str) -> None:
    assert told in problem(agent(resources={"limits": limits}))
    runtime = ours("Runtime", type="nsjail", defaults={"resources": {"limits": limits}})
    assert told in problem(runtime)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"command": [" "]}, "spec.command[0]: the program must not be empty"),
        ({"command": []}, "spec.command: must not be empty"),
        ({"args": ["x" * 100_000] * 12}, "at most 1 MiB"),
        ({"workingDir": "/a/../b"}, "expected a path without"),
        ({"workingDir": "a"}, "expected an absolute path"),
        ({"restartWindow": "0s"}, "more than nothing"),
        ({"checkpoint": {"keep": 2}}, "spec.checkpoint: expected every, steps or both"),
        ({"checkpoint": {"every": "0s"}}, "expected at least 1s"),
        ({"checkpoint": {"steps": 1, "every": "999ms"}}, "expected at least 1s"),
        ({"restartBackoff": {"initialSeconds": 50, "maxSeconds": 5}}, "at least initialSeconds (50)"),
        ({"logs": {"maxSize": "1"}}, "expected at least 4Ki"),
        ({"livenessProbe": {"heartbeat": {"file": "/etc/x"}}}, "expected a path below /workspace"),
        ({"livenessProbe": {"heartbeat": {"file": "/workspace/../x"}}}, "expected a path without"),
        ({"readinessProbe": {"exec": {"command": [""]}}}, "must not be empty"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/a/.."}}]}, "expected a path without"),
    ],
)
def test_other_things_that_make_no_sense(spec: dict[str, Any], told: str) -> None:
    assert told in problem(agent(**spec))


@pytest.mark.parametrize("key", ["a b", "a/b", "..", "", "é", "x" * 254])
def test_data_keys_are_file_names(key: str) -> None:
    assert "expected a key" in problem(core("ConfigMap", data={key: "x"}))
    assert "expected a key" in problem(core("Secret", stringData={key: "x"}))


def test_data_is_bounded_and_has_each_key_once() -> None:
    assert "at most 1 MiB" in problem(core("ConfigMap", data={"a": "x" * 2_000_000}))
    assert "the same key is in data" in problem(core("ConfigMap", data={"a": "x"}, binaryData={"a": "YQ=="}))


def test_annotations_are_bounded() -> None:
    obj = agent()
    obj["metadata"]["annotations"] = {"a": "x" * 300_000}
    assert "at most 256 KiB" in problem(obj)


def test_policy_paths_are_plain() -> None:
    obj = ours("Policy", level="baseline", isolation={"hostPaths": [{"pathPrefix": "/a/../b"}]})
    assert "spec.isolation.hostPaths[0].pathPrefix" in problem(obj)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("tool_call", "did you mean 'tool.call'?"),
        ("messages.*", "no call is"),
        ("http.requests", "did you mean"),
    ],
)
def test_a_rule_about_no_call_is_refused_and_does_not_look_as_if_it_held(call: str, told: str) -> None:
    rules = [{"name": "a", "effect": "Deny", "methods": ["think", call]}]
    said = problem(ours("Policy", level="baseline", rules=rules))
    assert "spec.rules[0].methods[1]" in said and told in said
    for known in ("*", "tool.*", "exec", "exec.*", "?xec"):
        rules[0]["methods"] = [known]
        admit.admit(ours("Policy", level="baseline", rules=rules))


def test_a_namespace_is_no_file_of_the_kernel() -> None:
    obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tasks"}}
    assert "cgroup" in problem(obj)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"program": "react", "args": ["-v"]}, "only for spec.command"),
        ({"program": "react", "workingDir": "/app"}, "only for spec.command"),
        ({"program": "react", "context": [{"text": "t"}]}, "spec.context[0].name: is required"),
        ({"program": "react", "context": [{"name": "n", "text": "t" * 200_000}] * 2}, "at most 256 KiB"),
        (
            {"program": "react", "output": {"type": "string", "pattern": "a*"}},
            "pattern is not checked by the gate",
        ),
        ({"program": "react", "output": {"type": 7}}, "is no JSON Schema"),
        ({"program": "machine", "goal": "g"}, "is required by program: machine"),
        ({"program": "machine", "memory": {}, "workingDir": "/app"}, "only for spec.command"),
        ({"program": "nobody"}, "expected one of react"),
        ({"command": ["a"], "role": "r"}, "only for spec.program"),
        ({"command": ["a"], "program": "react"}, "exactly one of command and program"),
    ],
)
def test_programs_that_make_no_sense(spec: dict[str, Any], told: str) -> None:
    made = agent()
    made["spec"] = spec
    assert told in problem(made)


@pytest.mark.parametrize(
    ("memory", "told"),
    [
        ({"embedder": {"model": "m"}}, "exactly one of modelRef with model and sentence, found model"),
        ({"embedder": {"sentence": True, "modelRef": {"name": "r"}}}, "embedder.modelRef: cannot be given"),
        (
            {"paging": {"weights": dict.fromkeys(("recency", "importance", "frequency", "similarity"), 0)}},
            "all 0",
        ),
        ({"paging": {"weights": {"recency": 0}}}, ""),
        ({"paging": {"weights": [1]}}, "paging.weights: expected an object"),
    ],
)
def test_memories_that_make_no_sense(memory: dict[str, Any], told: str) -> None:
    made = agent(memory=memory)
    assert told in problem(made) if told else admit.admit(made)


def test_a_program_needs_no_command_and_any_agent_may_have_an_output() -> None:
    made = agent()
    made["spec"] = {"program": "react", "goal": "Help."}
    assert admit.admit(made)
    made["spec"] = {"program": "machine", "goal": "Help.", "memory": {}, "stdin": True}
    assert admit.admit(made)
    assert admit.admit(agent(output={"type": "integer", "minimum": 1}))
