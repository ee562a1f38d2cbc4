"""kubectl's JSONPath, case by case."""

import pytest

from agentk.cli import jsonpath, usage

AGENT = {
    "metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "web"}, "annotations": {"x": "1"}},
    "spec": {"command": ["sh", "-c", "true"], "n": 3, "on": True},
    "status": {
        "conditions": [
            {"type": "Ready", "status": "False", "age": 3},
            {"type": "Finished", "status": "True", "age": 9},
        ]
    },
}
LIST = {"kind": "List", "items": [{"metadata": {"name": "a"}, "n": 1}, {"metadata": {"name": "b"}, "n": 2}]}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{.metadata.name}", "a"),
        ("{ .metadata.name }", "a"),
        ("name={.metadata.name}!", "name=a!"),
        ("{$.metadata.name}", "a"),
        ("{@.metadata.name}", "a"),
        ("{.spec.n}", "3"),
        ("{.spec.on}", "true"),
        ("{.spec.command}", '["sh","-c","true"]'),
        ("{.spec.command[0]}", "sh"),
        ("{.spec.command[-1]}", "true"),
        ("{.spec.command[9]}", ""),
        ("{.spec.command[*]}", "sh -c true"),
        ("{.spec.command[0:2]}", "sh -c"),
        ("{.spec.command[0,2]}", "sh true"),
        ("{.spec.missing.deeper}", ""),
        ("{.metadata['name']}", "a"),
        ("{.metadata.labels.app\\.kubernetes\\.io/name}", "web"),
        ("{.metadata.labels['app.kubernetes.io/name']}", "web"),
        ("{['metadata']['name']}", "a"),
        ('{.status.conditions[?(@.type=="Ready")].status}', "False"),
        ("{.status.conditions[?(@.type=='Ready')].status}", "False"),
        ('{.status.conditions[?(@.type!="Ready")].type}', "Finished"),
        ("{.status.conditions[?(@.age>3)].type}", "Finished"),
        ("{.status.conditions[?(@.age<=3)].type}", "Ready"),
        ("{.status.conditions[?(@.missing)].type}", ""),
        ("{..age}", "3 9"),
        ("{.status.conditions[*].type}", "Ready Finished"),
        ('{.metadata.name}{"\\n"}', "a\n"),
        ('{.metadata.name}{"\\t{}"}x', "a\t{}x"),
        ("plain", "plain"),
    ],
)
def test_renders_what_kubectl_renders(template: str, expected: str) -> None:
    assert jsonpath.parse(template).render(AGENT) == expected


def test_range_repeats_its_body_for_each_item() -> None:
    template = '{range .items[*]}{.metadata.name}={.n}{"\\n"}{end}done'
    assert jsonpath.parse(template).render(LIST) == "a=1\nb=2\ndone"


def test_ranges_nest() -> None:
    obj = {"items": [{"c": [1, 2]}, {"c": [3]}]}
    assert jsonpath.parse("{range .items[*]}<{range .c[*]}{@},{end}>{end}").render(obj) == "<1,2,><3,>"


def test_dollar_means_the_whole_object_inside_a_range() -> None:
    assert jsonpath.parse("{range .items[*]}{$.kind}{end}").render(LIST) == "ListList"


@pytest.mark.parametrize("path", ["status.n", ".status.n", "{.status.n}", " {.status.n} "])
def test_a_single_path_may_omit_braces_and_dot(path: str) -> None:
    assert jsonpath.find(path, {"status": {"n": [0, 1]}}) == [[0, 1]]


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("{.a", "never closed"),
        ("{.a[0}", "never closed"),
        ("{range .a[*]}x", "without an {end}"),
        ("x{end}", "without a {range}"),
        ("{name}", "not an expression"),
        ("{.a[x]}", "neither a number"),
        ("{.a[]}", "neither a number"),
        ("{.a[?(.x==1)]}", "not a condition"),
        ("{.a[?(@.x==word)]}", "quoted text"),
        ("{.a[?(@.x=~'b')]}", "not a condition"),
        ("{.a..}", "needs a name"),
        ("{}", "not an expression"),
    ],
)
def test_a_wrong_template_is_told(template: str, word: str) -> None:
    with pytest.raises(usage.Usage, match=word.replace("(", r"\(").replace("{", r"\{")):
        jsonpath.parse(template)
