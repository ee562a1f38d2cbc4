"""What a schema cannot say of a Policy. Pure."""

import fnmatch
import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from agentk.api import kinds
from agentk.api.problems import Problem
from agentk.data import files

_CALLS = "syscalls.json"


def problems(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """A rule that means no call there is: a Deny that somebody mistyped would deny nothing, and say nothing."""
    for at, rule in enumerate(spec.get("rules") or ()):
        for place, glob in enumerate(rule.get("methods") or ()):
            if not any(fnmatch.fnmatchcase(call, glob.replace("[", "[[]")) for call in calls()):
                hint = kinds.did_you_mean(glob, list(calls()), "calls")
                yield Problem(("spec", "rules", at, "methods", place), f'no call is "{glob}"', hint)


@functools.cache
def calls() -> tuple[str, ...]:
    """The calls that agents can make."""
    told = json.loads((files.folder("schemas") / _CALLS).read_text(encoding="utf-8"))
    return tuple(told["methods"])
