"""What an agent may send to /v1/responses: every field of the published request that is let through, with its type.

Tools and items that providers run by themselves are listed, because a Policy may allow them. Left out on purpose:
`reasoning.mode: pro`, a dearer tier.
"""

from agentk.broker.dialects.fields import (
    Either,
    Fields,
    Items,
    Labels,
    Shape,
    Tagged,
    Whole,
    by_type,
    named,
    one_of,
    tag,
)
from agentk.broker.dialects.openai_fields import (
    CACHE_POINT,
    EFFORT,
    FLAG,
    JSON,
    OBJECT,
    SHARED,
    TEXT,
    VERBOSITY,
    WORD,
)

_INPUT_PARTS = by_type(
    tag("input_text", "text", text=TEXT, prompt_cache_breakpoint=CACHE_POINT),
    tag("input_image", image_url=TEXT, file_id=TEXT, detail=WORD, prompt_cache_breakpoint=CACHE_POINT),
    tag(
        "input_file",
        file_data=TEXT,
        file_id=TEXT,
        file_url=TEXT,
        filename=TEXT,
        detail=WORD,
        prompt_cache_breakpoint=CACHE_POINT,
    ),
    tag("output_text", "text", text=TEXT, annotations=JSON, logprobs=JSON),
    tag("refusal", "refusal", refusal=TEXT),
)
_WORDS_OR_PARTS = Either((TEXT, Items(_INPUT_PARTS)))
_ITEM_MESSAGE = named(
    "role",
    "content",
    type=one_of("message"),
    role=one_of("user", "assistant", "system", "developer"),
    content=_WORDS_OR_PARTS,
    id=TEXT,
    status=WORD,
    phase=WORD,
)


_TYPES: dict[str, Shape] = {
    **dict.fromkeys(("id", "status", "call_id", "name", "namespace", "description", "server_label"), TEXT),
    **dict.fromkeys(("server_url", "server_description", "authorization", "connector_id", "tunnel_id"), TEXT),
    **dict.fromkeys(("container_id", "encrypted_content", "approval_request_id", "execution", "model"), TEXT),
    **dict.fromkeys(("strict", "defer_loading", "approve"), FLAG),
    **dict.fromkeys(("output_schema", "format", "operation"), OBJECT),
    "parameters": OBJECT,
    "headers": Labels(32, 256, 8192),
    "vector_store_ids": Items(TEXT, 64),
    "allowed_callers": Items(WORD, 16),
    "tools": Items(OBJECT, 1024),
}


def _typed(word: str, names: str) -> Fields:
    return tag(word, **{name: _TYPES.get(name, JSON) for name in names.split()})


_TOOL_NAMES = {
    "function": "name description parameters strict defer_loading allowed_callers output_schema",
    "custom": "name description format defer_loading allowed_callers",
    "namespace": "name description tools",
    "local_shell": "",
    "shell": "environment allowed_callers",
    "apply_patch": "allowed_callers",
    "file_search": "vector_store_ids filters max_num_results ranking_options",
    "computer": "",
    "computer_use_preview": "display_height display_width environment",
    "web_search": "filters search_context_size user_location",
    "web_search_2025_08_26": "filters search_context_size user_location",
    "web_search_preview": "search_content_types search_context_size user_location",
    "web_search_preview_2025_03_11": "search_content_types search_context_size user_location",
    "mcp": "server_label allowed_callers allowed_tools authorization connector_id defer_loading headers"
    " require_approval server_description server_url tunnel_id",
    "code_interpreter": "container allowed_callers",
    "programmatic_tool_calling": "",
    "image_generation": "action background input_fidelity input_image_mask model moderation output_compression"
    " output_format partial_images quality size",
    "tool_search": "description execution parameters",
}
_TOOL = by_type(*(_typed(word, names) for word, names in _TOOL_NAMES.items()))
_ITEM_NAMES = {
    "function_call": "arguments call_id name caller namespace",
    "function_call_output": "call_id output caller name namespace",
    "custom_tool_call": "call_id input name caller namespace",
    "custom_tool_call_output": "call_id output caller",
    "reasoning": "summary content encrypted_content",
    "compaction": "encrypted_content",
    "compaction_trigger": "",
    "local_shell_call": "action call_id",
    "local_shell_call_output": "output",
    "shell_call": "action call_id caller environment",
    "shell_call_output": "call_id output caller max_output_length",
    "apply_patch_call": "call_id operation caller",
    "apply_patch_call_output": "call_id caller output",
    "computer_call": "call_id pending_safety_checks action actions",
    "computer_call_output": "call_id output acknowledged_safety_checks",
    "file_search_call": "queries results",
    "web_search_call": "action",
    "code_interpreter_call": "code container_id outputs",
    "image_generation_call": "result",
    "mcp_list_tools": "server_label tools error",
    "mcp_approval_request": "arguments name server_label",
    "mcp_approval_response": "approval_request_id approve reason",
    "mcp_call": "arguments name server_label approval_request_id error output",
    "tool_search_call": "arguments call_id execution",
    "tool_search_output": "tools call_id execution",
    "additional_tools": "role tools",
    "program": "call_id code fingerprint",
    "program_output": "call_id result",
    "item_reference": "",
}
_INPUT_ITEM = Tagged(
    "type",
    {
        "message": _ITEM_MESSAGE,
        **{word: _typed(word, f"id status {names}") for word, names in _ITEM_NAMES.items()},
    },
    absent="message",
)
_CHOICE_NAMES = "name server_label mode tools"
RESPONSES = Fields(
    {
        **SHARED,
        "background": FLAG,
        "context_management": Items(named("type", type=WORD, compact_threshold=Whole()), 16),
        "conversation": Either((TEXT, named("id", id=TEXT))),
        "include": Items(WORD, 32),
        "input": Either((TEXT, Items(_INPUT_ITEM))),
        "instructions": TEXT,
        "max_output_tokens": Whole(1),
        "max_tool_calls": Whole(),
        "previous_response_id": TEXT,
        "prompt": named("id", id=TEXT, version=TEXT, variables=OBJECT),
        "reasoning": named(
            context=WORD, effort=EFFORT, generate_summary=WORD, mode=one_of("standard"), summary=WORD
        ),
        "stream_options": named(include_obfuscation=FLAG),
        "text": named(
            format=by_type(
                tag("text"),
                tag("json_object"),
                tag("json_schema", "name", name=TEXT, description=TEXT, schema=OBJECT, strict=FLAG),
            ),
            verbosity=VERBOSITY,
        ),
        "tool_choice": Either(
            (
                one_of("none", "auto", "required"),
                named("type", type=WORD, **dict.fromkeys(_CHOICE_NAMES.split(), JSON)),
            )
        ),
        "tools": Items(_TOOL, 1024),
        "truncation": one_of("auto", "disabled"),
    },
    frozenset({"model"}),
)
