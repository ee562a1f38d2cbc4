"""The calls a guest may make, as `schemas/syscalls.json` describes them, and how its parameters are read.

Strict: an unknown parameter is an error and nothing is converted. What a call does is its handler's business; the
gate asks a `Method` only for what it needs to decide before the handler runs.
"""

import functools
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from agentk.api import errors, kinds
from agentk.broker import methods_fitting, policy, previews
from agentk.broker.words import Amount, Call, Guest
from agentk.data import files
from agentk.store import writer

Params = dict[str, Any]
Recording = Literal["none", "local", "effect"]
SCHEMA = "syscalls.json"
ONE_CALL = Amount(calls=1)
_HELD_MAX = 100_000  # of what the schema gives no number for: what a line may hold
_UNKNOWN_MAX = 100  # where only known fields may be: enough to tell of those that are not
_TOLD_MAX = 5  # problems of one call: the rest is likely to follow from them


@dataclass(frozen=True)
class Done:
    """What a handler answers."""

    result: Any
    used: Amount = ONE_CALL


@dataclass(frozen=True)
class Approved:
    """What lets a call through. Without a name: nobody needed to be asked in the end."""

    name: str = ""
    by: str = ""
    answer: str = ""  # to a question


class Context(Protocol):
    """What a handler may know of its call besides the parameters."""

    call: Call
    effect: str  # id in the journal; "" for what is not recorded
    bound: Amount  # what is reserved for it
    used: Amount  # kept up to date by a handler whose call may be cut short: it is what will be settled
    deadline: float  # by the loop's clock; inf without one
    sent: (
        bytearray  # what of the answer is told already: whoever asks again after it was cut short is shown it
    )
    meta: dict[str, str | int]  # goes on record beside the answer
    approved: Approved  # by whom, when a person was asked
    facts: policy.Facts  # that it was judged by

    async def emit(self, data: Any) -> None:
        """One item of the call's stream; waits while the guest does not read."""

    async def seen(self, value: Any) -> Any:
        """What somebody answered, before it is kept anywhere: as guardrails leave it. Raises Denied."""

    async def background(self, answer: Any) -> Any:
        """An answer that is kept until somebody asks for it, as it may be kept. Raises Denied."""

    async def transact(self, work: Callable[[writer.Tx], Any]) -> Any:
        """All that a local call writes, and the record of it, in one transaction; at most once a call."""


Handle = Callable[[Context, Params], Awaitable[Done]]
FactsOf = Callable[[Guest, Params], policy.Facts]
BoundOf = Callable[
    [Guest, Params], Awaitable[Amount]
]  # may write a limit into the parameters, to make it true
PreviewOf = Callable[[Guest, Params], Awaitable[previews.Preview]]  # raises when it cannot be known
Arrange = Callable[[Context, Params], Awaitable[Params]]


def no_facts(guest: Guest, params: Params) -> policy.Facts:
    return policy.NOTHING


def never(guest: Guest, params: Params) -> bool:
    return False


async def one_call(guest: Guest, params: Params) -> Amount:
    return ONE_CALL


@dataclass(frozen=True)
class Method:
    """One call: what the schema says of it, and who does it."""

    name: str
    recording: Recording
    parse: Callable[[Mapping[str, Any]], Params]  # with defaults. Raises BadRequest naming every field
    handle: Handle
    facts: FactsOf = no_facts  # what a Policy's rules may ask about this call
    bound: BoundOf = one_call  # the most it may use
    turn: Callable[[Guest, Params], str] | None = None  # the route whose turn it waits for
    seconds: Callable[[Params], float] | None = None  # until its deadline, the wait for its turn included
    # Whether a call whose outcome nobody knows may be done again, when it comes again with its key.
    repeatable: Callable[[Guest, Params], bool] = never
    preview: PreviewOf | None = None  # what it would do to files, for a person who is asked
    arrange: Arrange | None = None  # what is done in place of what was asked, once it is allowed
    asks: bool = False  # a person answers it, whatever the Policy says besides Deny


def described() -> dict[str, dict[str, Any]]:
    """Every method of the schema by name. Shared: not to be changed."""
    return _schema()


def recording(name: str) -> Recording:
    told: Recording = _schema()[name]["journal"]
    return told


