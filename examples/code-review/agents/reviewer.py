"""Reviews every file of a change with a model that may try things out; ends with a list of what it found."""

import json
import pathlib

from agentk.sdk import client

CHANGE = pathlib.Path("/app/change")
SYSTEM = (
    "You review one file of a change. Try what you suspect before you report it. Report only what is wrong."
)
STEPS = 8

agent = client.connect()


def try_it(code):
    """In a jail of its own, with the agent's limits; the change can be imported."""
    program = f"import sys; sys.path.insert(0, {str(CHANGE)!r})\n{code}"
    done = agent.exec_python(program, timeout_seconds=20)
    if done.ok:
        return done.stdout.strip() or "it ran, and printed nothing"
    return f"exit code {done.exit_code}: {done.stderr.strip()[-2000:]}"


def tool(name, about, **arguments):
    fields = {key: {"type": "string", "description": what} for key, what in arguments.items()}
    parameters = {"type": "object", "properties": fields, "required": list(fields)}
    return {
        "type": "function",
        "function": {"name": name, "description": about, "parameters": parameters},
    }


TOOLS = [
    tool("try_it", "Run a Python program that may import the change.", code="The program."),
    tool("report", "Report what is wrong.", severity="error or warning", finding="What, and what to do."),
]


def review(path):
    """What is wrong with one file."""
    found = []
    asked = f"{path.name}:\n\n{path.read_text()}"
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]
    for _ in range(STEPS):
        thought = agent.think(messages=messages, tools=TOOLS)
        messages.append(thought.message)
        if not thought.tool_calls:
            break
        for call in thought.tool_calls:
            arguments = json.loads(call["function"]["arguments"])
            if call["function"]["name"] == "report":
                found.append({"file": path.name, **arguments})
                answer = "noted"
            else:
                answer = try_it(**arguments)
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": answer})
    return found


findings = []
for path in sorted(CHANGE.glob("*.py")):
    found = review(path)
    findings += found
    print(f"{path.name}: {'ok' if not found else ''}".rstrip(), flush=True)
    for one in found:
        print(f"  {one['severity']}: {one['finding']}", flush=True)
agent.exit(message=f"{len(findings)} found", result=findings)
