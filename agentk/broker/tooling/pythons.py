"""Tools of kind `python`: functions, each a tool. What they offer is read in a box of the Tool's own, never here.

Not beside a caller: what is told of a function is told to every agent, so none of them may have a hand in it.
"""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, kinds
from agentk.broker.tooling import kinds as words
from agentk.broker.tooling import running
from agentk.broker.tooling.kinds import Calling, Object
from agentk.broker.words import Guest
from agentk.store import store as stores
from agentk.tools import pythons
from agentk.tools.offers import Offered, Outcome

_READ_SECONDS = 60.0
_FORMAT = "2"  # of what `signatures` makes: with another one all functions are read anew
_SOURCE = "/app"  # where a jail's own source is seen


@dataclass(frozen=True)
class Pythons:
    runner: running.Runner
    store: stores.Store

    def names(self, tool: Object) -> Sequence[str]:
        return [str(one).rpartition(":")[2] for one in words.spec(tool)["python"]["functions"]]

    async def fingerprint(self, tool: Object) -> str:
        """What is in the manifest has the Tool's generation; what is elsewhere has not."""
        if "configMapRef" not in (words.spec(tool)["python"].get("source") or {}):
            return _FORMAT
        files = json.dumps(await self._files(tool), sort_keys=True)
        return f"{_FORMAT}-{hashlib.sha256(files.encode('utf-8', 'backslashreplace')).hexdigest()[:16]}"

    async def discover(self, tool: Object, guest: Guest | None) -> Sequence[Offered]:
        functions = words.spec(tool)["python"]["functions"]
        keyed = words.is_keyed(tool)
        order = pythons.order(await self._files(tool), _path(tool), functions=functions, keyed=keyed)
        async with self.runner.box(tool, None, own=True) as box_id:
            ran = await self.runner.run(box_id, pythons.argv(), _READ_SECONDS, stdin=order)
        made: Sequence[Offered] = await words.apart(
            len(ran.stdout), functools.partial(pythons.offered, ran, functions)
        )
        return made

    async def call(self, tool: Object, calling: Calling) -> Outcome:
        listed = words.spec(tool)["python"]["functions"]
        function = next(one for one in listed if str(one).rpartition(":")[2] == calling.offered.name)
        files = await self._files(tool)
        asked = {"call": function, "arguments": calling.arguments}
        key = calling.key if words.is_keyed(tool) else ""
        order = pythons.order(files, _path(tool), **asked, key=key)
        async with self.runner.box(tool, calling.guest) as box_id:
            ran = await self.runner.run(
                box_id,
                pythons.argv(),
                calling.seconds,
                stdin=order,
                env=running.key_env(tool, calling.key),
                effect=calling.effect,
            )
        made: Outcome = await words.apart(len(ran.stdout), functools.partial(pythons.outcome, ran))
        return made

    async def _files(self, tool: Object) -> dict[str, str]:
        """Name to text. Raises NotFound."""
        source = words.spec(tool)["python"].get("source") or {}
        if "inline" in source:
            return dict(source["inline"]["files"])
        if "configMapRef" not in source:
            return {}
        name = str(source["configMapRef"]["name"])
        found: dict[str, Any] | None = await self.store.find(kinds.CONFIGMAP, words.namespace(tool), name)
        if found is None:
            raise errors.NotFound(
                f'ConfigMap "{name}" of Tool "{words.name(tool)}" does not exist',
                hint=f"agentk get configmaps -n {words.namespace(tool)}",
            )
        return {str(key): str(text) for key, text in (found.get("data") or {}).items()}


def _path(tool: Object) -> str:
    return _SOURCE if (words.spec(tool).get("jail") or {}).get("source") else ""
