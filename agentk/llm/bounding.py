"""What one request can use at most, whichever deployment of its route answers, and what bound its answer needs.

Pure. The bound is never too small: a budget that admitted a call by it is not overrun by that call.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agentk.api import errors
from agentk.llm import asking, prices, routes, tokens

# Of an answer that nothing else bounds, under a budget: servers refuse a bound that is beyond their context.
OUTPUT_TOKENS = 4_096
# A bound that is written into a request makes it longer by this much at most.
_LIMIT_TOKENS = 32


@dataclass(frozen=True)
class Way:
    """One deployment that may answer."""

    deployment: routes.Deployment
    read: int  # most tokens it reads of this request
    rate: prices.Rate | None


@dataclass(frozen=True)
class Reach:
    """Every deployment that one request may reach, fallbacks included."""

    ask: asking.Ask
    ways: Sequence[Way]
    default: int  # the route's own bound of one answer; 0: none

    def limit(self, tokens_left: int | None, micro_usd_left: int | None) -> int | None:
        """Most tokens to answer with, over all choices: the least of the route's default, what the models can write
        and what is left. None when the request says it itself, or nothing says it."""
        ask, choices = self.ask, _choices(self.ask)
        if not tokens.LIMIT_FIELDS[ask.dialect] or tokens.most_output(ask.dialect, ask.body) is not None:
            return None
        if not self.default and tokens_left is None and micro_usd_left is None:
            return None
        known = [self.default] if self.default else []
        known += [way.rate.most_output for way in self.ways if way.rate and way.rate.most_output]
        bounds = [min(known, default=OUTPUT_TOKENS) * choices]
        for way in self.ways:
            read = way.read + _LIMIT_TOKENS
            if tokens_left is not None:
                bounds.append(tokens_left - read)
            if (
                micro_usd_left is not None
                and way.rate
                and (room := way.rate.room(read, micro_usd_left)) is not None
            ):
                bounds.append(room)
        return max(1, min(bounds))

    def bound(self, written: int | None = None) -> asking.Bound:
        """With an answer of at most `written` tokens, when that was not in the request. Raises BadRequest when it
        cannot be said."""
        most_tokens, most_cost = 0, 0
        unpriced = self.ask.body.get("service_tier") == "priority"  # dearer than any price that is known here
        asked = tokens.most_output(self.ask.dialect, self.ask.body)
        for way in self.ways:
            read = way.read + (_LIMIT_TOKENS if written is not None else 0)
            most = written if written is not None else asked
            if most is None:
                most = (way.rate.most_output if way.rate else 0) * _choices(self.ask)
                if not most:
                    raise _unbounded(self.ask, way.deployment)
            most_tokens = max(most_tokens, read + most)
            if way.rate is None:
                unpriced = True
            else:
                most_cost = max(most_cost, way.rate.bound(read, most))
        return asking.Bound(most_tokens, None if unpriced else most_cost)


class Unbounded(errors.BadRequest):
    """What a request may use cannot be said."""


def _choices(ask: asking.Ask) -> int:
    told = ask.body.get("n")
    return told if ask.dialect == "openai.chat" and isinstance(told, int) and told > 0 else 1


def _unbounded(ask: asking.Ask, deployment: routes.Deployment) -> Unbounded:
    return Unbounded(
        f'what "{deployment.group}" may answer cannot be bounded',
        field=tokens.LIMIT_FIELDS[ask.dialect][0],
        hint="send a limit, or give the ModelRoute spec.defaults.maxTokens",
    )
