"""The Skills an agent may use, as its model finds, reads, runs and saves them: a line of each first, the rest when it
asks.

What a Skill says is its author's word: it comes to the model as the answer of a call, like all that strangers wrote.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Sequence, Tuple

from agentk.programs import progress
from agentk.sdk import client, errors, results

FEW = 20  # are told with the function that reads them; more are searched
FOUND = 8  # by one search

Function = Dict[str, Any]


class Skillbox:
    def __init__(self, agent: client.Agent, saves: Sequence[str] = ()) -> None:
        """`saves`: globs of the names that it may keep Skills under."""
        self._agent, self._saves = agent, saves
        self._few: List[results.SkillLine] = []
        self._many = False

    def open(self, say: progress.Progress) -> None:
        """See what there is. A gate that knows no Skills has none."""
        try:
            listed = self._agent.skill_search(limit=FEW + 1)
        except errors.Disconnected:
            raise
        except errors.CallError:
            return
        self._many = len(listed.items) > FEW
        self._few = list(listed.items[:FEW])
        if self._few:
            say.line("many skills" if self._many else f"skills: {', '.join(one.name for one in self._few)}")

    def functions(self) -> List[Function]:
        """As a model is told of them: the same from the first step to the last."""
        if not (self._few or self._saves):
            return []
        keep = f"Keeps what may be of use in later work as a skill. Names: {', '.join(self._saves)}."
        there = "" if self._many else "\n" + _lines(self._few)
        find = [
            _function(FIND, "Finds skills: instructions and scripts for kinds of work.", _QUERY, ["query"])
        ]
        read = f"Reads how a skill is used, or one of its files. Read it before you run it.{there}"
        run = "Runs a script of a skill (script, argv) or a Python function of it (function, arguments)."
        return [
            *(find if self._many else []),
            _function(READ, read, _READ, ["name"]),
            _function(RUN, run, _RUN, ["name"]),
            *([_function(SAVE, keep, _SAVE, ["name", "description"])] if self._saves else []),
        ]

    def call(self, name: str, arguments: Dict[str, Any]) -> Tuple[str, str]:
        """What the model is told, and the log. Raises CallError."""
        if name == FIND:
            found = self._agent.skill_search(str(arguments.get("query", ""))[:500], limit=FOUND).items
            names = ", ".join(one.name for one in found)
            return (_lines(found), names) if found else ("Nothing was found: try other words.", "nothing")
        skill = str(arguments.get("name", ""))
        if name == SAVE:
            given = {key: str(arguments[key]) for key in _SAVE if key in arguments}
            saved = self._agent.skill_save(
                skill,
                given.get("description", ""),
                code=given.get("code"),
                instructions=given.get("instructions"),
            )
            return f"Saved as version {saved.version}.", f"version {saved.version}"
        if name == READ:
            if arguments.get("file"):
                text = self._agent.skill_get(skill, file=str(arguments["file"])).content
            else:
                got = self._agent.skill_get(skill)
                files = "\n".join(f"- {one['path']} ({one['bytes']} bytes)" for one in got.files)
                text = f"{got.text}\n\nIts files:\n{files}"
            return text, progress.size(text)
        asked = {
            key: arguments[key] for key in ("function", "arguments", "script", "argv") if key in arguments
        }
        ran = self._agent.skill_run(skill, **asked)
        text = ran.stdout if "script" in asked else json.dumps(ran.result, ensure_ascii=False)
        if not ran.ok:
            said = f"It failed ({ran.reason}, exit code {ran.exit_code}):\n{ran.stderr}\n{ran.stdout}"
            return said, f"failed: {progress.short(ran.stderr or ran.reason, 120)}"
        if ran.stderr:
            text = f"{text}\n\nIt also said:\n{ran.stderr}"
        return text, progress.size(text)


def _lines(found: Any) -> str:
    return "\n".join(f"{one.name}: {one.description}" for one in found)


def _function(name: str, about: str, properties: Dict[str, Any], required: List[str]) -> Function:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": schema}}


FIND, READ, RUN, SAVE = "find_skills", "read_skill", "run_skill", "save_skill"
NAMES = frozenset({FIND, READ, RUN, SAVE})
_NAME = {"name": {"type": "string", "description": "Name of the skill."}}
_QUERY = {"query": {"type": "string", "description": "The work at hand, in a few words."}}
_READ = {**_NAME, "file": {"type": "string", "description": "One of its files; SKILL.md when not given."}}
_RUN = {
    **_NAME,
    "script": {"type": "string", "description": "A file of it, such as scripts/count.py."},
    "argv": {"type": "array", "items": {"type": "string"}, "description": "Arguments of the script."},
    "function": {"type": "string", "description": "NAME, or MODULE:NAME."},
    "arguments": {"type": "object", "description": "Named arguments of the function."},
}
_SAVE = {
    **_NAME,
    "description": {"type": "string", "description": "What it does and when to use it."},
    "instructions": {"type": "string", "description": "How to use it, or how something is done."},
    "code": {"type": "string", "description": "Python that it has, if any: functions to run later."},
}
