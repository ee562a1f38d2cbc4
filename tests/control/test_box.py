import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from agentk.api import images as names
from agentk.control import box, images, isolation, prepared, references
from agentk.control.references import Found
from agentk.runtime import box as boxes

RUNTIME = {"metadata": {"name": "nsjail"}, "spec": {"type": "nsjail"}}
BASELINE: dict[str, Any] = {"metadata": {"name": "baseline"}, "spec": {"level": "baseline"}}
ATTEMPT = box.Attempt(2, "token", "run", host_uid=70001, source_path="/state/sources/abc")


def agent(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "a", "namespace": "ns", "uid": "u-1", "generation": 3, "labels": {"app": "x"}}
    return {"metadata": metadata, "spec": {"command": ["python", "main.py"], **spec}}


def found(**fields: Any) -> Found:
    return Found(**{"runtime": RUNTIME, "policy": BASELINE, **fields})


def problems(of: dict[str, Any], given: Found) -> list[str]:
    with pytest.raises(box.Unfit) as unfit:
        box.build(of, given, ATTEMPT)
    return [f"{problem.reason}: {problem.message}" for problem in unfit.value.problems]


def secret(**data: str) -> dict[str, Any]:
    return {
        "kind": "Secret",
        "data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items()},
    }


def test_a_plain_agent() -> None:
    made = box.build(agent(args=["-v"]), found(), ATTEMPT)
    assert (made.id, made.attempt, made.host_uid) == ("u-1-2", 2, 70001)
    assert list(made.argv) == ["python", "main.py", "-v"]
    assert (made.cwd, made.hostname, made.seccomp, made.enforcement) == (
        "/workspace",
        "a",
        "baseline",
        "Strict",
    )
    assert made.annotations == {"name": "a", "generation": "3", "token": "token"}
    assert made.env["AGENTK_AGENT"] == "a"


def test_what_a_box_must_believe_is_a_file_that_every_client_is_pointed_at() -> None:
    made = box.build(agent(), found(), replace(ATTEMPT, certificates="PEM\n"))
    mount = made.mounts[-1]
    assert (mount.kind, mount.target, mount.files) == ("files", "/opt/certificates", {"ca.pem": "UEVNCg=="})
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        assert made.env[name] == "/opt/certificates/ca.pem"
    assert "SSL_CERT_FILE" not in box.build(agent(), found(), ATTEMPT).env


def test_a_secret_that_the_gate_would_inject_must_be_there() -> None:
    def injecting(key: str) -> dict[str, Any]:
        return {"name": "gh", "key": key, "inject": {"host": "api.example.com", "header": "Authorization"}}

    wanted = agent(secrets=[injecting("token"), injecting("other")])
    assert references.Ref("Secret", "ns", "gh") in references.names(wanted)
    told = [f'ConfigError: secrets[{at}]: Secret "gh" does not exist' for at in range(2)]
    assert problems(wanted, found()) == told
    only = found(secrets={"gh": secret(token="t")})
    assert problems(wanted, only) == ['ConfigError: secrets[1]: Secret "gh" has no key "other"']
    made = box.build(agent(secrets=[injecting("token")]), only, ATTEMPT)
    assert "t" not in made.env.values()


def test_limits_and_logs() -> None:
    limits = {"cpu": "500m", "memory": "256Mi", "pids": 7, "ephemeral-storage": "1Mi", "open-files": 64}
    spec = {"resources": {"limits": limits}, "logs": {"maxSize": "1Mi", "maxFiles": 2, "maxRate": "256Ki"}}
    made = box.build(agent(**spec), found(), ATTEMPT)
    assert made.limits.cpu_millis == 500
    assert (made.limits.memory_bytes, made.limits.pids, made.limits.open_files) == (256 << 20, 7, 64)
    assert made.mounts[0].size_bytes == made.limits.storage_bytes == 1 << 20
    assert (made.log.max_bytes, made.log.max_files, made.log.bytes_per_second) == (1 << 20, 2, 256 << 10)


def test_the_weight_of_its_cpus() -> None:
    assert box.build(agent(), found(), ATTEMPT).limits.cpu_weight == 100
    assert box.build(agent(resources={"weight": 250}), found(), ATTEMPT).limits.cpu_weight == 250


