"""The pure parts of the worker: errors without secrets, money without floats."""

import base64
import urllib.parse
from typing import Any

import pytest

from agentk.llm import asking, worker_calls, worker_reply

SECRET = 'sk-"very/secret"+key'
MODELS = [
    {
        "litellm_params": {
            "model": "openai/gpt-4o",
            "api_key": SECRET,
            "api_base": "https://in.example:8443/v1/",
        }
    }
]


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        urllib.parse.quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        SECRET.replace('"', '\\"'),
        "https://in.example:8443/v1",
        "in.example:8443",
        "in.example",
    ],
)
def test_no_spelling_of_a_secret_or_an_address_is_left(spelling: str) -> None:
    assert worker_calls.scrub(f"<{spelling}>", MODELS).count("[hidden]") == 1
    assert spelling not in worker_calls.scrub(f"<{spelling}>", MODELS)


def test_headers_of_a_route_are_secrets_and_its_model_is_none() -> None:
    models = [{"litellm_params": {"model": "openai/gpt-4o", "extra_headers": {"x-org": "hush-hush"}}}]
    assert worker_calls.scrub("gpt-4o said hush-hush", models) == "gpt-4o said [hidden]"


@pytest.mark.parametrize("text", ["x", "*** ", "Error:", "b'", '{"', "litellm.Error: ", SECRET])
def test_an_endless_message_is_cut(text: str) -> None:
    told = worker_calls.refused(Shown(text * 100_000), MODELS)
    assert len(told["message"]) <= worker_calls.MESSAGE_CHARS_MAX
    assert SECRET[:9] not in told["message"]


@pytest.mark.parametrize(
    ("dollars", "micro"),
    [
        (0.0, 0),
        (1e-9, 1),
        (1e-6, 1),
        (0.1 + 0.2, 300_000),
        (2.7e-6, 3),
        (-1.0, 0),
        (float("nan"), 0),
        (float("inf"), 0),
    ],
)
def test_money_is_rounded_up(dollars: float, micro: int) -> None:
    assert worker_calls.micro_usd(dollars) == micro


class Shown(Exception):
    """As LiteLLM's exceptions are read."""

    def __init__(self, message: str, status: int = 400, body: Any = None, headers: Any = None) -> None:
        super().__init__(message)
        self.message, self.status_code, self.body = message, status, body
        self.litellm_response_headers = headers


@pytest.mark.parametrize(
    ("error", "message", "kind"),
    [
        (Shown('litellm.BadRequestError: XException - {"error":{"message":"no","type":"t"}}'), "no", "t"),
        (Shown('litellm.BadRequestError: XException - b\'{\\n "error": {"message": "no"}}\''), "no", None),
        (Shown('litellm.NotFoundError: OllamaError: {"error":"no model"}'), "no model", None),
        (Shown('x {"base_resp":{"status_code":1004,"status_msg":"login fail"}}'), "login fail", None),
        (Shown("litellm.APIError: APIError: YException - plain words"), "plain words", None),
        (Shown("shadow", body={"message": "body wins", "type": "b"}), "body wins", "b"),
    ],
)
def test_the_providers_own_words_are_found(error: Shown, message: str, kind: str | None) -> None:
    told = worker_calls.refused(error, MODELS)
    assert (told["message"], told.get("type"), told["status"]) == (message, kind, 400)


@pytest.mark.parametrize(("value", "seconds"), [("7", 7), ("0.2", 1), ("soon", None), ("-4", 0)])
def test_the_time_to_wait_is_kept(value: str, seconds: int | None) -> None:
    told = worker_calls.refused(Shown("x", 429, headers={"retry-after": value}), MODELS)
    assert told.get("retry_after") == seconds


def test_a_mistake_of_a_program_is_not_to_be_tried_again() -> None:
    try:
        try:
            raise AttributeError("no such thing")
        except AttributeError as mistake:
            raise Shown("litellm.APIConnectionError: no such thing", 500) from mistake
    except Shown as error:
        told = worker_calls.refused(error, MODELS)
    refused = worker_reply.refusal(told)
    assert isinstance(refused, asking.Refused)
    assert (refused.retryable, refused.type) == (False, "translation")


def test_labels_of_stored_answers_are_left_out_and_the_rest_is_refused() -> None:
    body = {"model": "x", "messages": [], "metadata": {"a": "b"}, "stream": True, "user": None}
    assert worker_calls.arguments("openai.chat", body) == {"messages": []}
    with pytest.raises(worker_calls.Unusable, match="aws_secret"):
        worker_calls.arguments("openai.chat", {"messages": [], "aws_secret": 1})
    anthropic = {"messages": [], "max_tokens": 1, "metadata": {"user_id": "u", "api_key": "k"}}
    assert worker_calls.arguments("anthropic.messages", anthropic)["metadata"] == {"user_id": "u"}


def test_a_tool_that_litellm_would_run_is_refused() -> None:
    tool = {"type": "advisor_20260301", "name": "advisor", "model": "claude-opus"}
    with pytest.raises(worker_calls.Unusable, match="advisor"):
        worker_calls.arguments("anthropic.messages", {"messages": [], "max_tokens": 1, "tools": [tool]})
