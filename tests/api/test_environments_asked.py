"""What `spec.environment` may ask for, and that the same request has the same name however it is written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import environments, errors

SHA = "a" * 64
INTEGRITY = "sha512-" + "A" * 86 + "=="


@pytest.mark.parametrize(
    ("line", "normal"),
    [
        ("openai", "openai"),
        ("  OpenAI ", "openai"),
        ("ruamel.yaml==0.18", "ruamel-yaml==0.18"),
        ("httpx[http2, brotli] >= 0.27 , <1", "httpx[brotli,http2]<1,>=0.27"),
        ("a (>=1)", "a>=1"),
        ("a==1.0; python_version  < '3.12'", "a==1.0 ; python_version < '3.12'"),
        ("a==1.*", "a==1.*"),
    ],
)
def test_requirements_have_one_form(line: str, normal: str) -> None:
    assert environments.requirement(line).text == normal


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-r other.txt",
        "--index-url=http://x/simple",
        "-e .",
        "./here",
        "/abs/x.whl",
        "a @ https://x/a.whl",
        "git+https://x/a",
        "a==1 --hash=sha256:" + SHA,
        "a==1 --global-option=x",
        "a\n-r b",
        "a\\",
        "a #",
        "a;b;c",
        "x" * 2000,
    ],
)
def test_what_could_fetch_from_elsewhere_is_no_requirement(line: str) -> None:
    with pytest.raises(errors.Invalid):
        environments.requirement(line)


@given(st.text())
def test_any_text_is_a_requirement_or_refused(text: str) -> None:
    try:
        made = environments.requirement(text).text
    except errors.Invalid:
        return
    assert "\n" not in made and not made.startswith("-") and environments.requirement(made).text == made


@given(st.text())
def test_any_text_is_a_lock_or_refused(text: str) -> None:
    for parse in (environments.lock, environments.npm_lock, environments.npm_package):
        try:
            parse(text)
        except errors.Invalid:
            continue


def test_a_lock_is_read_as_pip_compile_writes_it() -> None:
    text = f"# made by\nB==2 \\\n    --hash=sha256:{SHA} \\\n    --hash=sha256:{'b' * 64}\n    # via a\n"
    text += f"a[x]==1.0 ; os_name == 'posix' --hash=sha256:{SHA}\n"
    made = environments.lock(text)
    assert [(one.text, len(one.hashes)) for one in made] == [
        ("a[x]==1.0 ; os_name == 'posix'", 1),
        ("b==2", 2),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a==1", "line 1: a needs one exact version and at least one --hash"),
        (f"a>=1 --hash=sha256:{SHA}", "exact version"),
        (f"a==1.* --hash=sha256:{SHA}", "exact version"),
        (f"\n--index-url http://x\na==1 --hash=sha256:{SHA}", "line 2: an option of pip"),
        ("a==1 --hash=md5:" + "a" * 32, "not a requirement|exact version"),
        (f"a @ http://x/a.whl --hash=sha256:{SHA}", "no URL"),
        ("# nothing", "names no package"),
    ],
)
def test_a_lock_that_holds_nothing_is_refused_with_its_line(text: str, why: str) -> None:
    with pytest.raises(errors.Invalid, match=why):
        environments.lock(text)


def npm(**package: object) -> str:
    one = {"version": "1.3.0", "resolved": "https://r/left-pad.tgz", "integrity": INTEGRITY, **package}
    root = {
        "name": "mine",
        "dependencies": {"left-pad": "^1"},
        "scripts": {"install": "x"},
        "devDependencies": {},
    }
    return json.dumps({"lockfileVersion": 3, "packages": {"": root, "node_modules/left-pad": one}})


def test_an_npm_lock_says_what_and_not_from_where() -> None:
    made = environments.npm_lock(npm())
    assert made["packages"][""] == {
        "name": "environment",
        "version": "0.0.0",
        "dependencies": {"left-pad": "^1"},
    }
    assert made["packages"]["node_modules/left-pad"] == {"version": "1.3.0", "integrity": INTEGRITY}


@pytest.mark.parametrize("change", [{"integrity": ""}, {"link": True}, {"version": "git+ssh://x"}])
def test_an_npm_lock_has_only_packages_of_a_registry(change: dict[str, object]) -> None:
    with pytest.raises(errors.Invalid, match="node_modules/left-pad"):
        environments.npm_lock(npm(**change))


@pytest.mark.parametrize(
    "text", ["git+https://x/y", "x@git+ssh://y", "../x", "x@file:../y", "a b", "--registry=x", "u/r"]
)
def test_what_is_not_in_a_registry_is_no_package(text: str) -> None:
    with pytest.raises(errors.Invalid):
        environments.npm_package(text)


def name(environment: dict[str, object], interpreter: tuple[str, ...] = ("3.11", "x86_64")) -> str:
    wanted = environments.request(environment, "python")
    assert wanted is not None
    return environments.digest(wanted, "python", interpreter)


def test_the_same_words_in_another_order_are_the_same_environment() -> None:
    one = name({"python": {"requirements": ["b>=1,<2", "A"]}})
    assert one == name({"python": {"requirements": ["a", "B<2, >=1", "a"]}})
    assert one != name({"python": {"requirements": ["a", "b"]}})
    assert one != name({"python": {"requirements": ["a", "b<2,>=1"]}}, ("3.12", "x86_64"))
    locked = f"a==1 --hash=sha256:{SHA}"
    assert name({"python": {"lock": locked}}) == name(
        {"python": {"lock": f"# x\n{locked} # y\n", "lockFile": "l"}}
    )
    assert len(one) == 32


def test_what_is_there_already_is_not_built() -> None:
    assert environments.request({"python": {"venv": "/x"}}, "python") is None
    assert environments.request({}, "node") is None


def test_every_problem_is_told_at_its_place() -> None:
    asked = {
        "python": {"requirements": ["a", "-e ."]},
        "node": {"packages": ["ok@1", "no/t/ok"], "lock": "{"},
    }
    found = [path for path, _, _ in environments.problems(asked)]
    assert found == [("python", "requirements", 1), ("node", "packages", 1), ("node", "lock")]
