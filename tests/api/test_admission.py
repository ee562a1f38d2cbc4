"""Admitting is checking every field, telling every problem with its place, and filling in defaults."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import admit, errors, kinds, schemas
from api import samples
from api.samples import agent, core, ours


def problems(text: str) -> list[str]:
    with pytest.raises(errors.Invalid) as caught:
        samples.admit_text(text)
    return [str(cause) for cause in caught.value.causes]


def problem(obj: dict[str, Any]) -> str:
    with pytest.raises(errors.Invalid) as caught:
        admit.admit(obj)
    assert len(caught.value.causes) == 1, str(caught.value)
    return str(caught.value.causes[0])


HEAD = "apiVersion: agentk.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec:\n"


def test_defaults_are_filled_in_all_the_way_down() -> None:
    spec = admit.admit(agent(volumes=[{"name": "x", "emptyDir": {}}]))["spec"]
    assert spec["resources"]["limits"] == {
        "cpu": "1",
        "memory": "512Mi",
        "pids": 128,
        "ephemeral-storage": "128Mi",
        "open-files": 1024,
    }
    assert (spec["runtimeRef"], spec["restartPolicy"]) == ({"name": "nsjail"}, "OnFailure")
    assert spec["volumes"] == [{"name": "x", "emptyDir": {"medium": "", "sizeLimit": "64Mi"}}]
    assert "livenessProbe" not in spec and "env" not in spec


@given(samples.AGENTS)
def test_admitting_twice_is_admitting_once(obj: dict[str, Any]) -> None:
    before = copy.deepcopy(obj)
    once = admit.admit(obj)
    assert samples.same(admit.admit(once), once)
    assert samples.same(obj, before)


@given(samples.AGENTS)
def test_what_was_written_is_kept(obj: dict[str, Any]) -> None:
    made = admit.admit(obj)
    for key, value in obj["spec"].items():
        if key not in ("resources", "livenessProbe"):
            assert made["spec"][key] == value
    for key, value in obj["spec"].get("resources", {}).get("limits", {}).items():
        assert str(made["spec"]["resources"]["limits"][key]) == str(value)


@given(samples.AGENTS)
def test_a_partial_object_gets_no_defaults(obj: dict[str, Any]) -> None:
    del obj["spec"]["command"]
    assert set(admit.admit(obj, partial=True)["spec"]) == set(obj["spec"])


@pytest.mark.parametrize(
    "obj",
    [
        ours("Runtime", type="nsjail", defaults={"resources": {"limits": {"memory": "1Gi"}}}),
        ours(
            "Policy",
            level="baseline",
            isolation={"hostPaths": [{"pathPrefix": "/data"}], "allowRuntimes": ["x"]},
        ),
        ours("Quota", hard={"agents": 5, "cpu": 2, "memory": "1Gi"}),
        core("Namespace"),
        core("Secret", stringData={"a": "b"}),
        core("ConfigMap", data={"a": "b"}, binaryData={"c": "aGk="}),
        core("Event", involvedObject={"kind": "Agent", "name": "x"}, type="Normal", eventTime=None),
    ],
    ids=lambda obj: obj["kind"],
)
def test_every_kind_is_admitted_and_twice_is_once(obj: dict[str, Any]) -> None:
    once = admit.admit(obj)
    assert samples.same(admit.admit(once), once)


def test_all_problems_are_told_in_the_order_of_the_file() -> None:
    told = problems(
        "apiVersion: agentk.dev/v1alpha1\n"
        "kind: Agent\n"
        "metadata: {name: Triage, lables: {a: b}}\n"
        "spec:\n"
        "  comand: [x]\n"
        "  restartPolicy: onfailure\n"
        "  env: [{name: A, value: 5}]\n"
        "  volumeMounts: [{name: dta, mountPath: /proc/x}]\n"
        "  resources: {limits: {memory: 512m, pids: 1.5}}\n"
        "  priority: 2000\n"
    )
    fields = [line.split(": ")[1] for line in told]
    assert fields == [
        "metadata.name",
        "metadata.lables",
        "spec.comand",
        "spec",
        "spec.restartPolicy",
        "spec.env[0].value",
        "spec.volumeMounts[0].name",
        "spec.volumeMounts[0].mountPath",
        "spec.resources.limits.memory",
        "spec.resources.limits.pids",
        "spec.priority",
    ]
    assert told[0].startswith("f.yaml:3:18: ") and told[-1].startswith("f.yaml:10:13: ")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("comand: [x]", "5:3: spec.comand: unknown field; did you mean 'command'?"),
        ("pids: 5", "5:3: spec.pids: unknown field; did you mean 'spec.resources.limits.pids'?"),
        ("zzz: 1", "5:3: spec.zzz: unknown field; supported fields: activeDeadlineSeconds, args"),
        (
            "restartPolicy: Allways",
            "expected one of Always, OnFailure, Never, found \"Allways\"; did you mean 'Always'?",
        ),
        ("suspend: yes", '5:12: spec.suspend: expected true or false, found "yes"; did you mean true?'),
        ("priority: '5'", 'expected a whole number, found "5"; did you mean 5 without quotes?'),
        ("priority: 1.0", "expected a whole number, found the number 1.0"),
        ("priority: true", "expected a whole number, found true"),
        ("priority: 1001", "expected at most 1000, found 1001"),
        ("modelRef: models", 'expected an object, found "models"; write {name: …}'),
        ("tools: [words]", 'expected an object, found "words"; write {ref: {name: …}}'),
        ("restartWindow: 10", "expected text, found the number 10; write 10s"),
        ("restartWindow: '10'", "write 10s"),
        ("args: ls -l", 'expected a list, found "ls -l"; write a list: [first, second]'),
        ("args: [5]", "5:10: spec.args[0]: expected text, found the number 5; put it in quotes"),
        ("args: [x, null]", "spec.args[1]: expected text, found nothing"),
        ("hostname: A_b", "expected a name of at most 63 lower-case letters"),
        ("hostname: " + "a" * 64, "expected at most 63 characters, found 64"),
        ("env: [{value: x}]", "spec.env[0].name: is required; Name of the variable"),
        ("env: [{name: 1A}]", "expected a variable name"),
        ("env: [{name: A}, {name: A}]", "spec.env[1].name: is given twice; first given as env[0]"),
        (
            "env: [{name: A, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]",
            "value and valueFrom cannot both",
        ),
        (
            "env: [{name: A, valueFrom: {}}]",
            "expected exactly one of secretKeyRef, configMapKeyRef and fieldRef, found none",
        ),
        (
            "livenessProbe: {exec: {command: [x]}, heartbeat: {}}",
            "exactly one of exec and heartbeat, found exec and heartbeat",
        ),
        ("livenessProbe: {exec: {command: [x]}, successThreshold: 2}", "expected at most 1, found 2"),
        ("source: {path: x, inline: {files: {a: b}}}", "exactly one of path, inline and configMapRef"),
        ("source: {inline: {files: {}}}", "must not be empty"),
        ("resources: {limits: {memory: 256MB}}", "did you mean '256M'?"),
        ("resources: {limits: {memory: [1]}}", "expected a quantity such as 256Mi or 500m, found a list"),
        ("resources: {limits: {memory: true}}", "expected a quantity such as 256Mi or 500m, found true"),
        ("restartWindow: 2d", "days are not a unit: write 48h"),
        ("runtimeRef: nsjail", 'expected an object, found "nsjail"'),
    ],
)
def test_each_problem_says_where_what_and_what_was_meant(line: str, told: str) -> None:
    text = HEAD + f"  {line}\n" + ("" if line.startswith("comand") else "  command: [x]\n")
    assert any(told in found for found in problems(text))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: Agent", "apiVersion: is required"),
        ("apiVersion: v1", "kind: is required"),
        ("apiVersion: 1\nkind: [x]", "f.yaml:1:13: apiVersion: expected text, found the number 1"),
        (
            "apiVersion: agentk.dev/v1alpha1\nkind: Agnet",
            "f.yaml:2:7: kind: unknown kind \"Agnet\"; did you mean 'Agent'?",
        ),
        (
            "apiVersion: v2\nkind: Agent",
            'f.yaml:1:13: apiVersion: no kind "Agent" in apiVersion "v2"; use apiVersion',
        ),
        (HEAD + "  command: [x]\nspecs: {}", "f.yaml:6:1: specs: unknown field; did you mean 'spec'?"),
        ("apiVersion: v1\nkind: Namespace", "metadata.name: is required"),
        ("apiVersion: v1\nkind: Namespace\nmetadata: 5", "metadata: expected an object"),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: a.b}", "metadata.name: a namespace has"),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}",
            "a Namespace belongs to no namespace",
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {'a b': c}}",
            "metadata.labels[a b]: expected a key",
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {a: 'b c'}}",
            "expected a label value",
        ),
        ('apiVersion: v1\nkind: Namespace\nmetadata: {name: "a\\n"}', "metadata.name: expected a name"),
        (
            "apiVersion: agentk.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}",
            "spec: is required; What the agent should be",
        ),
    ],
)
def test_problems_around_the_spec(text: str, told: str) -> None:
    assert any(told in found for found in problems(text))


def test_missing_things_point_at_what_they_are_missing_from() -> None:
    assert problems(HEAD + "  env: []\n  source:\n    inline: {}\n  command: [x]\n")[0].startswith(
        "f.yaml:7:13: "
    )


def test_nulls_are_as_if_not_written() -> None:
    made = admit.admit(agent(args=None, priority=None, env=[{"name": "A", "value": None}]))
    assert (
        made["spec"]["priority"] == 0
        and "args" not in made["spec"]
        and made["spec"]["env"] == [{"name": "A"}]
    )


@pytest.mark.parametrize(
    ("given_", "kept"), [(1, "1"), (268435456, "268435456"), (2.0, "2"), (0.5, "0.5"), ("1", "1")]
)
def test_amounts_given_as_numbers_become_text(given_: object, kept: str) -> None:
    made = admit.admit(ours("Quota", hard={"cpu": given_}))
    assert made["spec"]["hard"] == {"cpu": kept}


def test_a_flood_of_unknown_fields_is_told_without_guessing_at_each() -> None:
    with pytest.raises(errors.Invalid) as caught:
        admit.admit(agent(**{f"u{number}": 1 for number in range(500)}))
    assert len(caught.value.causes) == 500
    assert sum(bool(cause.hint) for cause in caught.value.causes) == 50


def test_without_strict_unknown_fields_are_dropped() -> None:
    obj = agent(zzz=1, env=[{"name": "A", "vlaue": "x"}])
    assert "zzz" not in admit.admit(obj, strict=False)["spec"]
    assert admit.unknown_fields(obj) == ['unknown field "spec.zzz"', 'unknown field "spec.env[0].vlaue"']


def test_a_runtimes_defaults_go_between() -> None:
    defaults = {"resources": {"limits": {"memory": "1Gi", "pids": 7}}}
    limits = admit.admit(agent(resources={"limits": {"pids": 9}}), defaults=defaults)["spec"]["resources"][
        "limits"
    ]
    assert (limits["memory"], limits["pids"], limits["cpu"]) == ("1Gi", 9, "1")
    assert defaults == {"resources": {"limits": {"memory": "1Gi", "pids": 7}}}


def test_defaults_that_do_not_fit_what_is_given_are_told() -> None:
    assert "expected at least initialSeconds (400), found 300" in problem(
        agent(restartBackoff={"initialSeconds": 400})
    )


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (nested(5000), "nested deeper"),
        ([1] * 300_000, "more than 200000 values"),
        ("a\0b", "NUL"),
        ("\ud800", "surrogate"),
        (float("nan"), "infinity and NaN"),
        ({"a\0": 1}, "no clean text"),
    ],
)
def test_hostile_json_is_refused_anywhere(value: Any, told: str) -> None:
    for obj in (agent(args=value), {**agent(), "status": {"usage": value}}, {**agent(), "zzz": value}):
        with pytest.raises(errors.Invalid, match=told):
            admit.admit(obj)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["name", "value", "limits", "exec"]), below, max_size=3
        )
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.kind)
@given(data=st.data())
def test_any_object_is_admitted_or_invalid(kind: kinds.Kind, data: st.DataObject) -> None:
    fields = st.sampled_from([*schemas.of(kind)["properties"], "zzz"])
    spec = st.dictionaries(
        st.sampled_from(
            [
                *schemas.of(kind)["properties"]
                .get("spec", {"properties": {"x": 1}})
                .get("properties", {"x": 1})
            ]
        ),
        JSON,
        max_size=4,
    )
    obj = data.draw(st.dictionaries(fields, JSON | spec, max_size=4))
    obj = {"metadata": {"name": "a"}, **obj, "apiVersion": kind.api_version, "kind": kind.kind}
    try:
        once = admit.admit(obj)
    except errors.Invalid as error:
        assert error.causes and str(error)
    else:
        assert samples.same(admit.admit(once), once)


SECRET = "hunter2-not-a-number"


@pytest.mark.parametrize(
    "fields",
    [
        {"data": {"k": SECRET}},
        {"data": {"k": [SECRET]}},
        {"data": SECRET},
        {"stringData": {"k": {"x": SECRET}}},
        {"stringData": {"a b": SECRET}},
        {"stringData": {"k": SECRET + "\0"}},
        {"data": {"k": 7777777}},
    ],
)
def test_messages_never_quote_a_secrets_value(fields: dict[str, Any]) -> None:
    with pytest.raises(errors.Invalid) as caught:
        admit.admit(core("Secret", **fields))
    told = str(caught.value) + str(caught.value.to_status())
    assert "hunter2" not in told and "7777777" not in told


def test_string_data_is_moved_into_data() -> None:
    made = admit.admit(core("Secret", data={"a": "YQ==", "b": "Yg=="}, stringData={"b": "é"}))
    assert (
        made["data"] == {"a": "YQ==", "b": "w6k="} and "stringData" not in made and made["type"] == "Opaque"
    )


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        (ours("Runtime", type="nsjail"), ours("Runtime", type="process"), "spec.type"),
        (core("Secret"), core("Secret", type="x"), "type"),
        (core("Secret", immutable=True), core("Secret", data={"a": "YQ=="}, immutable=True), "data"),
        (core("ConfigMap", immutable=True), core("ConfigMap"), "immutable"),
        (
            core("ConfigMap", immutable=True),
            core("ConfigMap", binaryData={"a": "YQ=="}, immutable=True),
            "binaryData",
        ),
    ],
)
def test_what_cannot_be_changed_is_refused(old: dict[str, Any], new: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        admit.admit_update(admit.admit(old), admit.admit(new))
    assert [cause.field for cause in caught.value.causes] == [field]


def test_other_changes_are_let_through() -> None:
    admit.admit_update(admit.admit(agent()), admit.admit(agent(priority=5)))
    admit.admit_update(
        admit.admit(core("Secret")), admit.admit(core("Secret", data={"a": "YQ=="}, immutable=True))
    )
