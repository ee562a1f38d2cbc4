"""A ModelRoute is read in both spellings, holds no secret, and a model name chooses only among what is listed."""

from typing import Any

import pytest
from upstreams import item, route_of

from agentk.api import errors, problems
from agentk.llm import providers, routefields, routes


def read(*items: Any, **spec: Any) -> routes.Route:
    route, found = routefields.read(route_of(*items, **spec))
    assert route, found
    return route


def wrong(*items: Any, **spec: Any) -> dict[str, str]:
    route, found = routefields.read(route_of(*items, **spec))
    assert route is None
    return {problems.field_path(problem.path): problem.message for problem in found}


def test_both_spellings_mean_the_same() -> None:
    theirs = {
        "model_name": "gpt",
        "litellm_params": {"model": "azure/x", "api_base": "https://a", "api_version": "v", "rpm": 6},
    }
    ours = {
        "modelName": "gpt",
        "litellmParams": {"model": "azure/x", "apiBase": "https://a", "apiVersion": "v", "rpm": 6},
    }
    spec = {"model_list": [theirs]}
    route, found = routefields.read({"metadata": {"name": "r"}, "spec": spec})
    assert not found and route
    assert route.deployments == read(ours).deployments
    assert route.deployments[0].rpm == 6 and route.deployments[0].params["api_version"] == "v"


def test_a_credential_is_named_never_written() -> None:
    params = {
        "model": "bedrock/x",
        "aws_secret_access_key": {"secretKeyRef": {"name": "aws", "key": "s"}},
        "api_key_secret_ref": {"name": "keys", "key": "k"},
    }
    got = read({"model_name": "a", "litellm_params": params}).deployments[0]
    assert got.secrets == {
        "aws_secret_access_key": routes.SecretRef("aws", "s"),
        "api_key": routes.SecretRef("keys", "k"),
    }
    assert dict(got.params) == {"model": "bedrock/x"}


def test_a_key_from_the_environment_is_told_as_such() -> None:
    found = wrong({"model_name": "m", "litellm_params": {"model": "openai/x", "api_key": "os.environ/KEY"}})
    assert "os.environ/… is not read" in next(iter(found.values()))


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"apiKey": "sk-1"}, "apiKey"),
        ({"aws_secret_access_key": "x"}, "aws_secret_access_key"),
        ({"vertex_credentials": "{}"}, "vertex_credentials"),
        ({"apiBase": "os.environ/HOME"}, "apiBase"),
        ({"extra_body": {"a": ["os.environ/HOME"]}}, "extra_body.a[0]"),
        ({"extraHeaders": {"Authorization": "Bearer x"}}, "extraHeaders.Authorization"),
        ({"apiKeySecretRef": {"name": "x"}}, "apiKeySecretRef"),
        ({"apiBase": "a", "api_base": "b"}, "api_base"),
        ({"success_callback": ["x"]}, "success_callback"),
    ],
)
def test_what_must_not_stand_in_a_route_is_told_with_its_field(params: dict[str, Any], field: str) -> None:
    told = wrong({"modelName": "a", "litellmParams": {"model": "openai/x", **params}})
    assert list(told) == [f"spec.modelList[0].litellmParams.{field}"]


def test_every_problem_is_told_at_once() -> None:
    told = wrong(
        item("openai/gpt-4o"),
        {"modelName": "", "litellmParams": {}},
        fallbacks=[{"gpt": ["nobody"]}],
        strategy="best",
        retries=-1,
        timeouts={"total": "soon"},
        cooldown={"time": "0s"},
    )
    assert set(told) == {
        "spec.modelList[1].modelName",
        "spec.modelList[1].litellmParams",
        "spec.fallbacks[0].gpt[0]",
        "spec.strategy",
        "spec.retries",
        "spec.timeouts.total",
        "spec.cooldown.time",
    }


def test_an_empty_route_and_a_script_without_rules_are_told() -> None:
    assert list(wrong()) == ["spec"]
    assert list(wrong(item("scripted/x"))) == ["spec.scripted"]


