"""The calls of `calls` about what an agent is granted by name: Tools and Skills.

Runs in jails: Python 3.9, standard library only.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence

from agentk.sdk import answers, results
from agentk.sdk.answers import Call, Streaming, as_tuple, given

Json = Any


def tool_list(
    search: Optional[str] = None, *, limit: Optional[int] = None, continue_: Optional[str] = None
) -> Call[results.Tools]:
    """What may be called, a line each.  `agent.tool_list("issues").items[0].name` → "github__get_issue" """
    return Call("tool.list", given(search=search, limit=limit, **{"continue": continue_}), answers.tools)


def tool_describe(name: str) -> Call[results.Described]:
    """With its schema.  `agent.tool_describe("github__get_issue").input_schema` → {"type": "object", …}"""
    return Call("tool.describe", {"name": name}, as_tuple(results.Described))


def tool_call(
    name: str, arguments: Optional[Dict[str, Json]] = None, *, timeout_seconds: Optional[float] = None
) -> Streaming[results.Answered, results.Progress]:
    """Calls it. One that fails is no error: look at is_error.  `str(agent.tool_call("calculator", {…}))` → "42" """
    params = {"name": name, **given(arguments=arguments, timeoutSeconds=timeout_seconds)}
    return Streaming("tool.call", params, as_tuple(results.Answered), as_tuple(results.Progress))


def skill_search(
    search: Optional[str] = None, *, limit: Optional[int] = None, continue_: Optional[str] = None
) -> Call[results.Skills]:
    """Which are there?  `agent.skill_search("pdf forms").items[0].name` → "pdf-forms" """
    params = given(search=search, limit=limit, **{"continue": continue_})
    return Call("skill.search", params, answers.a_page(results.Skills, results.SkillLine))


def skill_get(
    name: str, *, file: Optional[str] = None, importing: Optional[bool] = None
) -> Call[results.Skill]:
    """Reads one, or a file of it.  `agent.skill_get("pdf-forms").text` → its SKILL.md"""
    return Call("skill.get", {"name": name, **given(file=file, importing=importing)}, as_tuple(results.Skill))


def skill_save(
    name: str, description: str, *, instructions: Optional[str] = None, code: Optional[str] = None,
    files: Optional[Dict[str, str]] = None,
) -> Call[results.SavedSkill]:  # fmt: skip
    """Keeps it for later.  `agent.skill_save("fib", "Fibonacci numbers.", code="def fib(n): …").version` → 1"""
    params = given(instructions=instructions, code=code, files=files)
    told = {"name": name, "description": description, **params}
    return Call("skill.save", told, as_tuple(results.SavedSkill))


def skill_run(
    name: str, function: Optional[str] = None, *, arguments: Optional[Dict[str, Json]] = None,
    script: Optional[str] = None, argv: Optional[Sequence[str]] = None,
    timeout_seconds: Optional[float] = None, output_bytes: Optional[int] = None,
) -> Call[results.SkillRun]:  # fmt: skip
    """Runs it in a jail.  `agent.skill_run("fib", "fib", arguments={"n": 10}).result` → 55"""
    params = given(
        function=function, arguments=arguments, script=script, argv=argv, timeoutSeconds=timeout_seconds,
        outputBytes=output_bytes,
    )  # fmt: skip
    return Call("skill.run", {"name": name, **params}, as_tuple(results.SkillRun))


def skill_delete(name: str) -> Call[bool]:
    """Whether there was one to delete.  `agent.skill_delete("fib")` → True"""
    return Call("skill.delete", {"name": name}, answers.a_bool("deleted"))
