"""The tools of `agentk mcp serve`. Each is a verb of the command line, run as a person would: same checks, same words.

What a model writes is data here: it is never an option, a file or another namespace, and what it asks for is bounded.
It may not read Secrets, decide Approvals, or type into boxes: those are for the person whose rights it uses.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

from agentk.api import errors, kinds, manifest

OUTPUT_BYTES = 256 * 1024  # of one answer
_SECONDS = 120.0  # of a verb that only asks or writes
_RUN_SECONDS_MAX = 3600
_APART = frozenset({"secrets", "approvals"})  # not read and not written here
_LOOKS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_CHANGES = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)
_RUNS = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=True)

_INSTRUCTIONS = (
    "agentk runs AI agents from YAML manifests, each in a jail of its own. Use `explain` for the fields of a kind, "
    "`apply` to create objects, `run` to run one agent to its end, `logs` to read what it wrote, and `call_tool` for "
    "what a Tool offers. Every answer is text as the command line prints it."
)


def serve(namespace: str, read_only: bool) -> int:
    server = MCPServer("agentk", instructions=_INSTRUCTIONS, log_level="ERROR")
    verbs = _Verbs(namespace)
    for look in (
        verbs.get,
        verbs.describe,
        verbs.logs,
        verbs.events,
        verbs.explain,
        verbs.list_tools,
        verbs.read_skill,
    ):
        server.add_tool(look, annotations=_LOOKS)
    if not read_only:
        for change in (verbs.apply, verbs.delete):
            server.add_tool(change, annotations=_CHANGES)
        for run in (verbs.run, verbs.call_tool):
            server.add_tool(run, annotations=_RUNS)
    server.run("stdio")
    return 0


class _Verbs:
    """Their names, docstrings and signatures are what a model reads."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    async def get(self, kind: str, name: str = "", labels: str = "") -> str:
        """Show one object as YAML, or list those of a kind (agent, tool …), perhaps by labels such as app=web."""
        chosen = [*_plain(name), "-o", "yaml"] if name else ["-o", "wide"]
        return await self._agentk("get", _kind(kind), *chosen, *(["-l", _word(labels)] if labels else []))

    async def describe(self, kind: str, name: str) -> str:
        """Tell everything about an object, with its events."""
        return await self._agentk("describe", _kind(kind), *_plain(name))

    async def logs(self, agent: str, lines: int = 200, previous: bool = False) -> str:
        """Read the last lines that an agent wrote; with previous those of its attempt before."""
        words = [*_plain(agent), f"--tail={min(max(1, lines), 10_000)}"]
        return await self._agentk("logs", *words, *(["--previous"] if previous else []))

    async def events(self) -> str:
        """List what happened of late."""
        return await self._agentk("events")

    async def explain(self, path: str) -> str:
        """Tell what a field of a manifest means, and which fields it has: agent.spec.tools, for example."""
        return await self._agentk("explain", *_plain(path), namespaced=False)

    async def list_tools(self, tool: str) -> str:
        """List what a Tool offers, starting it when nobody knows."""
        return await self._agentk("tool", "list", *_plain(tool))

    async def read_skill(self, skill: str, file: str = "") -> str:
        """Read how a Skill is used, or one of its files; get lists those of kind skill."""
        return await self._agentk("skill", "show", *_plain(skill), *_plain(file))

    async def apply(self, manifests: str, dry_run: bool = False) -> str:
        """Create or change objects from manifests, YAML or JSON, one document or several."""
        _judge(manifests)
        return await self._agentk(
            "apply", "-f", "-", *(["--dry-run=server"] if dry_run else []), stdin=manifests
        )

    async def delete(self, kind: str, name: str) -> str:
        """Delete one object, and wait until it is gone."""
        return await self._agentk("delete", _kind(kind), *_plain(name))

    async def run(self, agent: str, seconds: int = 600) -> str:
        """Run one agent, given as a manifest, to its end; answer with what it wrote. Then it is deleted."""
        _judge(agent)
        seconds = min(max(1, seconds), _RUN_SECONDS_MAX)
        words = ["run", "--use-daemon", "--rm", f"--timeout={seconds}s", "-f", "-"]
        return await self._agentk(*words, stdin=agent, seconds=seconds + _SECONDS)

    async def call_tool(self, tool: str, arguments: dict[str, Any] | None = None) -> str:
        """Call a Tool, or TOOL/NAME of one that offers several, in a box of its own."""
        given = json.dumps(arguments or {})
        return await self._agentk(
            "tool", "call", *_plain(tool), "--args", "-", stdin=given, seconds=_RUN_SECONDS_MAX
        )

    async def _agentk(
        self, *words: str, stdin: str = "", seconds: float = _SECONDS, namespaced: bool = True
    ) -> str:
        """What the command line prints. Raises ToolError with its words when it fails."""
        command = [sys.executable, "-m", "agentk.cli.main", *words]
        if namespaced:
            command += ["-n", self._namespace]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, "NO_COLOR": "1"}
        )
        try:
            async with asyncio.timeout(seconds):
                out, err = await process.communicate(stdin.encode())
        except TimeoutError:
            raise ToolError(f"agentk {words[0]} did not end within {seconds:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        said = _cut(out) + ("\n" + _cut(err) if err.strip() else "")
        if process.returncode:
            raise ToolError(said.strip() or f"agentk {words[0]} ended with {process.returncode}")
        return said


def _kind(told: str) -> str:
    """Raises ToolError for what is not for a model to look at."""
    word = _word(told)
    try:
        kind = kinds.resource(word)
    except errors.NotFound as error:
        raise ToolError(str(error)) from None
    if kind.plural in _APART:
        raise ToolError(f"{kind.plural} are for a person to look at: agentk get {kind.plural}")
    return word


def _judge(text: str) -> None:
    """Raises ToolError for a manifest with what a model does not write: see above."""
    try:
        found = manifest.parse(text, "manifest")
    except errors.AgentkError as error:
        raise ToolError(str(error)) from None
    for one in found:
        word = str(one.obj.get("kind", "")).lower()
        if word.rstrip("s") + "s" in _APART:
            raise ToolError(f"a {one.obj['kind']} is for a person to write: agentk apply -f FILE")
        if _reads_files(one.obj):
            told = "source.path and lockFile would send files of this machine: use inline, or agentk apply -f FILE"
            raise ToolError(told)


def _reads_files(value: Any) -> bool:
    if isinstance(value, dict):
        source = value.get("source")
        if "lockFile" in value or (isinstance(source, dict) and "path" in source):
            return True
        return any(_reads_files(below) for below in value.values())
    return isinstance(value, list) and any(_reads_files(below) for below in value)


def _plain(name: str) -> Sequence[str]:
    return [_word(name)] if name else []


def _word(text: str) -> str:
    """Never an option."""
    if text.startswith("-") or any(char in text for char in "\0\n"):
        raise ToolError(f"{text[:50]!r} is no name")
    return text


def _cut(data: bytes) -> str:
    text = data[:OUTPUT_BYTES].decode("utf-8", "replace")
    return text + (f"\n… {len(data) - OUTPUT_BYTES} bytes more" if len(data) > OUTPUT_BYTES else "")