def test_a_guest_cannot_choose_the_provider_through_a_star() -> None:
    assert "choose the provider" in next(iter(wrong(item("*", name="*")).values()))
    got = read(item("openai/*", name="*")).meant("groq/llama")[0]
    assert (got.provider, got.upstream_model) == ("openai", "groq/llama")


def test_names_mean_their_group_then_the_narrowest_pattern() -> None:
    route = read(
        item("openai/gpt-4o", name="gpt"),
        item("openai/*", name="*"),
        item("openai/small-*", name="mini-*"),
    )
    assert route.meant("gpt")[0].model == "openai/gpt-4o"
    assert route.meant("mini-2")[0].model == "openai/small-2"
    assert route.meant("other")[0].model == "openai/other"
    assert route.meant("")[0].group == "gpt" and route.names() == ["gpt"]


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(errors.NotFound) as told:
        read(item("openai/gpt-4o")).meant("claude")
    assert "it has gpt" in str(told.value)


def test_fallbacks_follow_their_group_and_none_comes_twice() -> None:
    items = [item("openai/a", name="a"), item("openai/b", name="b"), item("openai/c", name="c")]
    route = read(*items, fallbacks=[{"a": ["b", "a", "b"]}, {"*": ["c"]}])
    assert [group[0].group for group in route.chain("a")] == ["a", "b"]
    assert [group[0].group for group in route.chain("b")] == ["b", "c"]


@pytest.mark.parametrize(
    ("params", "dialect", "way"),
    [
        ({"model": "openai/gpt-4o"}, "openai.chat", "passthrough"),
        ({"model": "gpt-4o"}, "openai.responses", "passthrough"),
        ({"model": "openai/gpt-4o"}, "anthropic.messages", "worker"),
        ({"model": "anthropic/claude-x"}, "anthropic.messages", "passthrough"),
        ({"model": "anthropic/claude-x"}, "openai.chat", "worker"),
        ({"model": "gemini/gemini-2.5-pro"}, "openai.chat", "worker"),
        ({"model": "groq/x"}, "openai.chat", "passthrough"),
        ({"model": "groq/x"}, "openai.embeddings", "worker"),
        ({"model": "hosted_vllm/x"}, "openai.chat", "worker"),
        ({"model": "hosted_vllm/x", "api_base": "http://h/v1"}, "openai.chat", "passthrough"),
        ({"model": "openai/gpt-4o", "temperature": 0}, "openai.chat", "worker"),
    ],
)
def test_a_call_is_passed_through_only_where_the_dialect_is_the_upstreams(
    params: dict[str, Any], dialect: Any, way: str
) -> None:
    assert read({"modelName": "m", "litellmParams": params}).deployments[0].way(dialect) == way


@pytest.mark.parametrize(
    ("name", "base", "dialect", "url"),
    [
        ("openai", "", "openai.chat", "https://api.openai.com/v1/chat/completions"),
        ("openai", "http://h/v1/chat/completions", "openai.embeddings", "http://h/v1/embeddings"),
        ("anthropic", "", "anthropic.messages", "https://api.anthropic.com/v1/messages"),
        ("anthropic", "https://h/anthropic/v1/", "anthropic.count_tokens", "https://h/anthropic/v1/messages/count_tokens"),
        ("groq", "", "openai.chat", "https://api.groq.com/openai/v1/chat/completions"),
        ("deepseek", "", "openai.chat", "https://api.deepseek.com/chat/completions"),
        ("moonshot", "", "openai.chat", "https://api.moonshot.ai/v1/chat/completions"),
        ("minimax", "", "openai.chat", "https://api.minimax.io/v1/chat/completions"),
        ("dashscope", "", "openai.chat", "https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions"),
        ("ollama", "", "openai.chat", "http://localhost:11434/v1/chat/completions"),
        ("ollama", "http://h:1/v1", "openai.embeddings", "http://h:1/v1/embeddings"),
    ],
)  # fmt: skip
def test_addresses(name: str, base: str, dialect: Any, url: str) -> None:
    assert providers.url(name, base, dialect) == url
