"""human.ask: a question to a person. The gate has it answered before anything is done; here it is told."""

import json

from agentk.api import errors
from agentk.broker import policy
from agentk.broker.methods import Context, Done, Method, Params, parser, recording
from agentk.broker.words import Guest

NAME = "human.ask"


def methods() -> dict[str, Method]:
    return {NAME: Method(NAME, recording(NAME), parser(NAME), _told, _about, asks=True)}


def _about(guest: Guest, params: Params) -> policy.Facts:
    """Raises BadRequest for a default that could not be answered."""
    choices, default = params.get("choices"), params.get("default")
    if choices and default is not None and default not in choices:
        raise errors.BadRequest(
            f"the default is none of the choices: {json.dumps(choices)[:200]}", field="params.default"
        )
    return policy.NOTHING


async def _told(context: Context, params: Params) -> Done:
    return Done({"answer": context.approved.answer, "by": context.approved.by})
