"""What a call costs: LiteLLM's price list, read as a file without importing LiteLLM, and a route's own prices.

Money is whole millionths of a dollar, rounded up; no float takes part. What has no known price has the price None,
never 0: a cost budget cannot admit it.
"""

import functools
import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from agentk.llm import asking, providers, routes

_FILE = "model_prices_and_context_window_backup.json"
_ABOVE = re.compile(r"_above_(\d+)k_tokens$")
_MICRO = Decimal(1_000_000)
_ZERO = Decimal(0)


@dataclass(frozen=True)
class Rate:
    """Dollars a token. `steps`: (above so many input tokens, input, output, cached), ascending."""

    input: Decimal
    output: Decimal
    cached: Decimal
    cache_write: Decimal
    steps: tuple[tuple[int, Decimal, Decimal, Decimal], ...] = ()
    most_output: int = 0  # what the list says the model can write; 0: it does not say
    per_call: Decimal = _ZERO

    def cost(self, usage: asking.Usage) -> int:
        """Micro-dollars of what was used."""
        read, written, cached = self.input, self.output, self.cached
        for above, more_read, more_written, more_cached in self.steps:
            if usage.input_tokens > above:
                read, written, cached = more_read, more_written, more_cached
        plain = max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens)
        dollars = plain * read + usage.cached_tokens * cached + usage.output_tokens * written
        dollars += usage.cache_write_tokens * self.cache_write + self.per_call
        return micro(dollars)

    def bound(self, input_tokens: int, output_tokens: int) -> int:
        """The most such a call can cost, whatever its tier and whatever is cached."""
        read, written = self._dearest()
        return micro(input_tokens * read + output_tokens * written + self.per_call)

    def room(self, input_tokens: int, micro_usd: int) -> int | None:
        """Most tokens that can be written for so much money, below 0 when reading costs more; None: any number."""
        read, written = self._dearest()
        left = Decimal(micro_usd) / _MICRO - input_tokens * read - self.per_call
        if left < 0:
            return -1
        return int(left / written) if written else None

    def _dearest(self) -> tuple[Decimal, Decimal]:
        read = max(self.input, self.cached, self.cache_write, *(step[1] for step in self.steps))
        return read, max(self.output, *(step[2] for step in self.steps), _ZERO)


def micro(dollars: Decimal) -> int:
    return int((dollars * _MICRO).to_integral_value(rounding=ROUND_CEILING))


def rate(deployment: routes.Deployment) -> Rate | None:
    """The price of a deployment: the route's own, else the list's, else None."""
    listed = _listed(deployment)
    if deployment.prices:
        return _rate({**listed, **_without_steps(deployment.prices)})
    if listed:
        return _rate(listed)
    known = providers.PROVIDERS.get(deployment.provider)
    if deployment.provider == "scripted" or (known and known.free):
        return Rate(_ZERO, _ZERO, _ZERO, _ZERO)
    return None


def load() -> None:
    """Read the list now, from a thread: 3 MB that would hold up a loop for a tenth of a second."""
    _list()


@functools.cache
def _list() -> Mapping[str, Mapping[str, Any]]:
    # Found without being imported: the import takes seconds and 170 MB.
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        return {}
    try:
        text = (Path(spec.origin).parent / _FILE).read_text(encoding="utf-8")
        loaded = json.loads(text, parse_float=Decimal)
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _listed(deployment: routes.Deployment) -> Mapping[str, Any]:
    """The list's entry: by the whole name, by provider and name, or by the bare name when it is of that provider."""
    listed, bare = _list(), deployment.upstream_model
    for name in (deployment.model, f"{deployment.provider}/{bare}"):
        if name in listed:
            return listed[name]
    entry = listed.get(bare, {})
    return entry if entry.get("litellm_provider") == deployment.provider else {}


def _without_steps(own: Mapping[str, Any]) -> Mapping[str, Any]:
    """Own prices hold for every size: the list's higher steps and dearer cache are of another price."""
    told: dict[str, Any] = dict(own)
    told.setdefault("output_cost_per_token", 0)
    told.setdefault("input_cost_per_token", 0)
    told.setdefault("cache_read_input_token_cost", told["input_cost_per_token"])
    told.setdefault("cache_creation_input_token_cost", told["input_cost_per_token"])
    return {**told, "no_steps": True}


def _rate(told: Mapping[str, Any]) -> Rate | None:
    read = _dollars(told.get("input_cost_per_token"))
    if read is None:  # priced by the second, the picture or the query: nothing a token bound can say
        return None
    written = _dollars(told.get("output_cost_per_token")) or _ZERO
    cached = _dollars(told.get("cache_read_input_token_cost"))
    made = _dollars(told.get("cache_creation_input_token_cost"))
    most = told.get("max_output_tokens")
    return Rate(
        read,
        written,
        read if cached is None else cached,
        read if made is None else made,
        () if told.get("no_steps") else tuple(sorted(_steps(told, read, written))),
        most if isinstance(most, int) else 0,
        _dollars(told.get("input_cost_per_request")) or _ZERO,
    )


def _steps(
    told: Mapping[str, Any], read: Decimal, written: Decimal
) -> list[tuple[int, Decimal, Decimal, Decimal]]:
    heights = {int(found[1]) for key in told if (found := _ABOVE.search(key))}
    steps = []
    for height in heights:
        above = f"_above_{height}k_tokens"
        more = _dollars(told.get("input_cost_per_token" + above))
        more = read if more is None else more
        out = _dollars(told.get("output_cost_per_token" + above))
        cached = _dollars(told.get("cache_read_input_token_cost" + above))
        steps.append(
            (height * 1000, more, written if out is None else out, more if cached is None else cached)
        )
    return steps


def _dollars(value: Any) -> Decimal | None:
    """A price as written: a number or a decimal text. Never negative, never infinite; None when it is neither."""
    if value is None or isinstance(value, bool):
        return None
    try:
        dollars = Decimal(str(value))
    except InvalidOperation:
        return None
    return dollars if dollars.is_finite() and dollars >= 0 else None
