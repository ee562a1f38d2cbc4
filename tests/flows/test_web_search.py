"""Searching the web: a provider's key stays in its Secret, and a Tool says which Secret it waits for."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib import parse

import pytest

from agentk.api import kinds, manifest
from agentk.data import files
from tests.flows import household, loopback
from tests.flows.household import Household, Object, Space
from tests.flows.test_examples import EXAMPLES
from tests.flows.test_tools import call, granted

pytestmark = household.needs
KEY = "tvly-a-key-that-nobody-sees"
FOUND = {"title": "Storks", "url": "https://example.com/storks", "content": "They winter in Africa."}


@contextmanager
def provider(header: str) -> Iterator[tuple[str, list[Any]]]:
    """What stands for one: it wants KEY in that header, and tells what it was asked, by query or by body."""

    class Handler(loopback.Answering):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.asked()
            asked = json.loads(body) if body else dict(parse.parse_qsl(query))
            self.server.seen.append((self.command, path, asked))
            known = not header or (self.headers.get(header) or "").removeprefix("Bearer ") == KEY
            told = {"results": [FOUND]} if known else {"detail": "wrong key"}
            self.answer(json.dumps(told).encode(), 200 if known else 401)

        do_POST = do_GET

    with loopback.serving(loopback.Server(Handler)) as server:
        yield server.url, server.seen


def moved(tool: Object, base: str) -> Object:
    """The same Tool, but for where its provider is."""
    made = copy.deepcopy(tool)
    http = made["spec"]["http"]
    http["url"] = base + parse.urlsplit(http["url"]).path
    http["privateAddresses"] = True
    made["metadata"] = {"name": tool["metadata"]["name"]}
    made["spec"].pop("everywhere", None)
    return made


def tools() -> dict[str, Object]:
    """Each with its provider's name."""
    paths = [files.folder("manifests") / "52-tool-web-search.yaml", EXAMPLES / "tools" / "web-search.yaml"]
    written = [one.obj for path in paths for one in manifest.parse(path.read_bytes(), path.name)]
    found = [one for one in written if one["kind"] == "Tool"]
    return {parse.urlsplit(one["spec"]["http"]["url"]).hostname or "": one for one in found}


def condition(space: Space, name: str) -> tuple[str, str]:
    found = (space.get(name, kinds.TOOL).get("status") or {}).get("conditions") or [{}]
    return str(found[0].get("status")), str(found[0].get("message"))


def test_it_waits_for_its_secret_and_works_once_that_is_there(space: Space) -> None:
    tool = tools()["api.tavily.com"]
    secret = household.manifest("Secret", "web-search", stringData={"key": KEY})
    asking = ("web-search", {"query": 'storks" }'})
    with provider("Authorization") as (base, heard):
        space.apply(moved(tool, base))
        household.until(
            "it says what it waits for", lambda: 'Secret "web-search"' in condition(space, "web-search")[1]
        )
        status, message = condition(space, "web-search")
        assert status == "False" and message.endswith("| agentk apply -f -")
        assert "apply -f -" in space.agentk("tool", "test", "web-search", code=1).err
        before = call(space, granted("web-search"), ("tool.list", {}), asking)
        assert before[0][0] == [] and "agentk apply" in before[0][1][0]["message"]
        assert before[1][0] == "ServiceUnavailable" and 'Secret "web-search"' in before[1][1] and not heard
        space.apply(secret)
        household.until("it can be used", lambda: condition(space, "web-search")[0] == "True")
        told = call(space, granted("web-search"), asking, name="b")
        assert told[0][0] is False and told[0][2]["results"] == [FOUND]
        assert heard == [("POST", "/search", {"query": 'storks" }', "max_results": 8})]
        assert KEY not in space.agentk("audit", "-o", "json", code=None).out
        space.apply(secret | {"stringData": {"key": "another-key-that-is-wrong"}})
        household.until(
            "it is refused", lambda: "HTTP 401" in call_by_hand(space, "web-search", "storks", code=None)
        )
        space.agentk("delete", "secret", "web-search")
        household.until("it waits again", lambda: condition(space, "web-search")[0] == "False")
        space.apply(secret)
        household.until("it can be used again", lambda: condition(space, "web-search")[0] == "True")


@pytest.mark.parametrize(
    ("host", "header", "secret", "heard"),
    [
        (
            "api.search.brave.com",
            "X-Subscription-Token",
            "brave",
            ("GET", "/res/v1/web/search", {"q": "a b", "count": "8", "result_filter": "web"}),
        ),
        ("127.0.0.1", "", "", ("GET", "/search", {"q": "a b", "format": "json"})),
    ],
    ids=("brave", "searxng"),
)
def test_another_provider_is_a_few_other_lines(
    space: Space, host: str, header: str, secret: str, heard: Any
) -> None:
    tool = tools()[host]
    with provider(header) as (base, asked):
        if secret:
            space.apply(household.manifest("Secret", secret, stringData={"key": KEY}))
        space.apply(moved(tool, base))
        assert FOUND["url"] in call_by_hand(space, tool["metadata"]["name"], "a b")
        assert asked == [heard]


def test_the_one_that_comes_with_agentk_says_so_too(home: Household) -> None:
    default = Space(home, "default")
    household.until("it waits", lambda: 'Secret "web-search"' in condition(default, "web-search")[1])


def call_by_hand(space: Space, name: str, query: str, code: int | None = 0) -> str:
    return space.agentk("tool", "call", name, "--args", json.dumps({"query": query}), code=code).out