def parser(name: str) -> Callable[[Mapping[str, Any]], Params]:
    """What reads the parameters of one method."""
    schema = _schema()[name]["params"]
    defaults = {key: field["default"] for key, field in schema["properties"].items() if "default" in field}
    sizes = {
        key: field["x-agentk-max-bytes"]
        for key, field in schema["properties"].items()
        if "x-agentk-max-bytes" in field
    }
    validator = _validator(name)
    fits = methods_fitting.fitting(schema) or _unsure

    def parse(given: Mapping[str, Any]) -> Params:
        params = dict(given)
        if params or "required" in schema or "oneOf" in schema:
            _few_enough(name, schema, params)
            problems = (
                [] if fits(params) else list(itertools.islice(validator.iter_errors(params), _TOLD_MAX))
            )
            if problems:
                raise _refused(name, schema, problems)
            for key, limit in sizes.items():
                _small_enough(name, key, params, limit)
        return {**defaults, **params}

    return parse


def _few_enough(name: str, schema: Mapping[str, Any], params: Params) -> None:
    """Before anything looks at the items: a validator tries each of them, and all pairs when no two may be equal."""
    for path, value, field in [
        ("params", params, schema),
        *((f"params.{key}", params.get(key), field) for key, field in schema["properties"].items()),
    ]:
        if not isinstance(value, list | dict):
            continue
        otherwise = _HELD_MAX if field.get("additionalProperties") is not False else _UNKNOWN_MAX
        most = field.get("maxItems" if isinstance(value, list) else "maxProperties", otherwise)
        if len(value) > most:
            cause = errors.Cause(path, f"{len(value)} items: at most {most}")
            raise errors.BadRequest(f"{name}: too many {path}", field=path, causes=[cause])


def _unsure(params: Params) -> bool:
    return False


def _small_enough(name: str, key: str, params: Params, limit: int) -> None:
    if key in params:
        size = len(json.dumps(params[key], ensure_ascii=False, separators=(",", ":")).encode())
        if size > limit:
            raise errors.TooLarge(f"{name}: {key} has {size} bytes: at most {limit}", field=f"params.{key}")


def _refused(name: str, schema: Mapping[str, Any], problems: list[Any]) -> errors.BadRequest:
    causes = [_cause(schema, problem) for problem in problems[:_TOLD_MAX]]
    return errors.BadRequest(
        f"{name}: the parameters are not what they should be", field=causes[0].field, causes=causes
    )


def _cause(schema: Mapping[str, Any], problem: Any) -> errors.Cause:
    """Values are not quoted: they may be long, and secret."""
    path = ".".join(["params", *(str(part) for part in problem.absolute_path)])
    rule, asked = problem.validator, problem.validator_value
    hint = ""
    if rule == "additionalProperties" and isinstance(problem.instance, dict):
        known = list(problem.schema.get("properties", {}))
        unknown = sorted(set(problem.instance) - set(known))
        told = f"unknown parameter {_short(unknown[0])}" if unknown else "has unknown parameters"
        hint = kinds.did_you_mean(unknown[0], known, "parameters") if unknown and known else ""
    elif rule == "required":
        missing = [key for key in asked if key not in problem.instance]
        told = f"{', '.join(missing)} missing"
    elif rule in ("oneOf", "anyOf"):
        choices = [" and ".join(one.get("required", ())) for one in asked]
        told = f"give exactly one of {', '.join(choice for choice in choices if choice)}"
    elif rule == "not":
        told = f"{' and '.join(asked.get('required', ()))} cannot be given together"
    elif rule == "type":
        told = f"expected {asked if isinstance(asked, str) else ' or '.join(asked)}"
    elif rule == "enum":
        told = f"expected one of {', '.join(str(one) for one in asked)}"
    else:
        told = f"does not fit {rule} {json.dumps(asked)[:100]}"
    return errors.Cause(path, told, hint=hint)


def _short(name: str) -> str:
    return json.dumps(name[:100])


@functools.cache
def _schema() -> dict[str, dict[str, Any]]:
    loaded = json.loads((files.folder("schemas") / SCHEMA).read_text(encoding="utf-8"))
    methods: dict[str, dict[str, Any]] = loaded["methods"]
    return methods


@functools.cache
def _validator(name: str) -> Any:
    import jsonschema  # 76 ms, and only where a gate is

    kinds_of = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_whole)
    extend: Any = jsonschema.validators.extend
    strict = extend(jsonschema.Draft202012Validator, type_checker=kinds_of)
    return strict(_schema()[name]["params"])


def _is_whole(checker: Any, value: Any) -> bool:
    """2.0 is a whole number to JSON Schema, and none to who counts with it."""
    return isinstance(value, int) and not isinstance(value, bool)