def test_a_packed_source_is_bound_read_only_and_is_where_it_starts() -> None:
    made = box.build(agent(source={"path": "./x", "digest": "sha256:0"}), found(), ATTEMPT)
    source = made.mounts[1]
    assert (source.kind, source.target, source.source) == ("bind", "/app", "/state/sources/abc")
    assert source.read_only and made.cwd == "/app"


def test_inline_and_config_map_sources_are_files() -> None:
    inline = box.build(agent(source={"inline": {"files": {"main.py": "x"}}}), found(), ATTEMPT)
    assert base64.b64decode(inline.mounts[1].files["main.py"]) == b"x"
    maps = {"code": {"kind": "ConfigMap", "data": {"main.py": "y"}, "binaryData": {"b": "AAE="}}}
    mapped = box.build(agent(source={"configMapRef": {"name": "code"}}), found(config_maps=maps), ATTEMPT)
    assert base64.b64decode(mapped.mounts[1].files["b"]) == b"\0\1"


def test_environment_from_everywhere() -> None:
    env = [
        {"name": "PLAIN", "value": "1"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "m"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "BOTH", "value": "$(PLAIN)-$(MODE)-$$(PLAIN)-$(NOPE)"},
        {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": True}}},
    ]
    maps = {"c": {"kind": "ConfigMap", "data": {"m": "fast"}}}
    made = box.build(
        agent(env=env, args=["$(MODE)"]), found(secrets={"s": secret(k="hush")}, config_maps=maps), ATTEMPT
    )
    assert (made.env["TOKEN"], made.env["APP"]) == ("hush", "x")
    assert made.env["BOTH"] == "1-fast-$(PLAIN)-$(NOPE)"
    assert "GONE" not in made.env
    assert made.argv[-1] == "fast"


def test_all_missing_things_are_told_at_once_without_values() -> None:
    env = [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "no"}}},
        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "m"}}},
    ]
    told = problems(agent(env=env), found(secrets={"s": secret(k="hush")}))
    assert told == [
        'ConfigError: env A: Secret "s" has no key "no"',
        'ConfigError: env B: ConfigMap "c" does not exist',
    ]
    assert "hush" not in str(told)


def test_volumes() -> None:
    volumes = [
        {"name": "t", "emptyDir": {"sizeLimit": "8Mi"}},
        {"name": "s", "secret": {"secretName": "s"}},
        {"name": "c", "configMap": {"name": "c"}},
    ]
    mounts = [{"name": name, "mountPath": f"/mnt/{name}"} for name in "tsc"]
    given = found(
        secrets={"s": secret(k="hush")}, config_maps={"c": {"kind": "ConfigMap", "data": {"m": "1"}}}
    )
    made = box.build(agent(volumes=volumes, volumeMounts=mounts), given, ATTEMPT)
    kinds = [(one.kind, one.target, one.read_only, one.mode) for one in made.mounts[1:]]
    assert kinds == [
        ("tmpfs", "/mnt/t", False, 0o444),
        ("files", "/mnt/s", True, 0o400),
        ("files", "/mnt/c", True, 0o444),
    ]
    assert made.mounts[1].size_bytes == 8 << 20


def host_path(path: str, read_only: bool = True) -> dict[str, Any]:
    mounts = [{"name": "h", "mountPath": "/mnt/h", "readOnly": read_only}]
    return agent(volumes=[{"name": "h", "hostPath": {"path": path}}], volumeMounts=mounts)


def policy(level: str, **isolated: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"level": level, "isolation": isolated}}


