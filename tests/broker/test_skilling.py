"""Which Skills an agent may use, and what a child of it may."""

import pytest

from agentk.broker import narrowing, skilling


def entry(name: str, namespace: str = "a", *, to: tuple[str, ...] = ()) -> skilling.Entry:
    return skilling.Entry(namespace, name, "", 1, frozenset(to), "")


def uses(*names: str, namespace: str = "") -> dict[str, object]:
    use = [{"name": name, **({"namespace": namespace} if namespace else {})} for name in names]
    return {"skills": {"use": use}}


def test_one_of_each_name_is_chosen() -> None:
    there = [entry("pdf"), entry("pdf.v1"), entry("csv"), entry("pdf", "b", to=("a",)), entry("x", "b")]
    both = {"skills": {"use": [{"name": "*"}, {"name": "*", "namespace": "b"}]}}
    chosen = skilling.chosen(both, "a", there)
    assert [one.key for one in chosen] == [("a", "csv"), ("a", "pdf")]
    assert [one.key for one in skilling.chosen(uses("*", "pdf.v1"), "a", there)] == [
        ("a", "csv"),
        ("a", "pdf.v1"),
    ]
    assert [one.key for one in skilling.chosen(uses("p?f", namespace="b"), "a", there)] == [("b", "pdf")]
    assert skilling.chosen({}, "a", there) == [] == skilling.chosen(uses("pdf.*"), "a", there)


def test_what_is_named_and_not_there_is_told_and_a_glob_never_is() -> None:
    there = [entry("pdf"), entry("pdf", "b"), entry("csv", "b", to=("a",))]
    assert skilling.missing(uses("pdf", "x", "*", "p?", "pdf.v2"), "a", there) == [
        ("a", "x"),
        ("a", "pdf.v2"),
    ]
    assert skilling.missing(uses("pdf", "csv", namespace="b"), "a", there) == [("b", "pdf")]
    saves = {"skills": {"use": [{"name": "learned-x"}], "save": ["learned-*"]}}
    assert skilling.missing(saves, "a", there) == [] == skilling.missing({}, "a", there)


@pytest.mark.parametrize(
    ("child", "fits"),
    [
        (None, True),
        ({"use": [{"name": "a-b*"}], "save": ["s"]}, True),
        ({"use": [{"name": "*"}]}, False),
        ({"use": [{"name": "a-1.v2"}]}, False),
        ({"use": [{"name": "a-1", "namespace": "lib"}]}, False),
        ({"use": [{"name": "l", "namespace": "lib"}]}, True),
        ({"save": ["s*"]}, False),
        ({"use": [{"name": "a-1", "more": 1}]}, False),
        ({"more": []}, False),
        ("all", False),
    ],
)
def test_a_child_has_no_more(child: object, fits: bool) -> None:
    had = {"use": [{"name": "a-*"}, {"name": "l*", "namespace": "lib"}], "save": ["s", "t*"]}
    spec = {"command": ["x"], **({"skills": child} if child is not None else {})}
    assert (narrowing.narrower(spec, {"command": ["x"], "skills": had}) == []) is fits
