"""The person's own pip and npm configuration: what of it is taken, and which of several wins."""

import os
from pathlib import Path

import pytest

from agentk.api import errors, indexes
from agentk.client import indexes as reading

GENERAL = "[global]\nindex-url = https://general/simple\ncert=/etc/ca.pem\ntarget=/evil\n"
OWN = "[global]\nextra-index-url = file:///srv/py/simple\n   file:///srv/more/simple\n"
OWN += "[install]\nindex-url=https://own/simple\nuser = true\n"


def test_later_files_win_and_the_environment_over_all() -> None:
    made = indexes.pip([GENERAL, OWN], {"PIP_CERT": "/mine.pem", "PIP_TARGET": "/x", "PIP_FIND_LINKS": ""})
    assert made == {
        "PIP_INDEX_URL": "https://own/simple",
        "PIP_CERT": "/mine.pem",
        "PIP_EXTRA_INDEX_URL": "file:///srv/py/simple file:///srv/more/simple",
    }


@pytest.mark.parametrize("text", ["", "no section", "[global\n", "[global]\nindex-url\n", "\0"])
def test_a_file_that_is_none_is_passed_over(text: str) -> None:
    assert indexes.pip([text], {}) == {}


def test_npm_takes_registries_and_their_tokens_alone() -> None:
    text = "registry=https://r/\n@team:registry = https://t/\n//t/:_authToken=${TOKEN}\nprefix=/evil\nignore-scripts=false\nscript-shell=/bin/x\n"
    made = indexes.npm(
        [text], {"TOKEN": "s3cret", "npm_config_registry": "https://mine/", "npm_config_git": "/x"}
    )
    assert made.splitlines() == [
        "registry=https://mine/",
        "@team:registry=https://t/",
        "//t/:_authToken=s3cret",
    ]


def test_paths_of_the_host_are_those_that_are_named_and_their_neighbours() -> None:
    values = [
        "file:///srv/py/simple file:///srv/py/other",
        "https://x/simple /srv/wheels /etc/ssl/certs/ca.crt",
    ]
    assert indexes.local_paths(values) == ["/srv/py", "/srv/wheels"]
    assert indexes.local_paths(["file:///simple", "file:///home/x", "/", "file:///"]) == [
        "/home/x",
        "/simple",
    ]


def test_only_settings_of_an_index_come_over_the_wire() -> None:
    told = {
        "env": {"PIP_INDEX_URL": "https://x"},
        "npmrc": "registry=https://r/\nprefix=/x\n",
        "paths": {"/a": "/b"},
    }
    assert indexes.parse(told).npmrc == "registry=https://r/\n"
    assert indexes.parse(indexes.parse(told).to_dict()) == indexes.parse(told)
    for wrong in (
        {"env": {"LD_PRELOAD": "x"}},
        {"env": {"PIP_TARGET": "x"}},
        {"env": {"PIP_INDEX_URL": 1}},
        {"env": {"PIP_INDEX_URL": "a\0b"}},
        {"paths": {"a": "/b"}},
        {"paths": {"/a": "/../b"}},
        {"paths": ["/a"]},
        {"more": 1},
        {"npmrc": 1},
    ):
        with pytest.raises(errors.BadRequest):
            indexes.parse(wrong)


def test_they_are_read_where_pip_and_npm_read_them(tmp_path: Path) -> None:
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    (tmp_path / ".config" / "pip" / "pip.conf").write_text(f"[global]\nfind-links = {tmp_path}\n")
    (tmp_path / "named.conf").write_text("[global]\nindex-url = https://named/simple\n")
    (tmp_path / ".npmrc").write_text("registry=https://own/\n")
    env = {
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": str(tmp_path / "named.conf"),
        "HTTPS_PROXY": "http://p:1",
        "KEY": "x",
    }
    made = reading.read(env)
    assert made.env["PIP_FIND_LINKS"] == str(tmp_path) and made.env["PIP_INDEX_URL"] == "https://named/simple"
    assert made.env["HTTPS_PROXY"] == "http://p:1" and "KEY" not in made.env
    assert "registry=https://own/" in made.npmrc
    assert made.paths[str(tmp_path)] == os.path.realpath(tmp_path)
    assert "PIP_INDEX_URL" not in reading.read({"HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}).env