@pytest.mark.parametrize(
    ("rules", "path", "read_only", "denied"),
    [
        (BASELINE, "/data", True, "does not list it"),
        (policy("privileged"), "/data", False, ""),
        (policy("privileged", hostPaths=[]), "/data", True, "does not list it"),
        (policy("restricted", hostPaths=[{"pathPrefix": "/data"}]), "/data", True, "restricted allows none"),
        (policy("baseline", hostPaths=[{"pathPrefix": "/data"}]), "/data/x", True, ""),
        (policy("baseline", hostPaths=[{"pathPrefix": "/data"}]), "/data", False, "only with readOnly"),
        (policy("baseline", hostPaths=[{"pathPrefix": "/data", "readOnly": False}]), "/data", False, ""),
        (policy("baseline", hostPaths=[{"pathPrefix": "/data"}]), "/database", True, "does not list it"),
        (policy("baseline", hostPaths=[{"pathPrefix": "/data"}]), "/data/../etc", True, "plain absolute"),
        (policy("privileged"), "/data/../etc", True, "plain absolute"),
    ],
)
def test_host_paths_need_the_policy(rules: dict[str, Any], path: str, read_only: bool, denied: str) -> None:
    given = found(policy=rules)
    if denied:
        [told] = problems(host_path(path, read_only), given)
        assert told.startswith("PolicyDenied") and denied in told
    else:
        assert box.build(host_path(path, read_only), given, ATTEMPT).mounts[1].source == path


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        (BASELINE, False),
        (policy("privileged"), True),
        (policy("baseline", allowRuntimes=["plain"]), True),
        (policy("privileged", allowRuntimes=["nsjail"]), False),
        (policy("privileged", allowRuntimes=[]), False),
    ],
)
def test_a_runtime_without_isolation_needs_the_policy(rules: dict[str, Any], allowed: bool) -> None:
    plain = {"metadata": {"name": "plain"}, "spec": {"type": "process"}}
    denied = [problem.reason for problem in isolation.problems({}, plain, rules)]
    assert denied == ([] if allowed else ["PolicyDenied"])


@pytest.mark.parametrize(
    ("runtime", "rules", "seccomp"),
    [
        ("baseline", BASELINE, "baseline"),
        ("restricted", BASELINE, "restricted"),
        ("privileged", BASELINE, "baseline"),
        ("baseline", policy("restricted"), "restricted"),
        ("privileged", policy("privileged"), "privileged"),
        ("privileged", policy("privileged", seccomp="restricted"), "restricted"),
        ("nonsense", policy("privileged"), "restricted"),
    ],
)
def test_the_stricter_seccomp_counts(runtime: str, rules: dict[str, Any], seccomp: str) -> None:
    assert isolation.seccomp({"seccomp": runtime}, rules) == seccomp


def test_missing_runtime_and_policy_are_named() -> None:
    told = problems(agent(runtimeRef={"name": "rt"}, policyRef={"name": "pol"}), Found())
    assert told == [
        'RuntimeNotFound: Runtime "rt" does not exist; agentk get runtimes shows those that do',
        'PolicyNotFound: Policy "pol" does not exist',
    ]


