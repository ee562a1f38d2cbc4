"""Tools of kind `command`: a program with arguments of the call's, and what it wrote as the answer."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from agentk.api import toolspecs
from agentk.broker.tooling import kinds as words
from agentk.broker.tooling import running
from agentk.broker.tooling.kinds import Calling, Object
from agentk.broker.words import Guest
from agentk.tools import argvs, offers, outputs
from agentk.tools.offers import Offered, Outcome


@dataclass(frozen=True)
class Commands:
    runner: running.Runner

    def names(self, tool: Object) -> Sequence[str]:
        return (words.name(tool),)

    async def fingerprint(self, tool: Object) -> str:
        return ""

    async def discover(self, tool: Object, guest: Guest | None) -> Sequence[Offered]:
        spec = words.spec(tool)
        schema = toolspecs.of_manifest(spec["command"].get("parameters"))
        return (offers.offered(words.name(tool), spec.get("description", ""), schema),)

    async def call(self, tool: Object, calling: Calling) -> Outcome:
        command, given = words.spec(tool)["command"], calling.arguments
        argv = argvs.argv(command["argv"], given)
        stdin = argvs.stdin(command.get("stdin", ""), given)
        async with self.runner.box(tool, calling.guest) as box_id:
            ran = await self.runner.run(
                box_id,
                argv,
                calling.seconds,
                stdin=stdin,
                env=running.key_env(tool, calling.key),
                effect=calling.effect,
            )
        made: Outcome = await words.apart(len(ran.stdout), functools.partial(outputs.outcome, command, ran))
        return made
