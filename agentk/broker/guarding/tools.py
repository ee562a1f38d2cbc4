"""Commands that a tool makes of what an agent gives it, as guardrails see them: a shell by another name is one.

Only what the call brings is held against it: what the Tool's own manifest says was written by a person.
"""

from collections.abc import Mapping
from typing import Any

from agentk.api import errors
from agentk.broker.guarding import masking
from agentk.broker.guarding.lookouts import Lookouts
from agentk.broker.guarding.rails import Code
from agentk.tools import argvs


async def check_code(
    uid: str, code: Code, command: Mapping[str, Any], given: Mapping[str, Any], lookouts: Lookouts
) -> None:
    """`command` of a Tool's spec, and the call's arguments. Raises Denied, saying what."""
    try:
        found = await masking.problems(uid, code, _made(command, given), lookouts)
        if found:
            own = await masking.problems(uid, code, _made(command, _plain(given)), lookouts)
            masking.refuse([one for one in found if one not in own])
    except (errors.BadRequest, errors.TooLarge):
        return  # no command can be made of it, and so none runs


def _made(command: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    stdin = argvs.stdin(command.get("stdin", ""), given)
    return {"argv": argvs.argv(command["argv"], given), "stdin": stdin.decode("utf-8", "replace")}


def _plain(value: Any) -> Any:
    """The same arguments, saying nothing."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return "x" if isinstance(value, str) else value
