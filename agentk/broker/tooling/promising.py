"""What a tool answered, held against the schema of its answers, which is its author's word and pinned with its name.

An answer that is not as promised is an error, and nothing of it is passed on: who asked reads it by that schema.
"""

import asyncio
import functools

from agentk.api import inputs
from agentk.tools import offers
from agentk.tools.offers import Offered, Outcome

_TOLD_CHARS = 2000


async def kept(offered: Offered, outcome: Outcome) -> Outcome:
    """The outcome, or the error that it is. What a tool says of a failure of its own is bound by no schema."""
    schema = offered.output_schema
    if schema is None or outcome.is_error or outcome.is_json:
        return outcome
    if outcome.structured is None:
        return _broken("it promised structuredContent by its outputSchema, and gave none")
    work = functools.partial(inputs.misfit, schema, outcome.structured)
    quick = inputs.is_quick(schema, outcome.structured)
    why = work() if quick else await asyncio.to_thread(work)
    return _broken(why) if why else outcome


def _broken(why: str) -> Outcome:
    told = f"the tool broke its word, and its answer is not passed on: {why}"
    text = offers.cleaned(f"{told}. It ran, and may have done what it does.")[:_TOLD_CHARS]
    return Outcome(({"type": "text", "text": text},), None, is_error=True)
