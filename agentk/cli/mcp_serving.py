"""The tools of `agentk mcp serve`. Each is a verb of the command line, run as a person would: same checks, same words.

What a model writes is data here: it is never an option, a file or another namespace, and what it asks for is bounded.
It may not read Secrets, decide Approvals, or type into boxes: those are for the person whose rights it uses.
"""

import json
from collections.abc import Callable
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations

from agentk.cli import mcp_serving_runs as runs
from agentk.cli import mcp_serving_tasks as tasks
from agentk.cli import mcp_serving_words as words
from agentk.cli import version

_RUN_SECONDS_MAX = 3600

_INSTRUCTIONS = (
    "agentk runs AI agents from YAML manifests, each in a jail of its own. Use `explain` for the fields of a kind, "
    "`apply` to create objects, `run` to run one agent to its end, `run_task` to give work to an agent that is there, "
    "`logs` to read what one wrote, and `call_tool` for what a Tool offers. Every answer is text as the command line "
    "prints it."
)


def serve(namespace: str, read_only: bool) -> int:
    server = MCPServer("agentk", instructions=_INSTRUCTIONS, version=version.ours(), log_level="ERROR")
    verbs = _Verbs(namespace)
    for verb, hints in _offered(verbs, read_only):
        server.add_tool(verb, annotations=hints)
    server.run("stdio")
    return 0


def _offered(verbs: "_Verbs", read_only: bool) -> list[tuple[Callable[..., Any], ToolAnnotations]]:
    """With what a client may tell its person of each. What an agent or a Tool does is theirs to say: never harmless."""
    looks = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    asks = ToolAnnotations(read_only_hint=True, open_world_hint=True)  # a server that somebody wrote
    sets = ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
    )
    ends = ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
    )
    works = ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True
    )
    found: list[tuple[Callable[..., Any], ToolAnnotations]] = [
        (one, looks)
        for one in (
            verbs.get, verbs.describe, verbs.logs, verbs.events, verbs.explain,
            verbs.diff, verbs.list_skills, verbs.read_skill,
        )
    ]  # fmt: skip
    found.append((verbs.list_tools, asks))
    if not read_only:
        found += [(one, sets) for one in (verbs.apply, verbs.delete, verbs.cancel_task)]
        found.append((verbs.kill, ends))
        found += [(one, works) for one in (verbs.run, verbs.run_task, verbs.call_tool)]
    return found


class _Verbs:
    """Their names, docstrings and signatures are what a model reads."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    async def get(self, kind: str, name: str = "", labels: str = "") -> str:
        """Show one object as YAML, or list those of a kind (agent, tool …), perhaps by labels such as app=web."""
        chosen = [*words.plain(name), "-o", "yaml"] if name else ["-o", "wide"]
        return await self._agentk(
            "get", words.kind(kind), *chosen, *(["-l", words.word(labels)] if labels else [])
        )

    async def describe(self, kind: str, name: str) -> str:
        """Tell everything about an object, with its events."""
        return await self._agentk("describe", words.kind(kind), *words.plain(name))

    async def logs(self, agent: str, lines: int = 200, previous: bool = False) -> str:
        """Read the last lines that an agent wrote; with previous those of its attempt before."""
        said = [*words.plain(agent), f"--tail={min(max(1, lines), 10_000)}"]
        return await self._agentk("logs", *said, *(["--previous"] if previous else []))

    async def events(self) -> str:
        """List what happened of late."""
        return await self._agentk("events")

    async def explain(self, path: str) -> str:
        """Tell what a field of a manifest means, and which fields it has: agent.spec.tools, for example."""
        return await self._agentk("explain", *words.plain(path), namespaced=False)

    async def list_tools(self, tool: str) -> str:
        """List what a Tool offers, starting it when nobody knows."""
        return await self._agentk("tool", "list", *words.plain(tool))

    async def list_skills(self) -> str:
        """List the Skills there are: texts and code that tell how something is done."""
        return await self._agentk("skill", "list")

    async def read_skill(self, skill: str, file: str = "") -> str:
        """Read how a Skill is used, or one of its files."""
        return await self._agentk("skill", "show", *words.plain(skill), *words.plain(file))

    async def apply(self, manifests: str, dry_run: bool = False) -> str:
        """Create or change objects from manifests, YAML or JSON, one document or several."""
        words.judge(manifests)
        return await self._agentk(
            "apply", "-f", "-", *(["--dry-run=server"] if dry_run else []), stdin=manifests
        )

    async def diff(self, manifests: str) -> str:
        """Show what apply would change; nothing when all is as the manifests say."""
        words.judge(manifests)
        return await self._agentk("diff", "-f", "-", stdin=manifests, most=1)  # 1: there are differences

    async def delete(self, kind: str, name: str) -> str:
        """Delete one object, and wait until it is gone."""
        return await self._agentk("delete", words.changed_kind(kind), *words.plain(name))

    async def run(self, agent: str, seconds: int = 600) -> str:
        """Run one agent, given as a manifest, to its end; answer with what it wrote. Then it is deleted."""
        words.judge(agent)
        seconds = min(max(1, seconds), _RUN_SECONDS_MAX)
        said = ["run", "--use-daemon", "--rm", f"--timeout={seconds}s", "-f", "-"]
        return await self._agentk(*said, stdin=agent, seconds=seconds + runs.SECONDS)

    async def run_task(
        self, agent: str, context: Context[Any, Any], input: Any = None, seconds: int = 600
    ) -> str:
        """Give work to an agent that is there, as a Task, and answer with its result as JSON. What the agent writes is
        told as progress; a call that is taken back gives the Task up."""
        return await tasks.run(self._namespace, agent, input, seconds, context)

    async def cancel_task(self, task: str) -> str:
        """Give a Task up: its agent is ended."""
        return await self._agentk("task", "cancel", *words.plain(task))

    async def kill(self, agent: str) -> str:
        """End an agent, and wait until it has ended; one whose restartPolicy is Always starts again."""
        return await self._agentk("kill", *words.plain(agent))

    async def call_tool(self, tool: str, arguments: dict[str, Any] | None = None) -> str:
        """Call a Tool, or TOOL/NAME of one that offers several, in a box of its own."""
        given = json.dumps(arguments or {})
        return await self._agentk(
            "tool", "call", *words.plain(tool), "--args", "-", stdin=given, seconds=_RUN_SECONDS_MAX
        )

    async def _agentk(
        self,
        *said: str,
        stdin: str = "",
        seconds: float = runs.SECONDS,
        namespaced: bool = True,
        most: int = 0,
    ) -> str:
        where = ("-n", self._namespace) if namespaced else ()
        return await runs.run(*said, *where, stdin=stdin, seconds=seconds, most=most)
