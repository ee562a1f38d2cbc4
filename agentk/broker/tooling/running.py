"""Programs of tools: run beside who calls them, or in a box of the tool's own. What `command` and `python` share.

Without a jail of its own a tool has the caller's box: its files, uid, limits and network, and nothing else. A person
who calls one has no box, so a box of the Tool's is made for it.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from agentk.api import errors
from agentk.broker import exec_orders
from agentk.broker.calling.execing import Execute
from agentk.broker.tooling import kinds as words
from agentk.broker.tooling.instances import Instances
from agentk.broker.tooling.kinds import Object
from agentk.broker.words import Guest
from agentk.tools.outputs import Ran

WORKSPACE = "/workspace"
OUTPUT_BYTES = 4 * 1024 * 1024  # the most the runtime keeps of one stream
START_SECONDS = 120.0  # for a box of the tool's own, packages and images included


@dataclass(frozen=True)
class Runner:
    execute: Execute
    instances: Instances

    @contextlib.asynccontextmanager
    async def box(self, tool: Object, guest: Guest | None, own: bool = False) -> AsyncIterator[str]:
        """The id of the box that it runs beside."""
        if guest is not None and guest.box_id and "jail" not in tool["spec"] and not own:
            yield guest.box_id
            return
        async with self.instances.box(tool, guest, START_SECONDS) as agent:
            yield str(agent["status"]["boxID"])

    async def run(
        self,
        box_id: str,
        argv: Sequence[str],
        seconds: float,
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        effect: str = "",
    ) -> Ran:
        """Raises OutcomeUnknown when nobody saw how it ended, and what the runtime refuses."""
        result = await self.execute(
            box_id,
            argv,
            seconds,
            stdin=stdin,
            env=env,
            cwd=WORKSPACE,
            output_bytes=OUTPUT_BYTES,
            exec_id=effect,
        )
        code, why = exec_orders.exit_code(result), exec_orders.reason(result)
        if code == exec_orders.NOT_FOUND and result.stderr.startswith(
            f"agentk: {argv[0]}: not found".encode()
        ):
            raise errors.RuntimeRefused(
                f"there is no {argv[0]} in this jail",
                hint=f"install {argv[0]} on the host below /usr, or give the Tool a jail with an image that has it",
            )
        return Ran(
            code,
            result.stdout,
            result.stderr,
            result.stdout_truncated,
            "" if why in ("Completed", "Error") else why,
            seconds,
        )


def key_env(tool: Object, key: str) -> dict[str, str]:
    """What a program that is idempotent by key is told."""
    return {"IDEMPOTENCY_KEY": key} if words.is_keyed(tool) else {}
