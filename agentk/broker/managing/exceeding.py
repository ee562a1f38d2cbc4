"""What a model would have to read is more than its context may have: refused, in words that clients know."""

from agentk.api import errors
from agentk.memory.window import TooSmall


class ContextExceeded(errors.BadRequest):
    """OpenAI's clients are told `context_length_exceeded`, as by their own provider."""


def refusal(small: TooSmall, budget: int) -> ContextExceeded:
    return ContextExceeded(
        f"what must be shown to the model has about {small.needed} tokens, and spec.memory.contextTokens is {budget}",
        field="messages",
        hint="raise spec.memory.contextTokens, or say less in system text, tools and the newest message",
    )
