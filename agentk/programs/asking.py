"""Asks the model, and goes on asking as long as that may help."""

from __future__ import annotations

import time
from typing import Any, Dict, List

from agentk.programs import ends, progress
from agentk.sdk import client, errors, results

# Between tries. The route has its own, so what comes here has lasted for a while.
_BUSY_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_BROKEN_TRIES = 3
_UNKNOWN_TRIES = 3
_LONGEST_SECONDS = 120.0

_BUSY = (errors.TooManyRequests, errors.Unavailable)
_BROKEN = (errors.UpstreamError, errors.TookTooLong)
_WRONG = (errors.Invalid, errors.TooLarge, errors.NotFound)


def think(
    agent: client.Agent,
    say: progress.Progress,
    *,
    messages: List[Dict[str, Any]],
    system: str,
    tools: List[Dict[str, Any]],
) -> results.Thought:
    """What the model says. Raises Ended when it will not."""
    tried = unknown = 0
    while True:
        try:
            return agent.think(messages=messages, system=system, tools=tools or None)
        except errors.OutcomeUnknown:  # nothing came of it but a bill
            unknown += 1
            if unknown > _UNKNOWN_TRIES:
                raise ends.Ended("nobody knows what the model answered", "LLMError") from None
            say.line("nobody knows what the model answered: asks again")
        except _BUSY + _BROKEN as error:
            most = _BROKEN_TRIES if isinstance(error, _BROKEN) else len(_BUSY_SECONDS)
            if tried == most:
                raise ends.Ended(error.message, "LLMError") from None
            seconds = min(float(error.retry_after_seconds or _BUSY_SECONDS[tried]), _LONGEST_SECONDS)
            tried += 1
            say.line(f"the model does not answer: {error.message}; asks again in {seconds:g} s")
            time.sleep(seconds)
        except errors.BudgetExceeded as error:
            raise ends.Ended(error.message, "BudgetExceeded") from None
        except errors.ApprovalDenied as error:
            raise ends.Ended(error.message, "ApprovalDenied") from None
        except _WRONG as error:
            raise ends.Ended(error.message, "LLMError") from None
        except errors.Disconnected:
            raise
        except errors.CallError as error:
            raise ends.Ended(f"it may not ask its model: {error.message}") from None


def task(agent: client.Agent, say: progress.Progress) -> Any:
    """What it is to do; None when nobody said."""
    try:
        return agent.task()
    except errors.Denied as error:
        say.line(f"it may not ask for its task: {error.message}")
        return None