def test_names_of_everything_referred_to() -> None:
    one = agent(
        source={"configMapRef": {"name": "code"}},
        env=[{"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        volumes=[{"name": "v", "configMap": {"name": "c"}}],
    )
    assert references.names(one) == {
        ("Runtime", "", "nsjail"),
        ("Policy", "", "baseline"),
        ("ConfigMap", "ns", "code"),
        ("ConfigMap", "ns", "c"),
        ("Secret", "ns", "s"),
    }


# images


PODMAN = {"metadata": {"name": "podman"}, "spec": {"type": "podman"}}
PRIVILEGED: dict[str, Any] = {"metadata": {"name": "privileged"}, "spec": {"level": "privileged"}}


def on_image(**fields: Any) -> box.Attempt:
    made = boxes.Image("a" * 64, "sha256:" + "b" * 64, **fields)
    order = images.Order(names.parse("python:3"), "IfNotPresent")
    chosen = images.Chosen(order, made, "", (0, 0), 0.0)
    return replace(ATTEMPT, given=prepared.NOTHING.on(chosen))


def test_a_box_carries_its_image_by_id_and_tells_what_it_is() -> None:
    made = box.build(agent(image="python:3"), found(runtime=PODMAN, policy=PRIVILEGED), on_image())
    assert made.image == "a" * 64
    assert prepared.image_of(made.annotations) == {
        "reference": "docker.io/library/python:3",
        "id": "sha256:" + "a" * 64,
        "digest": "sha256:" + "b" * 64,
    }


def test_an_image_says_where_its_programs_are_but_nothing_of_ours() -> None:
    theirs = {"PATH": "/opt/x/bin:/bin", "HOME": "/root", "AGENTK_SOCKET": "/evil", "JAVA_HOME": "/j"}
    given = found(runtime=PODMAN, policy=PRIVILEGED)
    made = box.build(agent(image="python:3"), given, on_image(env=theirs, cwd="/srv"))
    assert (made.env["PATH"], made.env["HOME"], made.env["JAVA_HOME"]) == (
        "/opt/x/bin:/bin",
        "/workspace",
        "/j",
    )
    assert made.env["AGENTK_SOCKET"] == "/run/agentk/gate.sock"
    assert made.cwd == "/srv"
    own = agent(image="python:3", env=[{"name": "PATH", "value": "/mine"}], workingDir="/tmp")
    made = box.build(own, given, on_image(env=theirs, cwd="/srv"))
    assert (made.env["PATH"], made.cwd) == ("/mine", "/tmp")


def test_a_runtime_that_shows_the_host_refuses_an_image() -> None:
    (told,) = problems(agent(image="python:3"), found())
    assert told.startswith("ConfigError: image: a Runtime of type nsjail shows the host's own files")


def test_packages_for_the_hosts_python_are_not_put_into_an_image() -> None:
    wanted = agent(image="python:3", environment={"python": {"requirements": ["openai"]}})
    (told,) = problems(wanted, found(runtime=PODMAN, policy=PRIVILEGED))
    assert "install them in the image" in told
    node = agent(image="node:20", environment={"node": {"packages": ["left-pad"]}})
    box.build(node, found(runtime=PODMAN, policy=PRIVILEGED), on_image())


def test_a_login_that_is_missing_is_waited_for() -> None:
    wanted = agent(image="python:3", imagePullSecrets=[{"name": "registry"}])
    assert references.Ref("Secret", "ns", "registry") in references.names(wanted)
    (told,) = problems(wanted, found(runtime=PODMAN, policy=PRIVILEGED))
    assert told == 'ConfigError: imagePullSecrets[0]: Secret "registry" does not exist'


def test_a_program_is_told_by_one_file_and_by_nothing_else() -> None:
    made = agent(
        program="react",
        role="a clerk",
        steps=3,
        memory={"contextTokens": 3000},
        source={"inline": {"files": {"a": "b"}}},
        context=[{"name": "n", "text": "t"}, {"configMapRef": {"name": "facts"}}],
        task="only for the gate to tell",
    )
    del made["spec"]["command"]
    assert references.Ref("ConfigMap", "ns", "facts") in references.names(made)
    facts = {"kind": "ConfigMap", "data": {"k": "v"}}
    built = box.build(made, found(config_maps={"facts": facts}), ATTEMPT)
    assert (list(built.argv), built.cwd) == (["python3", "-m", "agentk.programs.react"], "/opt/program")
    mount = next(one for one in built.mounts if one.target == "/opt/program")
    assert mount.read_only and list(mount.files) == ["program.json"]
    told = json.loads(base64.b64decode(mount.files["program.json"]))
    context = [{"name": "n", "text": "t"}, {"name": "k", "text": "v"}]
    assert told == {"program": "react", "role": "a clerk", "steps": 3, "window": 3000, "context": context}
    assert "clerk" not in str(built.env)
    made["spec"]["context"] = [{"path": "x.md"}, {"configMapRef": {"name": "none"}}]
    wrong = problems(made, found())
    assert (
        "context[0].path" in wrong[0]
        and wrong[1] == 'ConfigError: context[1]: ConfigMap "none" does not exist'
    )


def test_a_machine_is_told_the_size_of_its_context_by_itself_and_else_by_its_memory() -> None:
    def told(memory: dict[str, Any]) -> Any:
        made = agent(program="machine", memory={"ref": {"name": "team"}, **memory})
        del made["spec"]["command"]
        assert references.Ref("Memory", "ns", "team") in references.names(made)
        built = box.build(made, found(memory={"spec": {"contextTokens": 5000}}), ATTEMPT)
        mount = next(one for one in built.mounts if one.target == "/opt/program")
        return json.loads(base64.b64decode(mount.files["program.json"]))["window"]

    assert (told({}), told({"contextTokens": 3000})) == (5000, 3000)
    assert references.names(agent(memory={"ref": {"name": "team"}})) == references.names(agent())
