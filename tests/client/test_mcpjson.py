"""Files of MCP servers as they are found on people's disks, read into Tools."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from agentk.api import admit, errors
from agentk.client import mcpjson


def read(
    servers: Any, versions: Any = lambda index, name: "9.9.9", files: Any = lambda argument: ""
) -> mcpjson.Found:
    found = mcpjson.read(json.dumps({"mcpServers": servers}), versions, files)
    for one in found.tools:
        one["metadata"]["namespace"] = "default"
        admit.admit(one)  # each is a Tool that can be applied
    return found


def stdio(found: mcpjson.Found) -> Any:
    return found.tools[0]["spec"]["mcp"]["stdio"]


@pytest.mark.parametrize(
    ("command", "args", "package", "more"),
    [
        ("npx", ["-y", "@a/b@1.2.3", "x"], {"npm": "@a/b@1.2.3"}, {"args": ["x"]}),
        ("npx", ["-y", "@a/b@latest"], {"npm": "@a/b@9.9.9"}, {}),
        ("/usr/bin/npx", ["b"], {"npm": "b@9.9.9"}, {}),
        (
            "npx",
            ["-p", "@a/b@1.2.3", "run-b", "x"],
            {"npm": "@a/b@1.2.3"},
            {"command": "run-b", "args": ["x"]},
        ),
        ("uvx", ["mcp-server-git"], {"pypi": "mcp-server-git==9.9.9"}, {}),
        ("uvx", ["mcp_server_git@1.2", "--y"], {"pypi": "mcp-server-git==1.2"}, {"args": ["--y"]}),
        (
            "uvx",
            ["--python", "3.12", "--from", "a==1.0", "b", "c"],
            {"pypi": "a==1.0"},
            {"command": "b", "args": ["c"]},
        ),
        ("uv", ["tool", "run", "a==1.0"], {"pypi": "a==1.0"}, {}),
        ("pipx", ["run", "a==1.0"], {"pypi": "a==1.0"}, {}),
    ],
)
def test_runners_become_packages_in_one_version(
    command: str, args: list[str], package: Any, more: Any
) -> None:
    found = read({"s": {"command": command, "args": args}})
    assert not found.left_out
    assert stdio(found) == {"package": package, **more}


def test_one_that_is_disabled_is_left_out_and_is_no_failure() -> None:
    found = read({"s": {"command": "x", "disabled": True}})
    assert not found.tools and not found.left_out and found.notes == ["s: is disabled, and left out"]


def test_a_program_that_no_jail_shows_is_told_of() -> None:
    found = read({"s": {"command": "/home/me/bin/server"}, "t": {"command": "/usr/bin/server"}})
    (note,) = [one for one in found.notes if "is not in its jail" in one]
    assert note.startswith("s: /home/me/bin/server ") and "spec.jail.source" in note


def test_what_looks_like_a_secret_becomes_a_reference_and_is_never_in_the_tool() -> None:
    env = {
        "API_KEY": "hidden-1",
        "LOG": "1",
        "DB": "postgres://u:hidden-2@h/x",
        "X": "ghp_hidden3hidden3",
        "V": "${V}",
    }
    found = read({"My Server": {"command": "run", "env": env}})
    assert "hidden" not in json.dumps(found.tools) + json.dumps(found.notes)
    told = {one["name"]: one for one in stdio(found)["env"]}
    assert told["LOG"] == {"name": "LOG", "value": "1"}
    assert told["API_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "my-server", "key": "api-key"}
    assert set(told) == set(env) and all("valueFrom" in told[name] for name in env if name != "LOG")
    data = found.secrets[0]["data"]
    assert base64.b64decode(data["api-key"]) == b"hidden-1" and "v" not in data


def test_headers_keep_what_stands_before_the_secret() -> None:
    headers = {"Authorization": "Bearer hidden-token", "X-Team": "a"}
    found = read({"far": {"type": "http", "url": "https://h.example/mcp", "headers": headers}})
    reference = {"secretKeyRef": {"name": "far", "key": "authorization"}}
    assert found.tools[0]["spec"]["mcp"]["http"]["headers"] == [
        {"name": "Authorization", "prefix": "Bearer ", "valueFrom": reference},
        {"name": "X-Team", "value": "a"},
    ]


def test_a_script_of_this_machine_is_packed(tmp_path: Path) -> None:
    found = read(
        {"s": {"command": "node", "args": ["build/index.js", "x"]}}, files=lambda arg: f"/home/me/{arg}"
    )
    assert found.tools[0]["spec"]["jail"] == {"source": {"path": "/home/me/build"}}
    assert stdio(found) == {"command": "node", "args": ["/app/index.js", "x"]}


@pytest.mark.parametrize(
    ("server", "why"),
    [
        ({"type": "sse", "url": "http://x/sse"}, "older"),
        ({"command": "docker", "args": ["run", "x"]}, "jail.image"),
        ({"command": "npx", "args": ["-y"]}, "no package"),
        ({"command": "npx", "args": ["--evil", "x"]}, "--evil"),
        ({"command": "npx", "args": ["git+https://x/y"]}, "registry"),
        ({"command": "uvx", "args": ["git+https://x/y"]}, "no package"),
        ({"command": "x", "args": "--all in one"}, "args is no list"),
        ({"command": "x", "args": [["--deep"]]}, "one of args is no text"),
        ({"command": "x", "env": {"A": {}}}, "env.A is no text"),
        ({"url": ["http://x/"]}, "its url is no text"),
        ({}, "neither"),
        (3, "no object"),
    ],
)
def test_what_is_no_tool_is_left_out_with_the_reason(server: Any, why: str) -> None:
    found = read({"s": server, "t": {"command": "run"}})
    assert len(found.tools) == 1 and found.tools[0]["metadata"]["name"] == "t"
    assert why in found.left_out[0]


def test_values_are_written_as_programs_are_given_them() -> None:
    found = read({"s": {"command": "x", "args": ["-n", 5, True], "env": {"N": 5, "ON": True, "OFF": None}}})
    assert stdio(found)["args"] == ["-n", "5", "true"]
    assert stdio(found)["env"] == [{"name": "N", "value": "5"}, {"name": "ON", "value": "true"}]


def test_a_package_whose_newest_version_nobody_knows_is_left_out() -> None:
    found = read({"s": {"command": "npx", "args": ["b"]}}, versions=lambda index, name: "")
    assert found.left_out == ["s: name one version of b, such as b@1.2.3"]


def test_names_are_made_fit_and_stay_apart() -> None:
    found = read({"My Tool": {"command": "a"}, "my_tool": {"command": "b"}, "Ü": {"command": "c"}})
    assert [one["metadata"]["name"] for one in found.tools] == ["my-tool", "my-tool-2", "server"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"mcpServers": []}', "[" * 100_000])
def test_what_is_no_such_file_is_said(text: str) -> None:
    with pytest.raises(errors.Invalid):
        mcpjson.read(text, lambda index, name: "", lambda argument: "")
