"""What a call is answered whose idempotency key was used before: what the first one was, and never a second effect."""

import json
from collections.abc import Mapping
from typing import Any

from agentk.api import errors
from agentk.store import journal_words as entries

SENT = "sent"  # in the record of a call that was cut short: what of its answer the guest had been sent


class NeverBegun(errors.Cancelled):
    """Who made the call hung up while a person was still to be asked: whoever repeats it may go on in its place."""


def is_unknown(known: entries.Known) -> bool:
    """Whether it may have happened, and nobody knows."""
    return known.outcome is not None and known.outcome.status == "unknown"


async def told(known: entries.Known) -> Any:
    """The answer a call had. Raises what it raised."""
    outcome = known.outcome
    if outcome is not None and not known.answer_erased and outcome.status != "ok":
        answer = json.loads(outcome.body or b"null")
        if isinstance(answer, Mapping) and SENT in answer:
            raise errors.OutcomeUnknown(
                "the answer was cut short, and is not asked for again",
                hint="make the call again with a new key",
                causes=[errors.Cause("sent", str(answer[SENT]))],
            )
    if outcome is None or is_unknown(known):
        raise errors.OutcomeUnknown(
            "the call was under way when agentk ended: it may have happened, and is not done again",
            hint="look whether it did; then make the call again with a new key",
        )
    if known.answer_erased:
        raise errors.Expired("the call ended, and its answer is no longer kept")
    answer = json.loads(outcome.body)
    if outcome.status == "ok":
        return answer
    if outcome.status == "cancelled" or not isinstance(answer, Mapping):
        raise errors.Cancelled("the call was taken back")
    raise errors.from_status(answer)


def another() -> errors.Conflict:
    return errors.Conflict(
        "this idempotency key was used for another call", hint="make a new key for every call"
    )
