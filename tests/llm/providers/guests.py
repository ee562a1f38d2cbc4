"""The same conversation as guests of each dialect ask it, and what they read out of what comes back.

A user asks for the weather, the model has called a tool, its result is there, and the model may call again.
"""

import json
from typing import Any

from agentk.llm import asking
from providers.upstream import Answer

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "The weather in a city.", "parameters": PARAMETERS}
DIALECTS: tuple[asking.Dialect, ...] = ("openai.chat", "openai.responses", "anthropic.messages")
# Of providers that speak Anthropic's dialect, or OpenAI's newer one, too: those are tested beside each other.
BUT_MESSAGES: tuple[asking.Dialect, ...] = ("openai.chat", "openai.responses")
BUT_RESPONSES: tuple[asking.Dialect, ...] = ("openai.chat", "anthropic.messages")

CHAT = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Paris?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "18 C"},
    ],
    "tools": [{"type": "function", "function": TOOL}],
    "tool_choice": "auto",
    "max_tokens": 64,
    "temperature": 0.5,
}
RESPONSES = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": "Weather in Paris?"},
        {
            "type": "function_call",
            "call_id": "call_1",
            "name": "get_weather",
            "arguments": '{"city": "Paris"}',
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "18 C"},
    ],
    "tools": [{"type": "function", **TOOL}],
    "tool_choice": "auto",
    "max_output_tokens": 64,
    "temperature": 0.5,
}
MESSAGES = {
    "model": "m",
    "system": "Be brief.",
    "messages": [
        {"role": "user", "content": "Weather in Paris?"},
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Paris"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "18 C"}]},
    ],
    "tools": [
        {"name": TOOL["name"], "description": TOOL["description"], "input_schema": PARAMETERS},
    ],
    "tool_choice": {"type": "auto"},
    "max_tokens": 64,
    "temperature": 0.5,
}
_BODIES = {"openai.chat": CHAT, "openai.responses": RESPONSES, "anthropic.messages": MESSAGES}


def ask(dialect: asking.Dialect, stream: bool = False) -> asking.Ask:
    return asking.Ask(dialect, _BODIES[dialect], stream)


def said(dialect: asking.Dialect, answer: Answer) -> str:
    """The text of a whole answer."""
    document = answer.document
    if dialect == "openai.chat":
        return str(document["choices"][0]["message"]["content"])
    if dialect == "anthropic.messages":
        return "".join(block["text"] for block in document["content"] if block["type"] == "text")
    messages = [item for item in document["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in messages for part in item["content"])


def called(dialect: asking.Dialect, answer: Answer) -> tuple[str, Any]:
    """The one tool call of a stream, put together from its deltas, and its arguments."""
    name, arguments = "", ""
    for chunk in answer.chunks:
        if dialect == "openai.chat":
            for choice in chunk["choices"]:
                for call in choice["delta"].get("tool_calls", ()):
                    name += call["function"].get("name") or ""
                    arguments += call["function"].get("arguments") or ""
        elif dialect == "anthropic.messages":
            if chunk["type"] == "content_block_start" and chunk["content_block"]["type"] == "tool_use":
                name += chunk["content_block"]["name"]
            elif chunk["type"] == "content_block_delta" and chunk["delta"]["type"] == "input_json_delta":
                arguments += chunk["delta"]["partial_json"]
        elif chunk["type"] == "response.output_item.done" and chunk["item"]["type"] == "function_call":
            name += chunk["item"]["name"]
        elif chunk["type"] == "response.function_call_arguments.delta":
            arguments += chunk["delta"]
    return name, json.loads(arguments)


def ended(dialect: asking.Dialect, answer: Answer) -> bool:
    """Whether a stream has the end that its dialect demands."""
    if dialect == "openai.chat":
        reasons = [
            choice["finish_reason"]
            for c in answer.chunks
            for choice in c["choices"]
            if "finish_reason" in choice
        ]
        return reasons == ["tool_calls"] and answer.events[-1].data == b"[DONE]"
    if dialect == "anthropic.messages":
        return (
            answer.chunks[-2]["delta"]["stop_reason"] == "tool_use"
            and answer.events[-1].name == b"message_stop"
        )
    return answer.events[-1].name == b"response.completed"
